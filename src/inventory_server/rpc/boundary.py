"""The boundary that every RPC crosses: bytes to message, token, deadline, and errors to status details.

The handlers are registered here rather than behind gRPC's own interceptors, which cost each call a coroutine more and
see neither a request that cannot be decoded nor the deadline in time.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Protocol

import grpc
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from inventory_client.proto.inventory.v1 import inventory_pb2 as pb
from inventory_server.errors import InternalError, InventoryError, ValidationError, Violation
from inventory_server.rpc.status import status_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from inventory_server.rpc.tokens import Tokens

log = logging.getLogger(__name__)

SERVICE = "inventory.v1.InventoryService"
_SERVICE = pb.DESCRIPTOR.services_by_name["InventoryService"]


class Context(Protocol):
    """What is used of grpc.aio's ServicerContext."""

    def time_remaining(self) -> float | None: ...
    def invocation_metadata(self) -> Any: ...
    def add_done_callback(self, callback: Callable[[Any], None]) -> None: ...
    async def abort(self, code: grpc.StatusCode, details: str, trailing_metadata: Any) -> Any: ...


class Calls:
    """Counts the calls in flight, so that a drain ends with the last of them whatever else is connected."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.draining: asyncio.Event | None = None

    def leave(self, _: Context) -> None:
        self.in_flight -= 1
        if self.in_flight == 0 and self.draining is not None:
            self.draining.set()


def register(server: grpc.aio.Server, servicers: Sequence[object], tokens: Tokens | None) -> Calls:
    """Serve each method of the proto by the method of that name that one of the servicers has."""
    calls = Calls()
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        method.name: grpc.unary_unary_rpc_method_handler(
            _bounded(method.name, GetMessageClass(method.input_type), getattr(servicer, method.name), tokens, calls)
        )
        for servicer in servicers
        for method in _SERVICE.methods
        if hasattr(servicer, method.name)
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    return calls


async def drain(server: grpc.aio.Server, calls: Calls, grace: float) -> None:
    """Refuse new calls and wait up to `grace` seconds for those in flight; a health watch is no reason to wait."""
    idle = calls.draining = asyncio.Event()
    stopping = asyncio.create_task(server.stop(grace))
    if calls.in_flight:
        waiting = asyncio.create_task(idle.wait())
        await asyncio.wait({stopping, waiting}, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
    await server.stop(0)
    await stopping


def _bounded(
    name: str,
    kind: type[Message],
    method: Callable[[Any, float | None], Awaitable[Message]],
    tokens: Tokens | None,
    calls: Calls,
) -> Callable[[bytes, Context], Awaitable[bytes]]:
    async def handle(body: bytes, context: Context) -> bytes:
        calls.in_flight += 1
        # Not when the handler returns: its answer is still to be sent then, and the end of a drain would cut it off.
        context.add_done_callback(calls.leave)
        try:
            if tokens is not None:
                tokens.check(name, context.invocation_metadata())
            remaining = context.time_remaining()
            deadline = None if remaining is None else asyncio.get_running_loop().time() + remaining
            return (await method(_decoded(kind, body), deadline)).SerializeToString()
        except InventoryError as error:
            return await _abort(context, error)
        except TimeoutError:
            return await _expire(context)
        except Exception:
            log.exception("%s failed", name)
            return await _abort(context, InternalError())

    return handle


def _decoded(kind: type[Message], body: bytes) -> Message:
    try:
        return kind.FromString(body)
    except DecodeError:
        violation = Violation("request", f"is not a {kind.DESCRIPTOR.full_name} message")
        raise ValidationError([violation]) from None


async def _abort(context: Context, error: InventoryError) -> bytes:
    status = status_of(error)
    metadata = (("grpc-status-details-bin", status.SerializeToString()),)
    answer: bytes = await context.abort(error.code, error.sentence, metadata)
    return answer


async def _expire(context: Context) -> bytes:
    # The caller's own clock has said so already; this only ends the call here.
    answer: bytes = await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "The deadline has passed.", ())
    return answer

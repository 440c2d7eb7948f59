"""The boundary that every RPC crosses: bytes to message, token, deadline, and errors to status details.

The handlers are registered here rather than behind gRPC's own interceptors, which cost each call a coroutine more and
see neither a request that cannot be decoded nor the deadline in time.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Protocol

import grpc
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from inventory_client.proto.inventory.v1 import inventory_pb2 as pb
from inventory_server.errors import InternalError, InventoryError, Overloaded, Stopping, ValidationError, Violation
from inventory_server.rpc import metering
from inventory_server.rpc.status import DETAILS_KEY, come_back, status_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

    from inventory_server.rpc.tokens import Tokens

    Handler = Callable[[bytes, Any], Awaitable[Any]]

log = logging.getLogger(__name__)

SERVICE = "inventory.v1.InventoryService"
_SERVICE = pb.DESCRIPTOR.services_by_name["InventoryService"]

# A caller that takes nothing from its stream for so long is cut off.
_UNREAD_SECONDS_MAX = 10.0
# What streams get at the end of a drain to tell their callers that the server goes.
_FAREWELL_SECONDS_MAX = 1.0
# The server stops listening once no call has come for so long, or after so long in any case.
_QUIET_SECONDS = 0.05
_QUIET_SECONDS_MAX = 1.0
# gRPC's own grace, which is never to end: a stop whose grace runs out while another stop is under way reaches for the
# server that the other has destroyed already, and the process dies of it. A stop without a grace ends both.
_GRPC_GRACE_SECONDS = 86_400.0
# Who was turned away asks again no sooner than this: or those who do would keep the server from stopping to listen, and
# themselves from another, since their connection lasts until then.
_AWAY_SECONDS = 0.2
# A caller may send anything as a request id; so much of it is logged.
_REQUEST_ID_MAX = 40
_STOPPING = "The server is stopping; go on at another."


class Context(Protocol):
    """What is used of grpc.aio's ServicerContext."""

    def time_remaining(self) -> float | None: ...
    def invocation_metadata(self) -> Any: ...
    def add_done_callback(self, callback: Callable[[Any], None]) -> None: ...
    async def send_initial_metadata(self, initial_metadata: Any) -> None: ...
    async def write(self, message: bytes) -> None: ...
    async def abort(self, code: grpc.StatusCode, details: str, trailing_metadata: Any) -> Any: ...


class Calls:
    """Counts the calls in flight, so that a drain ends with the last of them whatever else is connected.

    Streams last for as long as their callers want; a drain ends them.
    """

    def __init__(self) -> None:
        self.begun = 0
        self.in_flight = 0
        self.streams: set[asyncio.Task[Any] | None] = set()
        self.draining = False
        self.idle: asyncio.Event | None = None

    def enter(self) -> None:
        self.begun += 1
        self.in_flight += 1

    def leave(self, _: Context) -> None:
        self.in_flight -= 1
        if self.in_flight == 0 and self.idle is not None:
            self.idle.set()


def register(
    server: grpc.aio.Server, servicers: Sequence[object], tokens: Tokens | None, *, metered: bool = False
) -> Calls:
    """Serve each method of the proto by the method of that name that one of the servicers has."""
    logging.getLogger("grpc._cython.cygrpc").addFilter(_is_news)
    meter = metering.metered if metered else _unmetered
    calls = Calls()
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {}
    for servicer in servicers:
        for method in _SERVICE.methods:
            if hasattr(servicer, method.name):
                bound = (method.name, GetMessageClass(method.input_type), getattr(servicer, method.name), tokens, calls)
                handlers[method.name] = (
                    grpc.unary_stream_rpc_method_handler(meter(method.name, _streaming(*bound)))
                    if method.server_streaming
                    else grpc.unary_unary_rpc_method_handler(meter(method.name, _bounded(*bound)))
                )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    return calls


def _is_news(record: logging.LogRecord) -> bool:
    """Tell whether anything is wrong here: gRPC logs a traceback for each caller who hangs up while being answered."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, grpc.aio.InternalError)


def _unmetered(_: str, handle: Handler) -> Handler:
    return handle


async def drain(server: grpc.aio.Server, calls: Calls, grace: float) -> None:
    """Refuse new calls, end streams and wait up to `grace` seconds for those in flight; a health watch is no reason."""
    loop = asyncio.get_running_loop()
    end = loop.time() + grace
    calls.draining = True
    await _quiet(calls, min(grace, _QUIET_SECONDS_MAX))
    grace = max(0.0, end - loop.time())
    idle = calls.idle = asyncio.Event()
    stopping = asyncio.create_task(server.stop(_GRPC_GRACE_SECONDS))
    streams = [stream for stream in calls.streams if stream is not None]
    for stream in streams:
        stream.cancel()
    if streams:
        await asyncio.wait(streams, timeout=min(grace, _FAREWELL_SECONDS_MAX))
    if calls.in_flight:
        waiting = asyncio.create_task(idle.wait())
        await asyncio.wait({stopping, waiting}, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
    await server.stop(None)
    await stopping


async def _quiet(calls: Calls, patience: float) -> None:
    """Refuse calls until no more come.

    What has reached gRPC but not us is CANCELLED once the server stops (grpc/grpc#41785), which callers do not repeat;
    UNAVAILABLE says that nothing was done, and sends them to another server.
    """
    loop = asyncio.get_running_loop()
    end, seen = loop.time() + patience, -1
    while calls.begun > seen and loop.time() < end:
        seen = calls.begun
        await asyncio.sleep(_QUIET_SECONDS)


def _bounded(
    name: str,
    kind: type[Message],
    method: Callable[[Any, float | None], Awaitable[Message]],
    tokens: Tokens | None,
    calls: Calls,
) -> Callable[[bytes, Context], Awaitable[bytes]]:
    async def handle(body: bytes, context: Context) -> bytes:
        calls.enter()
        # Not when the handler returns: its answer is still to be sent then, and the end of a drain would cut it off.
        context.add_done_callback(calls.leave)
        if calls.draining:
            return await _turn_away(context)
        try:
            if tokens is not None:
                tokens.check(name, context.invocation_metadata())
            remaining = context.time_remaining()
            deadline = None if remaining is None else asyncio.get_running_loop().time() + remaining
            return (await method(_decoded(kind, body), deadline)).SerializeToString()
        except Exception as error:  # noqa: BLE001 — all of them are answered
            return await _refuse(name, kind, body, context, error)

    return handle


def _streaming(
    name: str,
    kind: type[Message],
    method: Callable[[Any, float | None], Awaitable[AsyncGenerator[Message]]],
    tokens: Tokens | None,
    calls: Calls,
) -> Callable[[bytes, Context], Awaitable[None]]:
    """Stream what the generator gives that the method returns; the headers say that it has returned."""

    async def handle(body: bytes, context: Context) -> None:
        calls.begun += 1
        if calls.draining:
            await _turn_away(context)
        task = asyncio.current_task()
        calls.streams.add(task)
        try:
            metadata = context.invocation_metadata()
            if tokens is not None:
                tokens.check(name, metadata)
            async with aclosing(await method(_decoded(kind, body), None)) as answers:
                await _open(context)
                async for answer in answers:
                    if tokens is not None:
                        tokens.check(name, metadata)  # it may have been revoked since
                    await _write(context, answer.SerializeToString())
        except asyncio.CancelledError:
            if not calls.draining:
                raise  # the caller has gone
            await _turn_away(context)
        except grpc.aio.InternalError:
            log.debug("the caller of %s went away while it was being answered", name)
        except Exception as error:  # noqa: BLE001 — all of them are answered
            await _refuse(name, kind, body, context, error)
        finally:
            calls.streams.discard(task)

    return handle


async def _open(context: Context) -> None:
    """Send the headers, and wait for that even where a drain ends the stream: without them no status can be sent."""
    sending = asyncio.ensure_future(context.send_initial_metadata(()))
    try:
        await asyncio.shield(sending)
    except asyncio.CancelledError:
        await asyncio.gather(sending, return_exceptions=True)  # it fails where the caller has gone
        raise


async def _write(context: Context, body: bytes) -> None:
    """Send one answer, as soon as the caller has room for it."""
    try:
        async with asyncio.timeout(_UNREAD_SECONDS_MAX):
            await context.write(body)
    except TimeoutError:
        raise Overloaded("The answers are not read; go on from the last resume token.") from None


def _decoded(kind: type[Message], body: bytes) -> Message:
    try:
        return kind.FromString(body)
    except DecodeError:
        violation = Violation("request", f"is not a {kind.DESCRIPTOR.full_name} message")
        raise ValidationError([violation]) from None


async def _refuse(name: str, kind: type[Message], body: bytes, context: Context, error: Exception) -> bytes:
    if log.isEnabledFor(logging.DEBUG):
        log.debug("%s is refused: %s%s", name, _reason(error), _request_id(kind, body))
    if isinstance(error, InventoryError):
        return await _abort(context, error)
    if isinstance(error, Stopping):
        return await _turn_away(context)
    if isinstance(error, TimeoutError):
        return await _expire(context)
    log.error("%s failed", name, exc_info=error)
    return await _abort(context, InternalError())


def _reason(error: Exception) -> str:
    if isinstance(error, InventoryError):
        return error.reason
    if isinstance(error, Stopping):
        return "UNAVAILABLE"
    return "DEADLINE_EXCEEDED" if isinstance(error, TimeoutError) else InternalError.reason


def _request_id(kind: type[Message], body: bytes) -> str:
    """Give the request id, where the caller told one, as the end of a line of the log."""
    try:
        request_id = getattr(kind.FromString(body), "request_id", "")
    except DecodeError:
        return ""
    return f", request id {request_id[:_REQUEST_ID_MAX]!r}" if request_id else ""


async def _abort(context: Context, error: InventoryError) -> bytes:
    status = status_of(error, of="call")
    answer: bytes = await context.abort(error.code, error.sentence, ((DETAILS_KEY, status.SerializeToString()),))
    return answer


async def _turn_away(context: Context) -> bytes:
    trailers = come_back(_STOPPING, after=_AWAY_SECONDS)
    answer: bytes = await context.abort(grpc.StatusCode.UNAVAILABLE, _STOPPING, trailers)
    return answer


async def _expire(context: Context) -> bytes:
    # The caller's own clock has said so already; this only ends the call here.
    answer: bytes = await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "The deadline has passed.", ())
    return answer

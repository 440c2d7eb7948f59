"""A peer that speaks gRPC on loopback and answers by a script, to provoke what a real server seldom does."""

from __future__ import annotations

import asyncio
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as PackedAny
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message_factory import GetMessageClass
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from inventory_client import AsyncInventoryClient, ClientConfig, InventoryClient, RetryPolicy
from inventory_client.proto.inventory.v1 import inventory_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from typing import Self

    from google.protobuf.message import Message

CODES = {code.value[0]: code for code in grpc.StatusCode}
SERVICE = pb.DESCRIPTOR.services_by_name["InventoryService"]


#: the end of a stream
END = grpc.StatusCode.OK


@dataclass(frozen=True)
class Seen:
    rpc: str
    request: Any
    metadata: dict[str, str | bytes]
    seconds_left: float


def status(
    code: grpc.StatusCode,
    reason: str = "",
    *,
    message: str = "told so",
    domain: str = "inventory.v1",
    metadata: dict[str, str] | None = None,
    violations: dict[str, str] | None = None,
    retry_after: float | None = None,
) -> Status:
    details: list[Message] = []
    if reason:
        details.append(ErrorInfo(reason=reason, domain=domain, metadata=metadata or {}))
    if violations:
        fields = [BadRequest.FieldViolation(field=f, description=d) for f, d in violations.items()]
        details.append(BadRequest(field_violations=fields))
    if retry_after is not None:
        delay = Duration()
        delay.FromNanoseconds(int(retry_after * 1e9))
        details.append(RetryInfo(retry_delay=delay))
    packed = [PackedAny() for _ in details]
    for any_, detail in zip(packed, details, strict=True):
        any_.Pack(detail)
    return Status(code=code.value[0], message=message, details=packed)


@pytest.fixture
def make_status() -> Callable[..., Status]:
    return status


class Peer:
    """Answers what `script` holds, one entry a call, and then empty answers. Every operation of the proto is there.

    An event in the script holds its call up until it is set.
    A stream is scripted as a list: it sends the messages, fails with a status, ends with END, or says nothing until an
    event is set. After the last entry, and where nothing is scripted, it stays open without a word until the other side
    goes.
    """

    def __init__(self) -> None:
        self.script: list[Any] = []
        self.seen: list[Seen] = []
        self.target = ""
        self.called = threading.Event()
        self._server: grpc.Server | None = None

    def start(self, address: str = "127.0.0.1:0") -> None:
        self._server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
        handlers = {method.name: self._handler(method) for method in SERVICE.methods}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE.full_name, handlers),))
        self.target = f"127.0.0.1:{self._server.add_insecure_port(address)}"
        self._server.start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop(None).wait(5)

    def rpcs(self) -> list[str]:
        return [seen.rpc for seen in self.seen]

    def _handler(self, method: Any) -> grpc.RpcMethodHandler[Any, Any]:
        answer_class = GetMessageClass(method.output_type)

        def answer(request: Message, context: grpc.ServicerContext) -> Message:
            metadata = {key: value for key, value in context.invocation_metadata()}  # noqa: C416 - typed as pairs only
            self.seen.append(Seen(method.name, request, metadata, context.time_remaining()))
            self.called.set()
            scripted: Any = self.script.pop(0) if self.script else answer_class()
            if isinstance(scripted, threading.Event):
                scripted.wait(30)
            outcome: Message = answer_class() if isinstance(scripted, threading.Event) else scripted
            fail_with(outcome, context)
            return outcome

        def stream(request: Message, context: grpc.ServicerContext) -> Iterator[Message]:
            gone = threading.Event()
            context.add_callback(gone.set)
            self.seen.append(Seen(method.name, request, {}, context.time_remaining()))
            self.called.set()
            outcomes = self.script.pop(0) if self.script else []
            if not outcomes or isinstance(outcomes[0], pb.WatchStockResponse):
                context.send_initial_metadata(())
            for outcome in outcomes:
                if outcome is END:
                    return
                if isinstance(outcome, threading.Event):
                    outcome.wait(30)
                    return
                fail_with(outcome, context)
                yield outcome
            gone.wait(30)

        streams = method.server_streaming
        make: Any = grpc.unary_stream_rpc_method_handler if streams else grpc.unary_unary_rpc_method_handler
        handler: grpc.RpcMethodHandler[Any, Any] = make(
            stream if streams else answer,
            request_deserializer=GetMessageClass(method.input_type).FromString,
            response_serializer=answer_class.SerializeToString,
        )
        return handler


def fail_with(outcome: object, context: grpc.ServicerContext) -> None:
    if isinstance(outcome, Status):
        context.set_trailing_metadata((("grpc-status-details-bin", outcome.SerializeToString()),))
        context.abort(CODES[outcome.code], outcome.message)
    if isinstance(outcome, grpc.StatusCode):
        context.abort(outcome, "by a proxy")


class Blocking:
    """What belongs to asyncio, called like its twin for threads, so that both pass through one test body."""

    def __init__(self, runner: asyncio.Runner, client: Any) -> None:
        self._runner = runner
        self._client = client

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            answer = getattr(self._client, name)(*args, **kwargs)
            if not hasattr(answer, "__aiter__"):
                return self._runner.run(answer)
            return Blocking(self._runner, answer)

        value = getattr(self._client, name)
        return call if callable(value) else value

    def __iter__(self) -> Iterator[Any]:
        events = aiter(self._client)
        while True:
            try:
                yield self._runner.run(anext(events))
            except StopAsyncIteration:
                return

    def __enter__(self) -> Self:
        self._runner.run(self._client.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._client.__aexit__(*_))

    def hold(self, *args: Any, **kwargs: Any) -> AbstractContextManager[Blocking]:
        return self._block(self._client.hold(*args, **kwargs))

    def hold_order(self, *args: Any, **kwargs: Any) -> AbstractContextManager[Blocking]:
        return self._block(self._client.hold_order(*args, **kwargs))

    @contextmanager
    def _block(self, manager: Any) -> Iterator[Blocking]:
        hold: Any = self._runner.run(manager.__aenter__())
        try:
            yield Blocking(self._runner, hold)
        except BaseException as error:
            if not self._runner.run(manager.__aexit__(type(error), error, error.__traceback__)):
                raise
        else:
            self._runner.run(manager.__aexit__(None, None, None))


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    peer.start()
    yield peer
    peer.stop()


@pytest.fixture
def free_address() -> str:
    """Somewhere on loopback where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return f"127.0.0.1:{probe.getsockname()[1]}"


#: patient in number, quick in time
QUICK = RetryPolicy(attempts=4, backoff_seconds=0.001, backoff_seconds_max=0.002)


@pytest.fixture(params=["threads", "asyncio"])
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[[ClientConfig], Any]]:
    """Connect either client with a configuration; the test cannot tell which one it got."""
    if request.param == "threads":
        clients: list[InventoryClient] = []

        def open_one(config: ClientConfig) -> InventoryClient:
            clients.append(InventoryClient(config=config))
            return clients[-1]

        yield open_one
        for client in clients:
            client.close()
    else:
        with asyncio.Runner() as runner:
            blocking: list[Blocking] = []

            async def make(config: ClientConfig) -> AsyncInventoryClient:
                return AsyncInventoryClient(config=config)

            def open_other(config: ClientConfig) -> Blocking:
                blocking.append(Blocking(runner, runner.run(make(config))))
                return blocking[-1]

            yield open_other
            for other in blocking:
                other.close()


@pytest.fixture
def client(peer: Peer, connect: Callable[[ClientConfig], Any]) -> Any:
    return connect(ClientConfig(target=peer.target, retry=QUICK))

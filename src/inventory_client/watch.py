"""The live feed, for threads and for asyncio."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol

import grpc

from inventory_client._attempts import being_cancelled, closed_here, refusals_told
from inventory_client._watching import NoAnswer
from inventory_client.errors import Cancelled

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from inventory_client._watching import Watching
    from inventory_client.ledger import StockEvent
    from inventory_client.proto.inventory.v1 import inventory_pb2 as pb


class Stream(Protocol):
    """What is used of gRPC's stream, and of a generator that an interceptor makes of it: that only gives and closes."""

    def __next__(self) -> pb.WatchStockResponse: ...


class AsyncStream(Protocol):
    """What is used of grpc.aio's stream."""

    async def read(self) -> Any: ...
    async def initial_metadata(self) -> Any: ...
    async def trailing_metadata(self) -> Any: ...
    async def code(self) -> grpc.StatusCode: ...
    async def details(self) -> str: ...
    def done(self) -> bool: ...
    def cancel(self) -> object: ...


class StockWatch(Iterator["StockEvent"]):
    """The events of a feed: it connects again by itself and goes on after the last one, without a gap or a repeat.

        with client.watch_stock(low_stock=5) as events:
            for event in events:
                print(event.change, event.resume_token)

    The feed is in place when the block is entered (or else with the first `next()`), or as soon as a service that is
    away is back; what would fail again, such as a bad resume token, is raised there. The service says at once where it
    begins, so that also a connection that is lost before the first event is gone on from. A connection that fails for a
    passing reason, or takes longer than a third of the `timeout` of the watch (and five seconds), is made again after a
    pause (see RetryPolicy); if that goes on for longer than the `timeout`, `next()` raises the last failure, and may be
    called again. `resume_token` is where the feed stands: give it to another watch to go on from there, also in another
    process. An OVERLOADED from the server (it cuts off who reads too slowly) counts as such a passing failure.

    A feed in place may be silent for as long as nothing happens, so its silence proves nothing, and no `timeout` ends
    it. A server that hangs, or a line that is dead, is noticed by the pings of `ClientConfig.keepalive_seconds`.

    `close()` may be called from any thread and ends a `next()` that waits; apart from that, a watch is for one thread.
    Where an interceptor hides the stream, as that of OpenTelemetry does, such a `next()` ends with the next answer, or
    when the client is closed, a server that says nothing at first is noticed by the pings alone, and a bad resume token
    is told by the first `next()`.
    """

    def __init__(self, connect: Callable[[pb.WatchStockRequest], Stream], watching: Watching) -> None:
        self._connect = connect
        self._watching = watching
        self._stream: Stream | None = None
        self._first: pb.WatchStockResponse | None = None  # an answer that was read before it was asked for
        self._closed = threading.Event()

    @property
    def resume_token(self) -> str:
        """The place that `next()` has come to; before the first, the one to go on from, or empty."""
        return self._watching.resume_token

    def close(self) -> None:
        """End the feed. Safe to call twice."""
        self._closed.set()
        if self._stream is not None:
            _end(self._stream)

    def __enter__(self) -> Self:
        try:
            with refusals_told():
                stream = self._open()
        except (grpc.RpcError, StopIteration) as failure:
            self._stream = None
            if isinstance(failure, grpc.RpcError):
                self._watching.check(failure)
        else:
            if (failed := _failure(stream)) is not None:
                self._watching.check(failed)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __next__(self) -> StockEvent:
        while not self._closed.is_set():
            failure: grpc.RpcError | None = None
            try:
                with refusals_told():
                    event = self._watching.read(self._answer())
            except grpc.RpcError as broken:
                failure = broken
            except StopIteration:
                pass
            else:
                if event is not None:
                    return event
                continue
            self._stream = None
            if not self._closed.is_set():
                self._closed.wait(self._watching.pause_after(failure))
        self.close()
        raise StopIteration

    def _answer(self) -> pb.WatchStockResponse:
        stream = self._open()
        first, self._first = self._first, None
        return next(stream) if first is None else first

    def _open(self) -> Stream:
        if self._stream is None:
            self._first = None
            self._stream = self._connect(self._watching.request())
            if self._closed.is_set():  # by another thread, which has not seen this stream
                _end(self._stream)
            if isinstance(self._stream, grpc.Call):
                self._await_place(self._stream)
            elif not self._watching.resume_token:
                # A generator may call only when it is asked for something. The service says first where it begins.
                self._first = next(self._stream)
        return self._stream

    def _await_place(self, call: grpc.Call) -> None:
        late = threading.Event()

        def give_up() -> None:
            late.set()
            call.cancel()

        timer = threading.Timer(self._watching.connect_seconds, give_up)
        timer.daemon = True
        timer.start()
        try:
            call.initial_metadata()  # comes when the feed is in place, or with its failure
        finally:
            timer.cancel()
        if late.is_set():
            raise NoAnswer
        if call.is_active():
            self._watching.placed()


def _failure(stream: Any) -> grpc.RpcError | None:
    """Give the failure of a stream that has ended with one, which is that object itself."""
    over = isinstance(stream, grpc.Call) and not stream.is_active() and stream.code() is not grpc.StatusCode.OK
    return stream if over and isinstance(stream, grpc.RpcError) else None


def _end(stream: Stream) -> None:
    if isinstance(stream, grpc.Call):
        stream.cancel()
    elif isinstance(stream, Generator):
        with suppress(ValueError):  # another thread waits in it
            stream.close()


class AsyncStockWatch(AsyncIterator["StockEvent"]):
    """The events of a feed: it connects again by itself and goes on after the last one, without a gap or a repeat.

        async with client.watch_stock(low_stock=5) as events:
            async for event in events:
                print(event.change, event.resume_token)

    As StockWatch, but for one task of the client's event loop. A wait for the next event may be cancelled, as by
    `asyncio.timeout`: nothing is lost, the next one goes on from there.
    """

    def __init__(self, connect: Callable[[pb.WatchStockRequest], AsyncStream], watching: Watching) -> None:
        self._connect = connect
        self._watching = watching
        self._stream: AsyncStream | None = None
        self._closed = asyncio.Event()

    @property
    def resume_token(self) -> str:
        """The place that `next()` has come to; before the first, the one to go on from, or empty."""
        return self._watching.resume_token

    async def close(self) -> None:
        """End the feed. Safe to call twice."""
        self._closed.set()
        self._drop()

    async def __aenter__(self) -> Self:
        try:
            with self._cancellations():
                stream = await self._open()
        except grpc.RpcError as failure:
            self._watching.check(failure)
        else:
            if (failed := await _async_failure(stream)) is not None:
                self._watching.check(failed)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def __anext__(self) -> StockEvent:
        while not self._closed.is_set():
            failure: grpc.RpcError | None = None
            try:
                with self._cancellations():
                    answer = await (await self._open()).read()
            except grpc.RpcError as broken:
                failure = broken
            except Cancelled:
                if self._closed.is_set():
                    break
                raise
            else:
                if answer is not grpc.aio.EOF:
                    event = self._watching.read(answer)
                    if event is not None:
                        return event
                    continue
            self._drop()
            if not self._closed.is_set():
                await self._pause(self._watching.pause_after(failure))
        raise StopAsyncIteration

    async def _open(self) -> AsyncStream:
        if self._stream is None:
            stream = self._stream = self._connect(self._watching.request())
            try:
                # Not wait_for(), which on Python 3.11 loses a cancellation that comes together with the answer.
                async with asyncio.timeout(self._watching.connect_seconds) as limit:
                    await stream.initial_metadata()  # comes when the feed is in place, or with its failure
            except TimeoutError:
                pass
            if limit.expired():  # also where an interceptor has kept that to itself
                self._drop()
                raise NoAnswer
            if not stream.done():
                self._watching.placed()
            return stream
        return self._stream

    @contextmanager
    def _cancellations(self) -> Iterator[None]:
        """Let go of a stream that is cut off; say so where it is not the task that is cancelled."""
        try:
            yield
        except asyncio.CancelledError:
            self._drop()
            if being_cancelled():
                raise
            raise closed_here() from None  # by close(), or by the owner of the channel

    def _drop(self) -> None:
        if self._stream is not None:
            self._stream.cancel()  # as gRPC does itself with one whose read is cancelled
            self._stream = None

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._closed.wait(), seconds)


async def _async_failure(stream: AsyncStream) -> grpc.aio.AioRpcError | None:
    if not stream.done() or await stream.code() is grpc.StatusCode.OK:
        return None
    return grpc.aio.AioRpcError(
        await stream.code(),
        await stream.initial_metadata(),
        await stream.trailing_metadata(),
        details=await stream.details(),
    )

"""The live feed, for threads and for asyncio."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

import grpc

from inventory_client._attempts import being_cancelled

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from inventory_client._watching import Watching
    from inventory_client.ledger import StockEvent
    from inventory_client.proto.inventory.v1 import inventory_pb2 as pb


class Stream(Protocol):
    """What is used of gRPC's stream."""

    def __next__(self) -> pb.WatchStockResponse: ...
    def initial_metadata(self) -> object: ...
    def is_active(self) -> bool: ...
    def cancel(self) -> object: ...


class AsyncStream(Protocol):
    """What is used of grpc.aio's stream."""

    async def read(self) -> Any: ...
    async def initial_metadata(self) -> object: ...
    def done(self) -> bool: ...
    def cancel(self) -> object: ...


class StockWatch(Iterator["StockEvent"]):
    """The events of a feed: it connects again by itself and goes on after the last one, without a gap or a repeat.

        with client.watch_stock(low_stock=5) as events:
            for event in events:
                print(event.change, event.resume_token)

    The feed is in place when the block is entered (or else with the first `next()`), or as soon as a service that is
    away is back. The service says at once where it begins, so that also a connection that is lost before the first
    event is gone on from. A connection that fails for a passing reason is made again after a pause (see RetryPolicy);
    if that goes on for longer than the `timeout` of the watch, `next()` raises the last failure, and may be called
    again. `resume_token` is where the feed stands: give it to another watch to go on from there, also in another
    process. An OVERLOADED from the server (it cuts off who reads too slowly) counts as such a passing failure.

    `close()` may be called from any thread and ends a `next()` that waits; apart from that, a watch is for one thread.
    """

    def __init__(self, connect: Callable[[pb.WatchStockRequest], Stream], watching: Watching) -> None:
        self._connect = connect
        self._watching = watching
        self._stream: Stream | None = None
        self._closed = threading.Event()

    @property
    def resume_token(self) -> str:
        """The place that `next()` has come to; empty before the first."""
        return self._watching.resume_token

    def close(self) -> None:
        """End the feed. Safe to call twice."""
        self._closed.set()
        if self._stream is not None:
            self._stream.cancel()

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __next__(self) -> StockEvent:
        while not self._closed.is_set():
            failure: grpc.RpcError | None = None
            try:
                event = self._watching.read(next(self._open()))
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
        raise StopIteration

    def _open(self) -> Stream:
        if self._stream is None:
            self._stream = self._connect(self._watching.request())
            if self._closed.is_set():  # by another thread, which has not seen this stream
                self._stream.cancel()
            self._stream.initial_metadata()  # comes when the feed is in place, or with its failure
            if self._stream.is_active():
                self._watching.connected()
        return self._stream


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
        """The place that `next()` has come to; empty before the first."""
        return self._watching.resume_token

    async def close(self) -> None:
        """End the feed. Safe to call twice."""
        self._closed.set()
        self._drop()

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def __anext__(self) -> StockEvent:
        while not self._closed.is_set():
            failure: grpc.RpcError | None = None
            try:
                answer = await (await self._open()).read()
            except grpc.RpcError as broken:
                failure = broken
            except asyncio.CancelledError:
                self._drop()
                if self._closed.is_set() and not being_cancelled():
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
            await stream.initial_metadata()  # comes when the feed is in place, or with its failure
            if not stream.done():
                self._watching.connected()
            return stream
        return self._stream

    def _drop(self) -> None:
        if self._stream is not None:
            self._stream.cancel()  # as gRPC does itself with one whose read is cancelled
            self._stream = None

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._closed.wait(), seconds)

"""Interceptors that make generators of streams, as those for traces do."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc import StatusCode
from tests.unit.client.conftest import QUICK

from inventory_client import AsyncInventoryClient, ClientConfig, InventoryClient, ValidationError
from inventory_client._watching import Watching
from inventory_client.proto.inventory.v1 import inventory_pb2 as pb
from inventory_client.watch import StockWatch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator

    from google.rpc.status_pb2 import Status
    from tests.unit.client.conftest import Peer

    MakeStatus = Callable[..., Status]

PLACE = pb.WatchStockResponse(resume_token="here")


def moved(version: int) -> pb.WatchStockResponse:
    return pb.WatchStockResponse(movement=pb.Movement(version=version), resume_token=f"after {version}")


class Tracing(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    def __init__(self) -> None:
        self.ended = 0

    def intercept_unary_unary(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        self.ended += 1
        return continuation(details, request)

    def intercept_unary_stream(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        try:
            yield from continuation(details, request)
        finally:
            self.ended += 1


class AsyncTracing(grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        return await continuation(details, request)


class AsyncStreamTracing(grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(
        self, continuation: Callable[..., Any], details: Any, request: Any
    ) -> AsyncIterator[Any]:
        call = await continuation(details, request)

        async def answers() -> AsyncIterator[Any]:
            async for answer in call:
                yield answer

        return answers()


def config(peer: Peer, *interceptors: Any) -> ClientConfig:
    return ClientConfig(target=peer.target, retry=QUICK, interceptors=interceptors)


def test_a_feed_behind_a_generator_is_in_place_in_its_block_and_goes_on_when_it_breaks(peer: Peer) -> None:
    tracing = Tracing()
    peer.script = [[PLACE, moved(1), StatusCode.UNAVAILABLE], [moved(2)]]
    with InventoryClient(config=config(peer, tracing)) as client, client.watch_stock() as events:
        assert peer.rpcs() == ["WatchStock"]
        assert [next(events).change.version for _ in range(2)] == [1, 2]
        assert tracing.ended == 1
    assert tracing.ended == 2
    assert [seen.request.resume_token for seen in peer.seen] == ["", "after 1"]


def test_a_feed_behind_a_generator_raises_in_its_block_what_would_fail_again(
    peer: Peer, make_status: MakeStatus
) -> None:
    peer.script = [[make_status(StatusCode.INVALID_ARGUMENT, "VALIDATION_ERROR")], [StatusCode.UNAVAILABLE], [moved(1)]]
    with InventoryClient(config=config(peer, Tracing())) as client:
        with pytest.raises(ValidationError), client.watch_stock():
            pytest.fail("the block was entered")
        with client.watch_stock() as events:
            assert next(events).resume_token == "after 1"


class Gone(grpc.RpcError):
    def code(self) -> StatusCode:
        return StatusCode.UNAVAILABLE

    def details(self) -> str:
        return "max_age"

    def trailing_metadata(self) -> tuple[()]:
        return ()


@pytest.mark.parametrize("resume_token", ["", "before"])
def test_a_feed_behind_a_generator_that_breaks_after_a_quiet_hour_goes_on(resume_token: str) -> None:
    now, opened = [0.0], []

    def connect(request: pb.WatchStockRequest) -> Generator[pb.WatchStockResponse]:
        opened.append(request.resume_token)
        if len(opened) == 2:
            yield moved(1)
        if not resume_token:
            yield PLACE
        now[0] += 3600
        raise Gone

    watching = Watching(ClientConfig(), (), resume_token, None, None, clock=lambda: now[0], draw=lambda: 0.0)
    with StockWatch(connect, watching) as events:
        assert next(events).resume_token == "after 1"
    assert opened == [resume_token, resume_token or "here"]


def test_closing_the_client_ends_a_feed_behind_a_generator_that_waits(peer: Peer) -> None:
    peer.script = [[PLACE]]
    client = InventoryClient(config=config(peer, Tracing()))
    with client.watch_stock() as events:
        reader = threading.Thread(target=lambda: list(events))
        reader.start()
        events.close()
        client.close()
        reader.join(10)
        assert not reader.is_alive()


def test_interceptors_of_asyncio_see_calls_and_feeds(peer: Peer) -> None:
    async def body() -> None:
        async with AsyncInventoryClient(config=config(peer, AsyncTracing(), AsyncStreamTracing())) as client:
            await client.get_stock("teapot")
            async with client.watch_stock() as events:
                assert [(await anext(events)).resume_token for _ in range(2)] == ["after 1", "after 2"]

    peer.script = [pb.GetStockResponse(), [PLACE, moved(1), StatusCode.UNAVAILABLE], [moved(2)]]
    asyncio.run(body())
    assert peer.rpcs() == ["GetStock", "WatchStock", "WatchStock"]


def test_interceptors_of_threads_see_calls(peer: Peer) -> None:
    tracing = Tracing()
    with InventoryClient(config=config(peer, tracing)) as client:
        client.get_stock("teapot")
    assert tracing.ended == 1

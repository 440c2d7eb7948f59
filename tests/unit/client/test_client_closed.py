"""Clients that are closed, or whose channel is: whoever calls is told so, whenever that happens."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from inventory_client import AsyncInventoryClient, Cancelled, InventoryClient
from inventory_client.proto.inventory.v1 import inventory_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.client.conftest import Peer


def read_until_closed(client: InventoryClient, begun: threading.Barrier) -> None:
    begun.wait(10)
    for _ in range(100_000):
        client.get_stock("teapot")


def test_threads_that_call_while_the_client_is_closed_are_all_told_so(peer: Peer) -> None:
    for _ in range(10):
        begun = threading.Barrier(9)
        client = InventoryClient(peer.target)
        with ThreadPoolExecutor(8) as pool:
            calls = [pool.submit(read_until_closed, client, begun) for _ in range(8)]
            begun.wait(10)
            peer.called.clear()
            assert peer.called.wait(10)
            client.close()
        assert {type(call.exception()) for call in calls} == {Cancelled}


def test_a_channel_that_its_owner_closed_is_told_like_a_closed_client(peer: Peer) -> None:
    channel = grpc.insecure_channel(peer.target)
    client = InventoryClient(channel=channel)
    channel.close()
    with pytest.raises(Cancelled) as raised:
        client.add_stock("teapot", 1)
    assert not raised.value.outcome_unknown
    with pytest.raises(Cancelled):
        next(client.watch_stock())

    async def body() -> None:
        channel = grpc.aio.insecure_channel(peer.target)
        client = AsyncInventoryClient(channel=channel)
        await channel.close()
        with pytest.raises(Cancelled) as raised:
            await client.add_stock("teapot", 1)
        assert not raised.value.outcome_unknown
        with pytest.raises(Cancelled):
            await anext(client.watch_stock())

    asyncio.run(body())
    assert peer.seen == []


class Untouched(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    def intercept_unary_unary(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        return continuation(details, request)

    def intercept_unary_stream(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        return continuation(details, request)


def test_an_intercepted_channel_that_its_owner_closed_is_told_the_same(peer: Peer) -> None:
    channel = grpc.insecure_channel(peer.target)
    client = InventoryClient(channel=grpc.intercept_channel(channel, Untouched()))
    channel.close()
    with pytest.raises(Cancelled):
        client.add_stock("teapot", 1)
    with pytest.raises(Cancelled):
        next(client.watch_stock())


def test_a_feed_whose_channel_its_owner_closes_is_told_and_nobody_cancelled(peer: Peer) -> None:
    async def body() -> None:
        channel = grpc.aio.insecure_channel(peer.target)
        async with AsyncInventoryClient(channel=channel).watch_stock() as events:
            waiting = asyncio.ensure_future(anext(events))
            await asyncio.sleep(0)
            await channel.close()
            with pytest.raises(Cancelled):
                await waiting

    peer.script = [[pb.WatchStockResponse(resume_token="here")]]
    asyncio.run(body())


def test_a_closed_client_calls_no_more_and_leaves_a_channel_that_it_was_given_open(peer: Peer) -> None:
    with grpc.insecure_channel(peer.target) as channel:
        with InventoryClient(channel=channel) as client:
            client.get_stock("teapot")
        with pytest.raises(Cancelled):
            client.get_stock("teapot")
        with pytest.raises(Cancelled):
            next(client.watch_stock())
        InventoryClient(channel=channel).get_stock("teapot")

    async def body() -> None:
        async with grpc.aio.insecure_channel(peer.target) as channel:
            async with AsyncInventoryClient(channel=channel) as client:
                await client.get_stock("teapot")
            with pytest.raises(Cancelled):
                await client.get_stock("teapot")
            with pytest.raises(Cancelled):
                await anext(client.watch_stock())
            await AsyncInventoryClient(channel=channel).get_stock("teapot")

    asyncio.run(body())
    assert peer.rpcs() == ["GetStock"] * 4

"""The asyncio client and the event loop: made before it, used in one, closed whenever."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from inventory_client import AsyncInventoryClient, Cancelled, ClientConfig, InventoryClient, Tls
from inventory_client.proto.inventory.v1 import inventory_pb2 as pb

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.client.conftest import Peer


async def read(client: AsyncInventoryClient) -> None:
    await client.get_stock("teapot")


def test_a_client_that_a_module_makes_is_used_and_closed_in_a_loop_later(peer: Peer) -> None:
    client = AsyncInventoryClient(peer.target)

    async def body() -> None:
        await read(client)
        async with client:
            await asyncio.gather(*(read(client) for _ in range(5)))
        await client.close()
        with pytest.raises(Cancelled):
            await read(client)

    asyncio.run(body())
    assert len(peer.seen) == 6


def test_a_second_loop_is_told_that_it_needs_a_client_of_its_own(peer: Peer) -> None:
    client = AsyncInventoryClient(peer.target)
    with asyncio.Runner() as first:
        first.run(read(client))
        with asyncio.Runner() as second, pytest.raises(RuntimeError, match="make one per loop"):
            second.run(read(client))
        first.run(read(client))
        first.run(client.close())
    assert len(peer.seen) == 2


def test_a_client_may_be_closed_before_its_first_call(peer: Peer) -> None:
    async def body() -> None:
        client = AsyncInventoryClient(peer.target)
        await client.close()
        await client.close()
        with pytest.raises(Cancelled):
            await read(client)
        with pytest.raises(Cancelled):
            _ = client.stub

    asyncio.run(body())
    assert peer.seen == []


def test_a_watch_of_a_closed_client_is_not_opened(peer: Peer) -> None:
    client = InventoryClient(peer.target)
    client.close()
    with pytest.raises(Cancelled):
        next(client.watch_stock())

    async def body(called: bool) -> None:
        async with AsyncInventoryClient(peer.target) as client:
            if called:
                await read(client)
        with pytest.raises(Cancelled):
            await anext(client.watch_stock())

    asyncio.run(body(called=False))
    asyncio.run(body(called=True))
    assert peer.rpcs() == ["GetStock"]


def test_the_stub_is_within_reach_before_the_first_call(peer: Peer) -> None:
    async def body() -> None:
        async with AsyncInventoryClient(peer.target) as client:
            assert await client.stub.GetStock(pb.GetStockRequest(product_id="teapot")) == pb.GetStockResponse()
            assert client.stub is client.stub

    asyncio.run(body())
    assert peer.rpcs() == ["GetStock"]


def test_a_certificate_that_is_not_there_shows_when_the_client_is_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        AsyncInventoryClient(config=ClientConfig(tls=Tls(ca=tmp_path / "missing.pem")))

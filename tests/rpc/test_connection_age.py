"""Connections that end of old age: callers make others, and notice nothing."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from tests.fixtures.serving import connected
from tests.fixtures.shop import stocked
from tests.fixtures.traffic import selling
from tests.fixtures.waiting import eventually
from tests.soak.proxy import Proxies

from inventory_client import AsyncInventoryClient, ClientConfig, InventoryClient, Movement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.fixtures.serving import Connect, Serve, Server
    from tests.soak.proxy import Link

    from inventory_client import StockEvent

# The first and those of three more lives.
LIVES = 4
SECONDS_MAX = 30.0


@pytest.fixture
def proxies() -> Iterator[Proxies]:
    with Proxies() as proxies:
        yield proxies


def linked(proxies: Proxies, server: Server) -> tuple[Link, str]:
    """Give a way to the server that counts connections, and its address."""
    host, _, port = server.address.rpartition(":")
    link = proxies.link(host, int(port))
    return link, f"127.0.0.1:{link.port}"


def test_a_caller_goes_on_for_several_lives_of_its_connection_without_an_error(
    database_url: str, serve: Serve, connect: Connect, proxies: Proxies
) -> None:
    server = serve(database_url, max_connection_age="1s")
    link, address = linked(proxies, server)
    client = connect(server, target=address)  # it never retries
    product_id = stocked(client, 1_000_000)
    with selling(client, product_id) as sales:
        eventually(lambda: link.connections >= LIVES, within=SECONDS_MAX)
    assert sales.errors == []
    sales.check(database_url)
    assert "Traceback" not in server.log


def test_an_order_that_waits_outlives_its_connection(
    database_url: str, serve: Serve, connect: Connect, proxies: Proxies
) -> None:
    server = serve(database_url, max_connection_age="1s")
    link, address = linked(proxies, server)
    client = connect(server, target=address)
    product_id = stocked(client, 0)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.reserve_stock, product_id, "order", 1, wait=timedelta(seconds=30))

        def younger() -> bool:
            client.get_stock(product_id)
            return link.connections >= LIVES

        eventually(younger, within=SECONDS_MAX)
        assert not waiting.done()
        client.add_stock(product_id, 1)
        assert waiting.result(SECONDS_MAX).quantity == 1


@contextmanager
def delivering(client: InventoryClient, product_id: str) -> Iterator[None]:
    """Add a unit time and again until the block ends."""
    over = threading.Event()

    def deliver() -> None:
        while not over.wait(0.005):
            client.add_stock(product_id, 1)

    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(deliver)
        try:
            yield
        finally:
            over.set()
        work.result(SECONDS_MAX)


def heard(address: str, product_id: str, done: Callable[[], bool]) -> list[StockEvent]:
    events: list[StockEvent] = []
    with InventoryClient(address) as client, client.watch_stock([product_id]) as feed:
        for event in feed:
            events.append(event)
            if done():
                break
    return events


def heard_by_task(address: str, product_id: str, done: Callable[[], bool]) -> list[StockEvent]:
    async def hear() -> list[StockEvent]:
        events: list[StockEvent] = []
        config = ClientConfig(target=address)
        async with AsyncInventoryClient(config=config) as client, client.watch_stock([product_id]) as feed:
            async for event in feed:
                events.append(event)
                if done():
                    break
        return events

    return asyncio.run(hear())


@pytest.mark.parametrize("hear", [heard, heard_by_task])
def test_a_watcher_goes_on_over_several_lives_without_a_gap_or_a_repeat(
    database_url: str, serve: Serve, proxies: Proxies, hear: Callable[..., list[StockEvent]]
) -> None:
    server = serve(database_url, max_connection_age="1s", max_connection_age_grace="1s")
    link, address = linked(proxies, server)
    end = time.monotonic() + SECONDS_MAX
    with connected(server, attempts=5) as shop:
        product_id = stocked(shop, 1)
        with delivering(shop, product_id):
            events = hear(address, product_id, lambda: link.connections >= LIVES or time.monotonic() > end)
    assert link.connections >= LIVES
    versions = [event.change.version for event in events if isinstance(event.change, Movement)]
    assert len(versions) > LIVES
    assert versions == list(range(versions[0], versions[0] + len(versions)))

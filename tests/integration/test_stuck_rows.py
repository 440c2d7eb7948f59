"""Whose row is stuck, and whose is only wanted by many: a product that sells well is locked at nearly every moment."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from tests.fixtures.ledgers import HOUR_US, Ledgers
from tests.fixtures.shop import locked

from inventory_server.domain import Rows
from inventory_server.postgres.database import Database
from inventory_server.postgres.holds import HoldRepository
from inventory_server.postgres.queries import query
from inventory_server.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

LOOKS = 6
BATCH = 200
SELLERS = 3


@pytest.fixture
def shop(database_url: str) -> Iterator[Ledgers]:
    """Two products with an expired hold each: one that sells as fast as it can, and one that a stranger has locked."""
    with Ledgers(database_url) as shop:
        for name in ("hot", "stuck"):
            shop.initialize(name, 1_000_000)
            shop.reserve(name, 1)
        make_due(shop)
        with selling(database_url), locked(database_url, "stuck"):
            yield shop


def make_due(shop: Ledgers) -> None:
    shop.run("UPDATE inventory_reservations SET tidy_at = now() - interval '1 second' WHERE order_id = 'order'")


@contextmanager
def selling(database_url: str) -> Iterator[None]:
    stop = threading.Event()

    def sell() -> None:
        with Ledgers(database_url) as seller:
            while not stop.is_set():
                ids = [str(uuid4()) for _ in range(BATCH)]
                orders = list(range(1, BATCH + 1))
                told = (["sale"] * BATCH, [1] * BATCH, [HOUR_US] * BATCH, [True] * BATCH, ids, ids, [0] * BATCH)
                seller.run(query("reserve"), (["hot"], orders, [1] * BATCH, *told, False))

    sellers = [threading.Thread(target=sell) for _ in range(SELLERS)]
    for seller in sellers:
        seller.start()
    yield
    stop.set()
    for seller in sellers:
        seller.join()


def looks(shop: Ledgers, look: Callable[[HoldRepository], Awaitable[list[str]]]) -> list[list[str]]:
    async def all_looks() -> list[list[str]]:
        database = Database(shop.url, Settings(), size=1, name="test")
        await database.open()
        found = []
        for _ in range(LOOKS):
            found.append(await look(HoldRepository(database)))
            await asyncio.to_thread(make_due, shop)
        await database.close()
        return found

    return asyncio.run(all_looks())


def check(found: list[list[str]]) -> None:
    assert all("stuck" in names for names in found)
    # A seller that the machine keeps waiting has the row for long, too.
    assert sum("hot" in names for names in found) <= 1


def test_the_holds_of_a_product_that_sells_are_not_set_aside(shop: Ledgers) -> None:
    async def set_aside(holds: HoldRepository) -> list[str]:
        return [product_id for product_id, count in await holds.set_aside(1000) if count == 1]

    check(looks(shop, set_aside))


def test_a_product_that_sells_is_not_taken_for_the_one_that_is_stuck(shop: Ledgers) -> None:
    async def stuck(holds: HoldRepository) -> list[str]:
        return await holds.stuck([Rows(product_ids=("hot", "stuck"))])

    check(looks(shop, stuck))


def test_where_nothing_is_locked_nothing_is_stuck(database_url: str) -> None:
    async def ask() -> None:
        database = Database(database_url, Settings(), size=1, name="test")
        await database.open()
        holds = HoldRepository(database)
        assert await holds.stuck([Rows(product_ids=("teapot",))] * 2) == ["", ""]
        assert await holds.set_aside(1000) == []
        await database.close()

    with Ledgers(database_url) as shop:
        shop.initialize("teapot", 1)
        shop.reserve("teapot", 1)
        make_due(shop)
    asyncio.run(ask())

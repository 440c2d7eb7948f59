"""Whoever brings units back wakes those who wait for them: nobody here ever tries again by himself."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from tests.fixtures.waiting import eventually

from inventory_server import waiting
from inventory_server.cache import ReservationCache
from inventory_server.domain import Action, Change, FeedChange, Initialize, Order, Reserve, Settle, SettleOrder
from inventory_server.errors import InsufficientStock
from inventory_server.feed import Feed
from inventory_server.inventory import Inventory
from inventory_server.postgres.database import Database
from inventory_server.postgres.feed import Alarm, FeedRepository
from inventory_server.postgres.holds import HoldRepository
from inventory_server.postgres.stock import StockRepository
from inventory_server.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from inventory_server.domain import Reservation

SECONDS_MAX = 20.0
SETTINGS = Settings(watch_interval=0.1)


@pytest.fixture(autouse=True)
def _never_by_oneself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_RETRY_SECONDS", 3600.0)


def new_id() -> str:
    return str(uuid.uuid4())


def order(quantity: int = 1, wait: float = 0.0, order_id: str = "order") -> Order:
    request_id = new_id()
    return Order(request_id, (Reserve(request_id, "teapot", order_id, quantity, 60_000_000, True),), wait)


@asynccontextmanager
async def replica(database_url: str) -> AsyncIterator[tuple[Inventory, Database]]:
    database = Database(database_url, SETTINGS, size=3, name="test")
    await database.open()
    try:
        cache = ReservationCache("none://", SETTINGS)
        yield Inventory(StockRepository(database), HoldRepository(database), cache, SETTINGS), database
    finally:
        await database.close()


async def refused(inventory: Inventory) -> None:
    with pytest.raises(InsufficientStock):
        await inventory.reserve(order())


async def queued(inventory: Inventory) -> asyncio.Task[tuple[Reservation, ...]]:
    """Have somebody wait who has tried already: whoever comes after it through the same lane has its answer."""
    waiter = asyncio.create_task(inventory.reserve(order(wait=30)))
    await asyncio.sleep(0)
    await refused(inventory)
    assert not waiter.done()
    return waiter


async def add(inventory: Inventory, _: Reservation) -> None:
    await inventory.change(Change("teapot", "ADD", 1, "", None, new_id()))


async def adjust(inventory: Inventory, _: Reservation) -> None:
    await inventory.change(Change("teapot", "ADJUST", 1, "COUNT", None, new_id()))


async def release(inventory: Inventory, hold: Reservation) -> None:
    await inventory.settle(Settle(hold.reservation_id, Action.RELEASE, new_id()))


async def release_order(inventory: Inventory, hold: Reservation) -> None:
    await inventory.settle_order(SettleOrder(hold.order_id, Action.RELEASE, new_id()))


async def settle_many(inventory: Inventory, hold: Reservation) -> None:
    (outcome,) = await inventory.settle_many([Settle(hold.reservation_id, Action.RELEASE, new_id())])
    assert not isinstance(outcome, Exception)


@pytest.mark.parametrize("bring_back", [add, adjust, release, release_order, settle_many])
def test_units_that_come_back_here_wake_the_first_who_waits(
    database_url: str, bring_back: Callable[[Inventory, Reservation], Awaitable[None]]
) -> None:
    async def scene() -> None:
        async with replica(database_url) as (inventory, _):
            await inventory.initialize(Initialize("teapot", 1, new_id()))
            (hold,) = await inventory.reserve(order(order_id="earlier"))
            waiter = await queued(inventory)
            await bring_back(inventory, hold)
            assert len(await waiter) == 1

    asyncio.run(asyncio.wait_for(scene(), SECONDS_MAX))


def test_units_that_come_back_elsewhere_wake_the_first_who_waits_while_the_feed_is_read(database_url: str) -> None:
    async def scene() -> None:
        async with replica(database_url) as (inventory, database), replica(database_url) as (elsewhere, _):
            await inventory.initialize(Initialize("teapot", 1, new_id()))
            (hold,) = await inventory.reserve(order(order_id="earlier"))
            alarm = lambda: Alarm(database_url, SETTINGS)  # noqa: E731
            feed = Feed(FeedRepository(database), alarm, 0.1, 100, came_back=inventory.stir)
            async with aclosing(await feed.watch()) as changes:
                await anext(changes)  # where it begins
                seen = asyncio.create_task(anext(changes))
                await asyncio.to_thread(eventually, lambda: feed.watchers)
                waiter = await queued(inventory)
                await release(elsewhere, hold)
                assert len(await waiter) == 1
                change = await seen
                assert isinstance(change, FeedChange)
                assert change.movement.kind == "RELEASE"
            await feed.close()

    asyncio.run(asyncio.wait_for(scene(), SECONDS_MAX))

"""The operations as a servicer calls them: lanes before the repositories, the cache beside them."""

from __future__ import annotations

import asyncio
import math
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from inventory_server.attempts import asked_once, attempt, attempt_again
from inventory_server.batcher import Lane
from inventory_server.domain import ExtendOrder, Order, ReservationStatus, Rows, SettleOrder
from inventory_server.errors import InsufficientStock, InternalError, InventoryError, ReservationNotFound
from inventory_server.lanes import Lanes
from inventory_server.postgres.database import RowLocked
from inventory_server.postgres.holds import StockBusy, refusal
from inventory_server.turns import Turns
from inventory_server.waiting import WaitingRoom

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Sequence

    from inventory_server.cache import ReservationCache
    from inventory_server.domain import (
        Change,
        Extend,
        Initialize,
        Initialized,
        Reservation,
        Settle,
        Stock,
    )
    from inventory_server.postgres.database import BadItem
    from inventory_server.postgres.holds import HoldRepository
    from inventory_server.postgres.stock import StockRepository
    from inventory_server.settings import Settings

Item = TypeVar("Item")
Value = TypeVar("Value")

# Expired units that somebody else is tidying up are free once that statement ends; each try waits for its row lock.
_BUSY_ATTEMPTS = 5
# What an order that is ended or extended counts in a batch: nobody knows yet how many holds it has, up to a thousand.
_ORDER_WEIGHT = 16
# Lines of an order that count as one more request: less than a request each, since much of that is done once.
_LINES = 4


class Inventory:
    """All operations. Each raises the InventoryError that its request gets; `deadline` is in the loop's time."""

    def __init__(
        self, stock: StockRepository, holds: HoldRepository, cache: ReservationCache, settings: Settings
    ) -> None:
        self._stock = stock
        self._holds = holds
        self._cache = cache
        self._settings = settings
        self._life_max_us = round(settings.max_hold * 1_000_000)
        self._read: Lane[str, Stock] = self._lane("read_stock", asked_once(stock.read))
        self._reservations: Lane[str, Reservation] = self._lane("read_reservation", asked_once(self._read_reservations))
        # For orders that wait: past the cache, which no change waits for.
        self._made: Lane[str, Reservation] = self._lane(
            "read_reservation", asked_once(lambda reservation_ids: holds.read(reservation_ids, {}))
        )
        self._locked: Lane[Rows, dict[str, str]] = self._lane("find_locked", asked_once(holds.locked))
        self._stuck: Lane[Rows, str] = self._lane("find_locked", asked_once(holds.stuck))
        self._tidy: Lane[str, None] = self._lane("tidy", asked_once(holds.tidy))
        # Whoever waits for a stuck row has a connection: not all of them may.
        self._for_stuck = asyncio.Semaphore(max(1, settings.pool_size // 2))
        self._initialize: Lanes[Initialize, Initialized] = self._lanes(
            "initialize", stock.initialize, _product_id, _rows_of_product
        )
        self._change: Lanes[Change, Stock] = self._lanes("change_stock", stock.change, _request_id, _rows_of_product)
        self._reserve: Lanes[Order, tuple[Reservation, ...]] = self._lanes(
            "reserve", holds.reserve, _request_id, _rows_of_lines, self._remember_orders
        )
        self._settle: Lanes[Settle, Reservation] = self._lanes(
            "settle", holds.settle, _reservation_id, _rows_of_hold, self._forget
        )
        self._extend: Lanes[Extend, Reservation] = self._lanes(
            "extend", self._extend_all, _reservation_id, _rows_of_hold, self._cache.put
        )
        self._settle_orders: Lanes[SettleOrder, tuple[Reservation, ...]] = self._lanes(
            "settle_order", holds.settle_orders, _order_id, _rows_of_order, self._forget_orders
        )
        self._extend_orders: Lanes[ExtendOrder, tuple[Reservation, ...]] = self._lanes(
            "extend_order", self._extend_all_orders, _order_id, _rows_of_order, self._remember_orders
        )
        self._room = WaitingRoom(self._reserve_now, self._is_made, settings.queue_size)
        self._bulk_changes = Turns()
        self._bulk_reads = Turns()

    async def initialize(self, item: Initialize, deadline: float | None = None) -> Initialized:
        return await self._initialize.submit(item, deadline)

    async def stock(self, product_id: str, deadline: float | None = None) -> Stock:
        return await self._read.submit(product_id, deadline)

    async def change(self, item: Change, deadline: float | None = None) -> Stock:
        stock = await self._with_room(self._change, item, deadline)
        self.stir(item.product_id)
        return stock

    async def reserve(self, order: Order, deadline: float | None = None) -> tuple[Reservation, ...]:
        if order.wait > 0:
            return await self._room.reserve(order, deadline)
        return await self._reserve_now(order, deadline)

    @property
    def waiting(self) -> int:
        """How many orders wait for units to come back."""
        return self._room.waiting

    @property
    def bulk_waiting(self) -> int:
        """How many bulk calls are under way or wait for their turn."""
        return self._bulk_changes.calls + self._bulk_reads.calls

    def stir(self, product_id: str) -> None:
        """Units of a product may have come back: let those who wait for it look."""
        self._room.stir(product_id)

    def stop_waiting(self) -> None:
        """Let nobody wait any longer: the server stops, and another is to go on."""
        self._room.close()

    async def _reserve_now(self, order: Order, deadline: float | None) -> tuple[Reservation, ...]:
        attempts = _BUSY_ATTEMPTS
        most: dict[str, int] = {}
        while True:
            try:
                return await self._reserve.submit(order, deadline)
            except StockBusy as busy:
                # A statement takes back some holds of each: while that brings more units, there is reason to go on.
                product_id, available = busy.metadata["product_id"], int(busy.metadata["available"])
                attempts = _BUSY_ATTEMPTS if available > most.get(product_id, -1) else attempts - 1
                most[product_id] = max(most.get(product_id, -1), available)
                if attempts == 0:
                    raise

    async def _is_made(self, order: Order, deadline: float | None) -> bool:
        try:
            await self._made.submit(order.lines[0].reservation_id, deadline)
        except ReservationNotFound:
            return False
        return True

    async def settle(self, item: Settle, deadline: float | None = None) -> Reservation:
        """End a hold."""
        return await self._with_room(self._settle, item, deadline)

    async def settle_order(self, item: SettleOrder, deadline: float | None = None) -> tuple[Reservation, ...]:
        """End the holds of an order."""
        return await self._with_room(self._settle_orders, item, deadline)

    async def _with_room(self, lanes: Lanes[Item, Value], item: Item, deadline: float | None) -> Value:
        """Take back expired holds of what falls short, as a reserve does, for as long as less is lacking each time."""
        least = math.inf
        while True:
            try:
                return await lanes.submit(item, deadline)
            except InsufficientStock as short:
                if short.lacking >= least:
                    raise
                least = short.lacking
                await asyncio.gather(
                    *[self._tidy.submit(product_id, deadline) for product_id in sorted(short.available)]
                )

    async def extend_order(self, item: ExtendOrder, deadline: float | None = None) -> tuple[Reservation, ...]:
        return await self._extend_orders.submit(item, deadline)

    async def extend(self, item: Extend, deadline: float | None = None) -> Reservation:
        return await self._extend.submit(item, deadline)

    async def reservation(self, reservation_id: str, deadline: float | None = None) -> Reservation:
        """Read a hold. PostgreSQL sends only what differs from the cache's copy, so a stale one never gets out."""
        return await self._reservations.submit(reservation_id, deadline)

    async def reserve_many(
        self, orders: Sequence[Order], deadline: float | None = None
    ) -> list[tuple[Reservation, ...] | InventoryError]:
        """Make holds that have nothing to do with one another; errors are values here."""
        # Nobody waits here: items that differ in nothing else are copies.
        orders = [order._replace(wait=0.0) if order.wait else order for order in orders]
        with self._bulk_changes.call():
            outcomes = await self._changed_in_bulk(self._holds.reserve, orders, _rows_of_lines, deadline)
            busy = [number for number, outcome in enumerate(outcomes) if isinstance(outcome, StockBusy)]
            await attempt_again(asked_once(_one_by_one(self._reserve_now, deadline)), orders, busy, outcomes)
        self._remember_orders([outcome for outcome in outcomes if not isinstance(outcome, InventoryError)])
        return outcomes

    async def settle_many(
        self, items: Sequence[Settle], deadline: float | None = None
    ) -> list[Reservation | InventoryError]:
        """End holds that have nothing to do with one another; errors are values here."""
        end = partial(self._changed_in_bulk, self._holds.settle, rows=_rows_of_hold, deadline=deadline)
        with self._bulk_changes.call():
            outcomes = await end(items)
            least = math.inf
            while short := {no: each for no, each in enumerate(outcomes) if isinstance(each, InsufficientStock)}:
                lacking = sum(each.lacking for each in short.values())
                if lacking >= least:
                    break
                least = lacking
                # As for a single one: other expired holds of these products may do.
                tidy = self._bulk_changes.taking(self._holds.tidy, deadline)
                await attempt(
                    tidy, sorted({product for each in short.values() for product in each.available}), _refusal
                )
                await attempt_again(end, items, list(short), outcomes)
        self._forget([outcome for outcome in outcomes if not isinstance(outcome, InventoryError)])
        return outcomes

    async def stock_of_many(
        self, product_ids: Sequence[str], deadline: float | None = None
    ) -> list[Stock | InventoryError]:
        """Read balances in one statement, so that they belong to one moment; errors are values here."""
        with self._bulk_reads.call():
            return list(
                await attempt(self._bulk_reads.taking(asked_once(self._stock.read), deadline), product_ids, _refusal)
            )

    async def _changed_in_bulk(
        self,
        run: Callable[[Sequence[Item]], Awaitable[Sequence[Value | InventoryError]]],
        items: Sequence[Item],
        rows: Callable[[Item], Rows],
        deadline: float | None,
    ) -> list[Value | InventoryError]:
        run_in_turn = self._bulk_changes.taking(asked_once(run), deadline)
        outcomes = list(await attempt(run_in_turn, items, _refusal))
        locked = [number for number, outcome in enumerate(outcomes) if isinstance(outcome, RowLocked)]
        if locked:
            # Some of them stood in the way of all: the others try again without those.
            stuck = await self._holds.stuck([rows(items[number]) for number in locked])
            free = [number for number, product_id in zip(locked, stuck, strict=True) if not product_id]
            await attempt_again(lambda part: attempt(run_in_turn, part, _refusal), items, free, outcomes)
        return outcomes

    async def _read_reservations(self, reservation_ids: Sequence[str]) -> list[Reservation | InventoryError]:
        return await self._holds.read(reservation_ids, await self._cache.find(reservation_ids))

    async def _extend_all(self, items: Sequence[Extend]) -> list[Reservation | InventoryError]:
        return await self._holds.extend(items, self._life_max_us)

    async def _extend_all_orders(self, items: Sequence[ExtendOrder]) -> list[tuple[Reservation, ...] | InventoryError]:
        return await self._holds.extend_orders(items, self._life_max_us)

    def _remember_orders(self, orders: Sequence[tuple[Reservation, ...]]) -> None:
        self._cache.put(reservation for order in orders for reservation in order)

    def _forget_orders(self, orders: Sequence[tuple[Reservation, ...]]) -> None:
        self._forget([reservation for order in orders for reservation in order])

    def _forget(self, reservations: Sequence[Reservation]) -> None:
        self._room.stir(*{each.product_id for each in reservations if each.status == ReservationStatus.RELEASED})
        self._cache.forget(reservation.reservation_id for reservation in reservations)

    def _lanes(
        self,
        name: str,
        run: Callable[[Sequence[Item]], Awaitable[Sequence[Value | InventoryError]]],
        key: Callable[[Item], Hashable],
        rows: Callable[[Item], Rows],
        after: Callable[[Sequence[Value]], None] | None = None,
    ) -> Lanes[Item, Value]:
        async def run_aside(items: Sequence[Item]) -> Sequence[Value | InventoryError]:
            async with self._for_stuck:
                return await run(items)

        return Lanes(
            lambda: self._lane(name, run, key, after),
            lambda: self._lane(name, run_aside, key, after),
            rows,
            self._locked.submit,
            self._stuck.submit,
            self._settings.lanes,
        )

    def _lane(
        self,
        name: str,
        run: Callable[[Sequence[Item]], Awaitable[Sequence[Value | InventoryError]]],
        key: Callable[[Item], Hashable] | None = None,
        after: Callable[[Sequence[Value]], None] | None = None,
    ) -> Lane[Item, Value]:
        return Lane(
            run,
            name=name,
            key=key,
            refusal=_refusal,
            after=after,
            weight=_weight,
            batch_size=self._settings.batch_size,
            queue_size=self._settings.queue_size,
            gather_pause=self._settings.gather_pause,
            gather_max=self._settings.gather_max,
        )


def _product_id(item: Initialize) -> str:
    return item.product_id


def _request_id(item: Change | Order) -> str:
    return item.request_id


def _reservation_id(item: Settle | Extend) -> str:
    return item.reservation_id


def _order_id(item: SettleOrder | ExtendOrder) -> str:
    return item.order_id


def _weight(item: object) -> int:
    """Tell how much of a batch a request takes: a long order keeps its batch, and who waits for it, so much longer."""
    if isinstance(item, Order):
        return 1 + len(item.lines) // _LINES
    return _ORDER_WEIGHT if isinstance(item, (SettleOrder, ExtendOrder)) else 1


def _rows_of_product(item: Initialize | Change) -> Rows:
    return Rows(product_ids=(item.product_id,))


def _rows_of_lines(item: Order) -> Rows:
    return Rows(product_ids=tuple(line.product_id for line in item.lines))


def _rows_of_hold(item: Settle | Extend) -> Rows:
    return Rows(reservation_id=item.reservation_id)


def _rows_of_order(item: SettleOrder | ExtendOrder) -> Rows:
    return Rows(order_id=item.order_id)


def _refusal(item: object, bad: BadItem) -> InventoryError:
    request_id = getattr(item, "request_id", None)
    return InternalError() if request_id is None else refusal(request_id, bad)


def _one_by_one(
    call: Callable[[Item, float | None], Awaitable[Value]], deadline: float | None
) -> Callable[[Sequence[Item]], Awaitable[list[Value | InventoryError]]]:
    """Make a call for each of several items, all at once, where errors are values."""

    async def caught(item: Item) -> Value | InventoryError:
        try:
            return await call(item, deadline)
        except InventoryError as error:
            return error

    async def run(items: Sequence[Item]) -> list[Value | InventoryError]:
        return await asyncio.gather(*[caught(item) for item in items])

    return run

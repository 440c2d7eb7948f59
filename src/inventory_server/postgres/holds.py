"""The holds: a batch in, one statement, as many outcomes out, in the same order.

An outcome is a value or the error that its request gets; one bad item never hurts its neighbours.
"""

from __future__ import annotations

import asyncio
import json
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, LiteralString, NamedTuple

from inventory_server import errors
from inventory_server.domain import Replayed, Reservation, ReservationStatus
from inventory_server.postgres.arrays import booleans, numbered, plain, texts
from inventory_server.postgres.database import BadItem
from inventory_server.postgres.queries import query

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from inventory_server.domain import Extend, ExtendOrder, Order, Reserve, Rows, Settle, SettleOrder
    from inventory_server.postgres.database import Database

_RESERVE = query("reserve")
_SETTLE = query("settle")
_SETTLE_ORDERS = query("settle_orders")
_EXTEND = query("extend")
_EXTEND_ORDERS = query("extend_orders")
_EXPIRE = query("expire")
_SET_ASIDE = query("set_aside")
_TIDY = query("tidy")
_LOCKED = query("locked")
_RESERVATIONS = query("reservations")

# A stock row that one transaction has had for so long is stuck. One that sells well is locked at any moment, too, but
# by one after the other.
_KEPT_SECONDS = 0.2

_REQUEST_ID_CONSTRAINTS = frozenset({"inventory_movements_request_id", "inventory_reservations_pkey"})


class StockBusy(errors.InsufficientStock):
    """Expired units that would do are still to be taken back, or somebody else is at it just now: ask again."""


class Expired(NamedTuple):
    """A hold that the worker looked at; `reserved` tells the stock row's quantity where that is inconsistent."""

    reservation_id: str
    product_id: str
    quantity: int
    reserved: int | None


class HoldRepository:
    """Operations on holds; each raises DatabaseUnavailable, or BadItem where a value of the batch is to blame."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def reserve(self, orders: Sequence[Order]) -> list[tuple[Reservation, ...] | errors.InventoryError]:
        """Make holds, all of an order or none; orders that differ but share a request id should not be many."""
        lines = [line for order in orders for line in order.lines]
        rows = await self._guarded(
            _RESERVE, _reserve_parameters(orders, lines), careful=_repeated([order.request_id for order in orders])
        )
        outcomes: list[tuple[Reservation, ...] | errors.InventoryError] = []
        at = 0
        for order in orders:
            end = at + len(order.lines)
            outcomes.append(_reserved(order, rows[at:end]))
            at = end
        return outcomes

    async def settle(self, items: Sequence[Settle]) -> list[Reservation | errors.InventoryError]:
        """End holds; of those that end the same hold each finds what the one before left."""
        holds, requests = [item.reservation_id for item in items], [item.request_id for item in items]
        rows = await self._guarded(
            _SETTLE,
            (plain(holds), plain([item.action for item in items]), plain(requests)),
            careful=_repeated(holds) or _repeated(requests),
        )
        return [_settled(item, *row) for item, row in zip(items, rows, strict=True)]

    async def _guarded(
        self, statement: LiteralString, parameters: tuple[str, ...], *, careful: bool
    ) -> list[tuple[Any, ...]]:
        """Run a statement of requests; where an id of one turns out to be used, once more with a look at all of them.

        PostgreSQL names one used id of a batch, and there may be as many as items.
        """
        if not careful:
            try:
                return await self._database.fetch(statement, (*parameters, False))
            except BadItem as bad:
                if bad.constraint not in _REQUEST_ID_CONSTRAINTS:
                    raise
        return await self._database.fetch(statement, (*parameters, True))

    async def settle_orders(
        self, items: Sequence[SettleOrder]
    ) -> list[tuple[Reservation, ...] | errors.InventoryError]:
        """End the holds of orders, all of an order or none; the orders of one batch are distinct."""
        rows = await self._database.fetch(
            _SETTLE_ORDERS,
            (
                texts(item.order_id for item in items),
                plain(item.action for item in items),
                booleans(item.skip_released for item in items),
                plain(item.request_id for item in items),
            ),
        )
        return [_order_done(item, of_order) for item, of_order in zip(items, _by_order(rows), strict=True)]

    async def extend(self, items: Sequence[Extend], life_max_us: int) -> list[Reservation | errors.InventoryError]:
        """Give holds more time; the reservations of one batch are distinct."""
        rows = await self._database.fetch(
            _EXTEND,
            (
                plain(item.reservation_id for item in items),
                plain(item.ttl_us for item in items),
                texts(_ttl_asked(item) for item in items),
                plain(item.request_id for item in items),
                life_max_us,
            ),
        )
        return [_settled(item, *row, None, None) for item, row in zip(items, rows, strict=True)]

    async def extend_orders(
        self, items: Sequence[ExtendOrder], life_max_us: int
    ) -> list[tuple[Reservation, ...] | errors.InventoryError]:
        """Give the holds of orders more time, all of an order or none; the orders of one batch are distinct."""
        rows = await self._database.fetch(
            _EXTEND_ORDERS,
            (
                texts(item.order_id for item in items),
                plain(item.ttl_us for item in items),
                texts(f"{_ttl_asked(item)}, order" for item in items),
                plain(item.request_id for item in items),
                life_max_us,
            ),
        )
        return [
            _order_done(item, [(*row, None) for row in of_order])
            for item, of_order in zip(items, _by_order(rows), strict=True)
        ]

    async def read(
        self, reservation_ids: Sequence[str], copies: Mapping[str, Reservation]
    ) -> list[Reservation | errors.InventoryError]:
        """Read holds, distinct ones; `copies` may be wrong or stale, which only costs the reading of the row."""
        known = [copies.get(reservation_id, _NOTHING) for reservation_id in reservation_ids]
        rows = await self._database.fetch(
            _RESERVATIONS,
            (
                plain(reservation_ids),
                texts(copy.product_id for copy in known),
                texts(copy.order_id for copy in known),
                plain(copy.quantity for copy in known),
                plain(copy.expires_at_us for copy in known),
                plain(copy.created_at_us for copy in known),
                plain(copy.updated_at_us for copy in known),
            ),
        )
        found = {row[0]: copies[row[0]] if row[1] is None else Reservation(*row) for row in rows}
        return [found.get(key) or errors.ReservationNotFound(key) for key in reservation_ids]

    async def expire(self, holds_max: int, reach: float | None = None) -> list[Expired]:
        """Release holds that expired in the last `reach` seconds, or ever, oldest first; tell of each one looked at."""
        rows = await self._database.fetch(_EXPIRE, (holds_max, reach))
        return [
            Expired(reservation_id, product_id, quantity, reserved if outcome == "INCONSISTENT" else None)
            for outcome, reservation_id, product_id, quantity, reserved in rows
        ]

    async def set_aside(self, holds_max: int) -> list[tuple[str, int]]:
        """Set expired holds aside whose stock row somebody keeps, and tell the products and how many of each."""
        before = await self._database.fetch(_SET_ASIDE, (holds_max, "{}", "{}"))
        if not before:
            return []
        await asyncio.sleep(_KEPT_SECONDS)
        products, lockers = (texts(row[column] for row in before) for column in (0, 1))
        rows = await self._database.fetch(_SET_ASIDE, (holds_max, products, lockers))
        return [(product_id, holds) for product_id, _, holds in rows if holds > 0]

    async def tidy(self, product_ids: Sequence[str]) -> list[None]:
        """Take back the expired holds of products that somebody wants now."""
        await self._database.fetch(_TIDY, (texts(product_ids),))
        return [None] * len(product_ids)

    async def stuck(self, requests: Sequence[Rows]) -> list[str]:
        """Tell for each request a product whose stock row somebody keeps locked; empty where there is none."""
        before = await self.locked(requests)
        if not any(before):
            return [""] * len(requests)
        await asyncio.sleep(_KEPT_SECONDS)
        now = await self.locked(requests)
        return [min(dict(then.items() & still.items()), default="") for then, still in zip(before, now, strict=True)]

    async def locked(self, requests: Sequence[Rows]) -> list[dict[str, str]]:
        """Tell for each request the products whose stock rows are locked just now, and which transaction has each."""
        products = [(no, key) for no, rows in enumerate(requests) for key in rows.product_ids]
        holds = [(no, rows.reservation_id) for no, rows in enumerate(requests) if rows.reservation_id]
        orders = [(no, rows.order_id) for no, rows in enumerate(requests) if rows.order_id]
        found = await self._database.fetch(
            _LOCKED,
            (
                plain(no for no, _ in products),
                texts(key for _, key in products),
                plain(no for no, _ in holds),
                plain(key for _, key in holds),
                plain(no for no, _ in orders),
                texts(key for _, key in orders),
            ),
        )
        lockers: list[dict[str, str]] = [{} for _ in requests]
        for no, product_id, locker in found:
            lockers[no][product_id] = locker
        return lockers


def refusal(request_id: str, bad: BadItem) -> errors.InventoryError:
    """Tell what the item that PostgreSQL refused did wrong."""
    if bad.constraint in _REQUEST_ID_CONSTRAINTS:
        return errors.RequestIdConflict(request_id)
    if bad.constraint == "inventory_order_consistent":
        return errors.InvalidStockState(*json.loads(bad.detail or "[]"))
    return errors.InternalError()


_NOTHING = Reservation("", "", "", 0, "", None, 0, 0, 0)


def _repeated(ids: Sequence[str]) -> bool:
    return len(set(ids)) < len(ids)


def _reserve_parameters(orders: Sequence[Order], lines: Sequence[Reserve]) -> tuple[str, ...]:
    products = numbered(line.product_id for line in lines)
    last: list[int] = []
    requests: list[str] = []
    for order in orders:
        count = len(order.lines)
        last += [len(last) + count] * count
        requests += [order.request_id] * count
    return (
        texts(products),
        plain(last),
        plain([products[line.product_id] for line in lines]),
        texts([line.order_id for line in lines]),
        plain([line.quantity for line in lines]),
        plain([line.ttl_us for line in lines]),
        booleans([line.ttl_given for line in lines]),
        plain([line.reservation_id for line in lines]),
        plain(requests),
        plain([number for order in orders for number in range(len(order.lines))]),
    )


def _reserved(order: Order, rows: list[tuple[Any, ...]]) -> tuple[Reservation, ...] | errors.InventoryError:
    if rows[0][0] == "REFUSED":
        return _short(order, rows)
    if rows[0][0] == "CONFLICT":
        return errors.RequestIdConflict(order.request_id)
    kind = Replayed if rows[0][0] == "REPLAYED" else Reservation
    return tuple(
        [
            kind(
                line.reservation_id,
                line.product_id,
                line.order_id,
                line.quantity,
                ReservationStatus.RESERVED,
                None,
                created_us + ttl_us,
                created_us,
                created_us,
            )
            for line, (_, _, _, created_us, ttl_us) in zip(order.lines, rows, strict=True)
        ]
    )


def _short(order: Order, rows: list[tuple[Any, ...]]) -> errors.InventoryError:
    """Tell of every product that is short or unknown; lines of one product count together."""
    requested = order.wanted
    found = {line.product_id: row[1:3] for line, row in zip(order.lines, rows, strict=True)}
    lacking = {
        product_id: errors.Shortage(product_id, requested[product_id], available)
        for product_id, (available, _) in found.items()
        if available is None or available < requested[product_id]
    }
    shortages = tuple(lacking.values()) if order.has_lines else ()
    for short in lacking.values():
        if short.available is not None:
            busy = all(
                each.available is not None and each.available + found[each.product_id][1] >= each.requested
                for each in lacking.values()
            )
            kind = StockBusy if busy else errors.InsufficientStock
            return kind(short.product_id, short.requested, short.available, shortages)
    return errors.ProductNotFound(next(iter(lacking)), shortages)


def _settled(item: Settle | Extend, outcome: str, *row: Any) -> Reservation | errors.InventoryError:
    product_id, _, quantity, _, release_reason, *_, available, reserved = row
    match outcome:
        case "DONE":
            return Reservation(item.reservation_id, *row[:-2])
        case "REPLAYED":
            return Replayed(item.reservation_id, *row[:-2])
        case "NOT_FOUND":
            return errors.ReservationNotFound(item.reservation_id)
        case "RELEASED":
            return errors.ReservationAlreadyReleased(item.reservation_id, release_reason)
        case "DEDUCTED":
            return errors.ReservationAlreadyDeducted(item.reservation_id)
        case "SHORT":
            return errors.InsufficientStock(product_id, quantity, available)
        case "INCONSISTENT":
            return errors.InvalidStockState(item.reservation_id, product_id, quantity, reserved)
        case _:
            return errors.RequestIdConflict(item.request_id)


def _ttl_asked(item: Extend | ExtendOrder) -> str:
    """Say what was asked for, to the microsecond, so that a replay can be told from another request."""
    return f"ttl {item.ttl_us / 1e6:.12g} s"


def _by_order(rows: Sequence[tuple[Any, ...]]) -> list[list[tuple[Any, ...]]]:
    """Part rows that begin with the number of their order, in the order of these."""
    return [[row[1:] for row in group] for _, group in groupby(rows, key=itemgetter(0))]


def _order_done(
    item: SettleOrder | ExtendOrder, rows: list[tuple[Any, ...]]
) -> tuple[Reservation, ...] | errors.InventoryError:
    outcome, reservation_id, *_ = rows[0]
    match outcome:
        case "DONE":
            return tuple(Reservation(*row[1:-1]) for row in rows)
        case "REPLAYED":
            return tuple(Replayed(*row[1:-1]) for row in rows)
        case "SHORT":
            _, _, product_id, _, requested, *_, available = rows[0]
            lacking = [errors.Shortage(row[2], row[4], row[-1]) for row in rows]
            return errors.InsufficientStock(product_id, requested, available, lacking)
        case "NOT_FOUND":
            return errors.ReservationNotFound.of_order(item.order_id)
        case "TOO_LARGE":
            return errors.InvalidOrderId.of_large_order()
        case "RELEASED":
            return errors.ReservationAlreadyReleased(reservation_id, rows[0][6])
        case "DEDUCTED":
            return errors.ReservationAlreadyDeducted(reservation_id)
        case _:
            return errors.RequestIdConflict(item.request_id)

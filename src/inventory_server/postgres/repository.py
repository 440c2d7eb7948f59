"""Every operation on the three tables: a batch in, one statement, as many outcomes out, in the same order.

An outcome is a value or the error that its request gets; one bad item never hurts its neighbours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from inventory_server import errors
from inventory_server.domain import (
    STOCK_MAX,
    Initialized,
    Reservation,
    ReservationStatus,
    Stock,
)
from inventory_server.postgres.arrays import booleans, plain, texts
from inventory_server.postgres.queries import query

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from inventory_server.domain import Add, Initialize, Order, Reserve, Settle
    from inventory_server.postgres.database import BadItem, Database

_RESERVE = query("reserve")
_SETTLE = query("settle")
_EXPIRE = query("expire")
_INITIALIZE = query("initialize")
_CHANGE = query("change")
_STOCK = query("stock")
_RESERVATIONS = query("reservations")

_REQUEST_ID_CONSTRAINTS = frozenset({"inventory_movements_request_id", "inventory_reservations_pkey"})


class StockBusy(errors.InsufficientStock):
    """Expired units that would do are being tidied up by somebody else at this moment: ask again."""


class Expired(NamedTuple):
    """A hold that the worker looked at; `reserved` tells the stock row's quantity where that is inconsistent."""

    reservation_id: str
    product_id: str
    quantity: int
    reserved: int | None


class Repository:
    """The operations; each raises DatabaseUnavailable, or BadItem where a value of the batch is to blame."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ping(self) -> None:
        """Make sure that PostgreSQL answers and takes writes."""
        ((standby,),) = await self._database.fetch("SELECT pg_is_in_recovery()")
        if standby:
            raise errors.DatabaseUnavailable

    async def initialize(self, items: Sequence[Initialize]) -> list[Initialized | errors.InventoryError]:
        """Create records; the products of one batch are distinct."""
        rows = await self._database.fetch(
            _INITIALIZE,
            (
                texts(item.product_id for item in items),
                plain(item.quantity for item in items),
                plain(item.request_id for item in items),
            ),
        )
        return [
            errors.RequestIdConflict(item.request_id)
            if outcome == "CONFLICT"
            else Initialized(Stock(item.product_id, *balances), outcome == "CREATED")
            for item, (outcome, *balances) in zip(items, rows, strict=True)
        ]

    async def add(self, items: Sequence[Add]) -> list[Stock | errors.InventoryError]:
        """Add units; the request ids of one batch are distinct."""
        products = _numbered(item.product_id for item in items)
        rows = await self._database.fetch(
            _CHANGE,
            (
                texts(products),
                plain(products[item.product_id] for item in items),
                texts("ADD" for _ in items),
                plain(item.quantity for item in items),
                texts(item.reason or None for item in items),
                plain(item.request_id for item in items),
                STOCK_MAX,
            ),
        )
        return [_changed(item, *row) for item, row in zip(items, rows, strict=True)]

    async def stock(self, product_ids: Sequence[str]) -> list[Stock | errors.InventoryError]:
        """Read balances; the products of one batch are distinct."""
        rows = await self._database.fetch(_STOCK, (texts(product_ids),))
        found = {row[0]: Stock(*row) for row in rows}
        return [found.get(product_id) or errors.ProductNotFound(product_id) for product_id in product_ids]

    async def reserve(self, orders: Sequence[Order]) -> list[tuple[Reservation, ...] | errors.InventoryError]:
        """Make holds, all of an order or none; the request ids of one batch are distinct."""
        lines = [line for order in orders for line in order.lines]
        rows = await self._database.fetch(_RESERVE, _reserve_parameters(orders, lines))
        outcomes: list[tuple[Reservation, ...] | errors.InventoryError] = []
        at = 0
        for order in orders:
            end = at + len(order.lines)
            outcomes.append(_reserved(order, rows[at:end]))
            at = end
        return outcomes

    async def settle(self, items: Sequence[Settle]) -> list[Reservation | errors.InventoryError]:
        """End holds; the reservations of one batch are distinct."""
        rows = await self._database.fetch(
            _SETTLE,
            (
                plain(item.reservation_id for item in items),
                plain(item.action for item in items),
                plain(item.request_id for item in items),
            ),
        )
        return [_settled(item, *row) for item, row in zip(items, rows, strict=True)]

    async def reservations(
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

    async def expire(self, holds_max: int) -> list[Expired]:
        """Release holds that have expired, oldest first, and tell of each one looked at."""
        rows = await self._database.fetch(_EXPIRE, (holds_max,))
        return [
            Expired(reservation_id, product_id, quantity, reserved if outcome == "INCONSISTENT" else None)
            for outcome, reservation_id, product_id, quantity, reserved in rows
        ]


def refusal(request_id: str, bad: BadItem) -> errors.InventoryError:
    """Tell what the item that PostgreSQL refused did wrong."""
    if bad.constraint in _REQUEST_ID_CONSTRAINTS:
        return errors.RequestIdConflict(request_id)
    return errors.InternalError()


_NOTHING = Reservation("", "", "", 0, "", None, 0, 0, 0)


def _numbered(values: Iterable[str]) -> dict[str, int]:
    """Number distinct values from 1, as PostgreSQL's arrays are."""
    numbers: dict[str, int] = {}
    for value in values:
        numbers.setdefault(value, len(numbers) + 1)
    return numbers


def _changed(
    item: Add, outcome: str, available: int, reserved: int, version: int, created_us: int, updated_us: int
) -> Stock | errors.InventoryError:
    match outcome:
        case "DONE" | "REPLAYED":
            return Stock(item.product_id, available, reserved, version, created_us, updated_us)
        case "NOT_FOUND":
            return errors.ProductNotFound(item.product_id)
        case "LIMIT":
            return errors.InvalidQuantity.above_stock_limit()
        case _:
            return errors.RequestIdConflict(item.request_id)


def _reserve_parameters(orders: Sequence[Order], lines: Sequence[Reserve]) -> tuple[str, ...]:
    products = _numbered(line.product_id for line in lines)
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
    made = []
    for line, (outcome, available, created_us, ttl_us) in zip(order.lines, rows, strict=True):
        if outcome in {"RESERVED", "REPLAYED"}:
            made.append(
                Reservation(
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
            )
        elif outcome == "CONFLICT":
            return errors.RequestIdConflict(order.request_id)
        elif outcome == "NOT_FOUND":
            return errors.ProductNotFound(line.product_id)
        elif outcome != "FITS":
            kind = StockBusy if outcome == "BUSY" else errors.InsufficientStock
            return kind(line.product_id, line.quantity, available)
    return tuple(made)


def _settled(item: Settle, outcome: str, *row: Any) -> Reservation | errors.InventoryError:
    product_id, _, quantity, _, release_reason, *_, reserved = row
    match outcome:
        case "DONE" | "REPLAYED":
            return Reservation(item.reservation_id, *row[:-1])
        case "NOT_FOUND":
            return errors.ReservationNotFound(item.reservation_id)
        case "RELEASED":
            return errors.ReservationAlreadyReleased(item.reservation_id, release_reason)
        case "DEDUCTED":
            return errors.ReservationAlreadyDeducted(item.reservation_id)
        case "INCONSISTENT":
            return errors.InvalidStockState(item.reservation_id, product_id, quantity, reserved)
        case _:
            return errors.RequestIdConflict(item.request_id)

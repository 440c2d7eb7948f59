"""The listings and explanations as a servicer asks for them: page by page, few at a time beside the changes."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from inventory_server.domain import ReservationStatus
from inventory_server.errors import Overloaded, ProductNotFound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from inventory_server.domain import Explanation, Movement, Reservation, Stock
    from inventory_server.postgres.reading import ReadingRepository

Row = TypeVar("Row")

# Queries under way at once: they share the connections with the changes, which must not wait for them.
_WIDTH = 2
_QUEUE = 64
# A filter that little passes ends a page early, after so many looks of at least so many rows: the next page goes on.
_LOOKS = 10
_ROWS_LOOKED_AT = 200

# The statuses that the rows of holds may have which read as the one asked for: a hold that has expired reads RELEASED.
_KEPT_AS = {
    None: tuple(ReservationStatus),
    ReservationStatus.RESERVED: (ReservationStatus.RESERVED,),
    ReservationStatus.RELEASED: (ReservationStatus.RELEASED, ReservationStatus.RESERVED),
    ReservationStatus.DEDUCTED: (ReservationStatus.DEDUCTED,),
}


class Page(NamedTuple, Generic[Row]):
    """Rows, and the key after which the next page starts: None on the last one. A filter may leave a page short."""

    rows: list[Row]
    next_key: str | None


class Queries:
    """Reads of many rows. Each raises InventoryErrors, or TimeoutError at its `deadline` (in the loop's time)."""

    def __init__(self, reading: ReadingRepository) -> None:
        self._reading = reading
        self._width = asyncio.Semaphore(_WIDTH)
        self._waiting = 0

    async def stock(
        self, available_max: int | None, after: str | None, size: int, deadline: float | None
    ) -> Page[Stock]:
        """List balances by product id, of all products or of those with at most so many units available."""

        async def look(key: str | None, rows_max: int) -> list[Stock]:
            if available_max is None:
                return await self._reading.stock(key, rows_max)
            return await self._reading.low_stock(available_max, key, rows_max)

        def passes(row: Stock) -> bool:
            return available_max is None or row.available <= available_max

        async with self._turn(deadline):
            return await _page(look, passes, _product_id, after, size)

    async def reservations_of_order(
        self, order_id: str, status: ReservationStatus | None, after: str | None, size: int, deadline: float | None
    ) -> Page[Reservation]:
        """List the holds of an order by id."""

        async def look(key: str | None, rows_max: int) -> list[Reservation]:
            return await self._reading.reservations_of_order(order_id, key, rows_max)

        async with self._turn(deadline):
            return await _page(look, _has(status), _reservation_id, after, size)

    async def reservations_of_product(
        self, product_id: str, status: ReservationStatus | None, after: str | None, size: int, deadline: float | None
    ) -> Page[Reservation]:
        """List the holds of a product by id."""

        async def look(key: str | None, rows_max: int) -> list[Reservation]:
            return await self._reading.reservations_of_product(product_id, _KEPT_AS[status], key, rows_max)

        async with self._turn(deadline):
            return await _page(look, _has(status), _reservation_id, after, size)

    async def movements(self, product_id: str, before: str | None, size: int, deadline: float | None) -> Page[Movement]:
        """List the ledger of a product, newest first."""

        async def look(key: str | None, rows_max: int) -> list[Movement]:
            return await self._reading.movements(product_id, None if key is None else int(key), rows_max)

        async with self._turn(deadline):
            page = await _page(look, lambda _: True, _version, before, size)
        if before is None and not page.rows:
            raise ProductNotFound(product_id)
        return page

    async def explain(
        self, product_id: str, at_us: int | None, movements_max: int, deadline: float | None
    ) -> Explanation:
        """Tell why a product has its balances."""
        async with self._turn(deadline):
            return await self._reading.explain(product_id, at_us, movements_max)

    @asynccontextmanager
    async def _turn(self, deadline: float | None) -> AsyncIterator[None]:
        """Wait for a turn; at the deadline the statement under way is cancelled."""
        if self._waiting >= _QUEUE:
            raise Overloaded
        self._waiting += 1
        try:
            async with asyncio.timeout_at(deadline), self._width:
                yield
        finally:
            self._waiting -= 1


async def _page(
    look: Callable[[str | None, int], Awaitable[list[Row]]],
    passes: Callable[[Row], bool],
    key_of: Callable[[Row], str],
    key: str | None,
    size: int,
) -> Page[Row]:
    """Collect the rows that pass. The key of the last row looked at tells where to go on, whether or not it passed."""
    rows: list[Row] = []
    rows_max = size + 1
    for _ in range(_LOOKS):
        found = await look(key, rows_max)
        for row in found:
            if len(rows) == size:
                return Page(rows, key)
            if passes(row):
                rows.append(row)
            key = key_of(row)
        if len(found) < rows_max:
            return Page(rows, None)
        rows_max = max(rows_max, _ROWS_LOOKED_AT)
    return Page(rows, key)


def _has(status: ReservationStatus | None) -> Callable[[Reservation], bool]:
    return lambda row: status is None or row.status == status


def _product_id(row: Stock) -> str:
    return row.product_id


def _reservation_id(row: Reservation) -> str:
    return row.reservation_id


def _version(row: Movement) -> str:
    return str(row.version)

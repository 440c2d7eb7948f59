"""What listings and explanations read: plain rows, in the order of their keys, as of one statement's snapshot."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from inventory_server import errors
from inventory_server.domain import (
    Explanation,
    HoldSummary,
    Movement,
    ReleaseReason,
    Reservation,
    ReservationStatus,
    Stock,
)
from inventory_server.postgres.queries import query

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from inventory_server.postgres.database import Database

_STOCK = query("list_stock")
_LOW_STOCK = query("list_low_stock")
_OF_ORDER = query("list_reservations_of_order")
_OF_PRODUCT = query("list_reservations_of_product")
_MOVEMENTS = query("list_movements")
_EXPLAIN = query("explain_stock")

# Where listings start: below every id, above every version.
_FIRST_PRODUCT = ""
_LAST_VERSION = 2**63 - 1

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# The states that inventory_explain_v1 counts holds by.
_STATES = {
    "open": (ReservationStatus.RESERVED, None),
    "released": (ReservationStatus.RELEASED, ReleaseReason.REQUESTED),
    "expired": (ReservationStatus.RELEASED, ReleaseReason.EXPIRED),
    "sold": (ReservationStatus.DEDUCTED, None),
}


class ReadingRepository:
    """Reads that no change depends on; each raises DatabaseUnavailable where PostgreSQL does not answer in time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def stock(self, after: str | None, rows_max: int) -> list[Stock]:
        """Read balances in the order of the product ids, after one of them or from the first on."""
        return [Stock(*row) for row in await self._database.fetch(_STOCK, (after or _FIRST_PRODUCT, rows_max))]

    async def low_stock(self, available_max: int, after: str | None, rows_max: int) -> list[Stock]:
        """Read balances of products that run low, and of some that have a little more than `available_max`."""
        rows = await self._database.fetch(_LOW_STOCK, (available_max, after or _FIRST_PRODUCT, rows_max))
        return [Stock(*row) for row in rows]

    async def reservations_of_order(self, order_id: str, after: str | None, rows_max: int) -> list[Reservation]:
        """Read holds in the order of their ids, after one of them or from the first on."""
        rows = await self._database.fetch(_OF_ORDER, (order_id, after, rows_max))
        return [Reservation(*row) for row in rows]

    async def reservations_of_product(
        self, product_id: str, statuses: Sequence[str], after: str | None, rows_max: int
    ) -> list[Reservation]:
        """Read holds whose rows have one of the statuses; one that has expired says so, whatever its row says."""
        rows = await self._database.fetch(_OF_PRODUCT, (product_id, list(statuses), after, rows_max))
        return [Reservation(*row) for row in rows]

    async def movements(self, product_id: str, before: int | None, rows_max: int) -> list[Movement]:
        """Read the ledger of a product backwards, from before a version or from the last one on."""
        key = _LAST_VERSION if before is None else before
        return [Movement(*row) for row in await self._database.fetch(_MOVEMENTS, (product_id, key, rows_max))]

    async def explain(self, product_id: str, at_us: int | None, movements_max: int) -> Explanation:
        """Tell why a product has its balances; a moment to come is now.

        The work grows with the ledger of the product. Raises ProductNotFound, or ValidationError where the ledger does
        not reach back to the moment.
        """
        rows = await self._database.fetch(_EXPLAIN, (product_id, at_us, movements_max))
        if not rows:
            raise errors.ProductNotFound(product_id)
        return _explanation(product_id, *rows[0])


def _explanation(
    product_id: str,
    begins_us: int | None,
    available: int | None,
    reserved: int,
    version: int,
    created_us: int,
    updated_us: int,
    added: int,
    removed: int,
    deducted: int,
    holds: dict[str, list[int]] | None,
    movements: list[list[Any]] | None,
    discrepancies: list[str],
) -> Explanation:
    if available is None:
        raise errors.ValidationError([errors.Violation("at", _begin(begins_us))])
    return Explanation(
        Stock(product_id, available, reserved, version, created_us, updated_us),
        added,
        removed,
        deducted,
        tuple(HoldSummary(*stand, *(holds or {})[state]) for state, stand in _STATES.items() if state in (holds or {})),
        tuple(Movement(*row) for row in movements or ()),
        tuple(discrepancies),
    )


def _begin(begins_us: int | None) -> str:
    if begins_us is None:
        return "cannot be explained: the product has no movements"
    begins = _EPOCH + timedelta(microseconds=begins_us)
    return f"must not be before {begins:%Y-%m-%dT%H:%M:%S.%fZ}, when the ledger of the product begins"

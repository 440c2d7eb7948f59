"""The stock records: a batch in, one statement, as many outcomes out, in the same order.

An outcome is a value or the error that its request gets; one bad item never hurts its neighbours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from inventory_server import errors
from inventory_server.domain import STOCK_MAX, Initialized, Stock
from inventory_server.postgres.arrays import numbered, plain, texts
from inventory_server.postgres.queries import query

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inventory_server.domain import Change, Initialize
    from inventory_server.postgres.database import Database

_INITIALIZE = query("initialize")
_CHANGE = query("change")
_STOCK = query("stock")


class StockRepository:
    """Operations on stock; each raises DatabaseUnavailable, or BadItem where a value of the batch is to blame."""

    def __init__(self, database: Database) -> None:
        self._database = database

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

    async def change(self, items: Sequence[Change]) -> list[Stock | errors.InventoryError]:
        """Add or correct; the request ids of one batch are distinct."""
        products = numbered(item.product_id for item in items)
        rows = await self._database.fetch(
            _CHANGE,
            (
                texts(products),
                plain(products[item.product_id] for item in items),
                texts(item.kind for item in items),
                plain(item.delta for item in items),
                texts(item.reason or None for item in items),
                plain(item.expected_version for item in items),
                plain(item.request_id for item in items),
                STOCK_MAX,
            ),
        )
        return [_changed(item, *row) for item, row in zip(items, rows, strict=True)]

    async def read(self, product_ids: Sequence[str]) -> list[Stock | errors.InventoryError]:
        """Read balances; the products of one batch are distinct."""
        rows = await self._database.fetch(_STOCK, (texts(product_ids),))
        found = {row[0]: Stock(*row) for row in rows}
        return [found.get(product_id) or errors.ProductNotFound(product_id) for product_id in product_ids]


def _changed(
    item: Change, outcome: str, available: int, reserved: int, version: int, created_us: int, updated_us: int
) -> Stock | errors.InventoryError:
    match outcome:
        case "DONE" | "REPLAYED":
            return Stock(item.product_id, available, reserved, version, created_us, updated_us)
        case "NOT_FOUND":
            return errors.ProductNotFound(item.product_id)
        case "VERSION":
            return errors.VersionMismatch(item.product_id, item.expected_version or 0, version)
        case "SHORT":
            return errors.InsufficientStock(item.product_id, -item.delta, available)
        case "LIMIT":
            return errors.InvalidQuantity.above_stock_limit("delta" if item.kind == "ADJUST" else "quantity")
        case _:
            return errors.RequestIdConflict(item.request_id)

"""What retention removes, in one small statement at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from inventory_server.postgres.queries import query

if TYPE_CHECKING:
    from inventory_server.postgres.database import Database

_RETAIN = query("retain")


class Retained(NamedTuple):
    """What a batch did: the product to go on after, whether that was the last one, and how much went."""

    product_id: str
    last: bool
    movements: int
    holds: int


class RetentionRepository:
    """Removes what is old; raises DatabaseUnavailable where PostgreSQL does not answer in time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def retain(self, after: str, keep_us: int, products_max: int, rows_max: int) -> Retained | None:
        """Remove what was over `keep_us` ago from the products after one; None where another server is at it."""
        rows = await self._database.fetch(_RETAIN, (after, keep_us, products_max, rows_max))
        return Retained(*rows[0]) if rows else None

"""The ledger and the holds as the database has them in the end, and what the checks complain about."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import psycopg

if TYPE_CHECKING:
    from tests.soak.history import Call

_MOVEMENTS = """
    SELECT product_id, version, kind, available_delta, reserved_delta, available_after, reserved_after,
        request_id::text, reservation_id::text, extract(epoch FROM occurred_at)::float8,
        extract(epoch FROM expires_at)::float8
    FROM inventory_movements ORDER BY product_id, version
"""
_EXPIRIES = """
    SELECT reservation_id::text, extract(epoch FROM created_at)::float8 + ttl_us / 1e6 FROM inventory_reservations
"""


class Movement(NamedTuple):
    """A row of the ledger; times in seconds since 1970 of the database's clock."""

    product: str
    version: int
    kind: str
    available_delta: int
    reserved_delta: int
    available: int
    reserved: int
    request_id: str | None
    hold: str | None
    occurred_at: float
    expires_at: float | None


@dataclass
class Books:
    """`expiries` tells when each hold was to end as it was made; `realtime_offset` turns monotonic into real time."""

    movements: list[Movement]
    expiries: dict[str, float]
    realtime_offset: float
    by_request: dict[str, list[Movement]] = field(init=False)
    by_product: dict[str, list[Movement]] = field(init=False)

    def __post_init__(self) -> None:
        by_request: dict[str, list[Movement]] = defaultdict(list)
        by_product: dict[str, list[Movement]] = defaultdict(list)
        for movement in self.movements:
            by_product[movement.product].append(movement)
            if movement.request_id is not None:
                by_request[movement.request_id].append(movement)
        self.by_request, self.by_product = dict(by_request), dict(by_product)


@dataclass(frozen=True)
class Violation:
    """A broken promise: which check saw it, in one sentence, and where to look."""

    check: str
    sentence: str
    request_id: str | None = None
    product: str | None = None


def read_books(database_url: str, realtime_offset: float) -> Books:
    with psycopg.connect(database_url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        movements = [Movement(*row) for row in connection.execute(_MOVEMENTS)]
        expiries: dict[str, float] = dict(connection.execute(_EXPIRIES).fetchall())
    return Books(movements, expiries, realtime_offset)


def products_of(call: Call, books: Books) -> set[str]:
    """Name the products that a call is about."""
    asked = call.asked
    products = {asked["product"]} if "product" in asked else set(asked.get("products", ()))
    products |= {line[0] for line in asked.get("lines", ())}
    products |= {movement.product for movement in books.by_request.get(call.request_id, ())}
    return products

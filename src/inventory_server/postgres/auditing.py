"""The audit of all products, a few at a time.

What has to agree is all of one product, and each statement sees one committed moment. So every range of products gets
a snapshot of its own: one for all would keep dead versions of hot records alive for as long as the audit runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString, NamedTuple

import psycopg

from inventory_server.postgres.queries import query

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

_AUDIT = query("audit")
_RANGE = query("audit_range")
_COUNT = query("audit_count")

# One statement looks at no more than this, or at one product: PostgreSQL sorts and joins it within its memory.
_PRODUCTS_MAX = 1000
_MOVEMENTS_MAX = 100_000

# Products are audited in ranges without a gap, so that movements and holds of no product are found too.
_LOWEST = ""
_HIGHEST = "\U0010ffff" * 256


class Finding(NamedTuple):
    """What does not agree about one product, as a sentence."""

    product_id: str
    discrepancy: str


class Audited(NamedTuple):
    """How many records a step looked at, and what it found."""

    products: int
    findings: list[Finding]


def connect(url: str, connect_timeout: float) -> psycopg.Connection[Any]:
    """Connect for an audit, which changes nothing, prepares nothing and leaves no setting in a pooled session."""
    connection = psycopg.connect(
        url,
        autocommit=True,
        prepare_threshold=None,
        connect_timeout=max(1, round(connect_timeout)),
        application_name="inventory-server audit",
    )
    connection.read_only = True
    return connection


def count_products(connection: psycopg.Connection[Any]) -> int:
    ((count,),) = _fetch(connection, _COUNT, ())
    return int(count)


def audit(connection: psycopg.Connection[Any]) -> Iterator[Audited]:
    """Audit all products in the order of their ids."""
    first, after = _LOWEST, _LOWEST
    last = False
    while not last:
        products = _fetch(connection, _RANGE, (after, _PRODUCTS_MAX))
        chosen = _within_limit(products)
        last = len(chosen) == len(products) < _PRODUCTS_MAX
        after = chosen[-1] if chosen else after
        rows = _fetch(connection, _AUDIT, (first, _HIGHEST if last else after))
        yield Audited(len(chosen), [Finding(*row) for row in rows])
        # No text stands between one and itself followed by the lowest character there is.
        first = after + "\x01"


def _fetch(connection: psycopg.Connection[Any], statement: LiteralString, parameters: Sequence[Any]) -> list[Any]:
    with connection.transaction():
        # It may take long and nobody waits for it: it has no locks that anybody wants.
        connection.execute("SET LOCAL statement_timeout = 0")
        return connection.execute(statement, parameters).fetchall()


def _within_limit(products: list[tuple[str, int]]) -> list[str]:
    """Choose as many products as have few enough movements together, and at least one."""
    chosen: list[str] = []
    movements = 0
    for product_id, count in products:
        movements += count
        if chosen and movements > _MOVEMENTS_MAX:
            break
        chosen.append(product_id)
    return chosen

"""While a transaction reads for long, VACUUM removes nothing: what has ended must not slow down who looks for more."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest
from tests.fixtures.ledgers import HOUR_US, Ledgers

from inventory_server.postgres.queries import query

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ENDED = 20_000
# Pages that a look may read: a few of each index, and of what it needs to plan; the ended holds fill some hundred.
MOST = 100
_HOLDS = """
    INSERT INTO inventory_reservations (reservation_id, product_id, order_id, quantity, status, ttl_us, ttl_given,
        created_at, expires_at, updated_at, tidy_at)
    SELECT gen_random_uuid(), 'hot', 'old', 1, 'RESERVED', 1, true, x.then, x.then, x.then, x.then
    FROM (SELECT now() - n * interval '1 second' AS then FROM generate_series(%s::int, %s::int) n) x
"""


@pytest.fixture
def shop(database_url: str) -> Iterator[Ledgers]:
    """A shop of one product, sold out, whose holds ended in the hours up to ten minutes ago, while somebody reads."""
    with Ledgers(database_url) as shop, psycopg.connect(database_url) as reader:
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        shop.initialize("hot", ENDED)
        shop.run("UPDATE inventory_stock SET available_quantity = 0, reserved_quantity = %s", [ENDED])
        shop.run(_HOLDS, (600, 600 + ENDED - 1))
        reader.execute("SELECT FROM inventory_reservations LIMIT 1")
        shop.run("UPDATE inventory_reservations SET status = 'DEDUCTED'")
        shop.run("VACUUM ANALYZE inventory_reservations")
        yield shop


def pages(shop: Ledgers, name: str, values: Sequence[Any]) -> int:
    """Run a query and count the pages that it read."""
    shop.run("SET plan_cache_mode = force_generic_plan")
    ((plan,),) = shop.run("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + query(name), values)
    top = (json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]
    return int(top["Shared Hit Blocks"] + top["Shared Read Blocks"])


def one_more() -> tuple[object, ...]:
    hold = uuid4()
    return (["hot"], [1], [1], ["order"], [1], [HOUR_US], [True], [hold], [hold], [0], False)


@pytest.mark.parametrize(("name", "values"), [("expire", (200,)), ("overdue", ())])
def test_who_looks_a_minute_back_reads_nothing_of_what_ended_before(
    shop: Ledgers, name: str, values: tuple[object, ...]
) -> None:
    assert pages(shop, name, (*values, None)) > MOST
    pages(shop, name, (*values, 60.0))  # reads the catalogue
    assert pages(shop, name, (*values, 60.0)) < MOST


def test_a_refused_reserve_looks_no_further_back_than_the_one_before_it(shop: Ledgers) -> None:
    assert pages(shop, "reserve", one_more()) > MOST
    assert pages(shop, "reserve", one_more()) < MOST


def test_what_expires_after_a_refusal_is_taken_back_all_the_same(shop: Ledgers) -> None:
    shop.run("UPDATE inventory_stock SET reserved_quantity = 2")
    shop.run(_HOLDS, (-3600, -3599))
    ((outcome, *_),) = shop.run(query("reserve"), one_more())
    assert outcome == "REFUSED"
    shop.run("UPDATE inventory_reservations SET expires_at = now() WHERE status = 'RESERVED'")
    ((outcome, *_),) = shop.run(query("reserve"), one_more())
    assert outcome == "RESERVED"


def test_a_look_that_left_an_expired_hold_is_no_reason_to_begin_the_next_one_after_it(shop: Ledgers) -> None:
    shop.run("UPDATE inventory_stock SET reserved_quantity = 1")
    shop.run(_HOLDS, (900, 900))
    with locked_holds(shop.url):
        ((outcome, *_),) = shop.run(query("reserve"), one_more())
        assert outcome == "REFUSED"
    ((outcome, *_),) = shop.run(query("reserve"), one_more())
    assert outcome == "RESERVED"


@contextmanager
def locked_holds(database_url: str) -> Iterator[None]:
    with psycopg.connect(database_url) as stranger:
        stranger.execute("SELECT FROM inventory_reservations WHERE status = 'RESERVED' FOR UPDATE")
        yield
        stranger.rollback()

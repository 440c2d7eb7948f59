"""No query reads a table of a million rows from end to end, nor more of it than it needs."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from tests.fixtures.stores import _database

from inventory_server.postgres.queries import query

if TYPE_CHECKING:
    from collections.abc import Iterator

ROWS = 1_000_000
HOT = "hot"
SHORT = "p0"
EXPIRED = 500
ANY_ID = "80000000-0000-4000-8000-000000000000"
KNOWN = "70000000-0000-4000-8000-000000000000"
NEW, NEWER = "90000000-0000-4000-8000-000000000001", "90000000-0000-4000-8000-000000000002"
LAST = 2**63 - 1

# A million of each. Half of the holds and of the movements are of one product and one order; one product has nothing
# but holds that have expired, all others are good for an hour.
_FILL = {
    "inventory_stock": """
    INSERT INTO inventory_stock (product_id, available_quantity, reserved_quantity, version, created_at, updated_at)
    SELECT CASE n WHEN 1 THEN 'hot' ELSE 'p' || n END, n % 1000, 1000000, 1000000000, now(), now()
    FROM generate_series(0, {rows} - 1) n
    """,
    "inventory_reservations": """
    INSERT INTO inventory_reservations (reservation_id, product_id, order_id, quantity, status, release_reason, ttl_us,
        ttl_given, created_at, expires_at, updated_at, tidy_at)
    SELECT CASE n WHEN 603 THEN '{known}' ELSE gen_random_uuid() END, x.name,
        CASE x.name WHEN 'hot' THEN 'hot' ELSE 'o' || n / 10 END, 1,
        x.status, CASE x.status WHEN 'RELEASED' THEN 'EXPIRED' END, 1, true, now(), x.expiry, now(), x.expiry
    FROM generate_series(0, {rows} - 1) n
    CROSS JOIN LATERAL (
        SELECT CASE WHEN n < {expired} THEN 'p0' WHEN n % 2 = 0 THEN 'hot' ELSE 'p' || n / 10 END AS name,
            CASE WHEN n < {expired} THEN 'RESERVED' ELSE (ARRAY['RESERVED', 'RELEASED', 'DEDUCTED'])[n % 3 + 1] END
                AS status,
            now() + CASE WHEN n < {expired} THEN interval '-1 hour' ELSE interval '1 hour' END AS expiry
    ) x
    """,
    "inventory_movements": """
    INSERT INTO inventory_movements (product_id, version, kind, available_delta, reserved_delta, available_after,
        reserved_after, request_id, line, occurred_at)
    SELECT CASE n % 2 WHEN 0 THEN 'hot' ELSE 'p' || n / 10 END, n + 1, 'ADD', 1, 0, n + 1, 0, gen_random_uuid(), 0,
        now()
    FROM generate_series(0, {rows} - 1) n
    """,
}

# Statements, and how many rows of our tables each may look at, in its own plan and those inside the functions it calls.
_CASES: dict[str, list[tuple[tuple[Any, ...], int]]] = {
    "stock": [((["p5", "p77777", HOT],), 3)],
    "reservations": [(([KNOWN], [""], [""], [0], [0], [0], [0]), 1)],
    "list_stock": [(("", 101), 101), (("p5", 1001), 1001)],
    # A page of every shelf up to the one asked for.
    "list_low_stock": [((10, "", 101), 5 * 101), ((0, "p5", 101), 101), ((LAST, "p5", 101), 15 * 101)],
    "list_reservations_of_order": [((HOT, None, 101), 101), ((HOT, ANY_ID, 201), 201), (("o55", None, 101), 10)],
    "list_reservations_of_product": [
        ((HOT, [status], key, 101), 101) for status in ("RESERVED", "RELEASED", "DEDUCTED") for key in (None, ANY_ID)
    ]
    + [((HOT, ["RESERVED", "RELEASED", "DEDUCTED"], ANY_ID, 101), 303), (("p5", ["RESERVED"], None, 101), 5)],
    "list_movements": [((HOT, LAST, 101), 101), ((HOT, 500_000, 1001), 1001), (("p5", LAST, 101), 5)],
    "feed": [
        (("0", "", 0, False, None, 500), 510),
        (("0", HOT, 500_001, True, None, 500), 510),
        (("0", "", 0, False, ["p5"], 500), 510),
        ((str(2**60), HOT, 500_001, False, None, 500), 1),
    ],
    "feed_now": [((), 1)],
    "initialize": [((["p5", "new"], [1, 1], [NEW, NEWER]), 10)],
    "change": [((["p5"], [1], ["ADD"], [1], [None], [None], [NEW], LAST), 10)],
    "reserve": [
        ((["p5"], [1], [1], ["o"], [1], [1], [True], [NEW], [NEW], [0], False), 10),
        ((["p5"], [1], [1], ["o"], [1], [1], [True], [NEW], [NEW], [0], True), 10),
        # More than there is: first the expired holds are taken back.
        (([SHORT], [1], [1], ["o"], [5000], [1], [True], [NEW], [NEW], [0], False), 4 * EXPIRED + 10),
    ],
    "tidy": [(([SHORT],), 4 * EXPIRED + 10)],
    # Also when fewer are due than one look may take.
    "expire": [((100, None), 600), ((2 * EXPIRED, None), 4 * EXPIRED + 10), ((2 * EXPIRED, 60.0), 10)],
    "overdue": [((None,), 10), ((60.0,), 10)],
    "locked": [(([0], ["p5"], [1], [KNOWN], [2], [HOT]), 1_010), (([], [], [], [], [0], ["o55"]), 40)],
    "set_aside": [((2 * EXPIRED, [], []), EXPIRED + 10), ((2 * EXPIRED, [SHORT], ["7"]), EXPIRED + 10)],
    "settle": [(([KNOWN], ["RELEASE"], [NEWER], careful), 10) for careful in (False, True)],
    "settle_orders": [
        ((["o55"], ["RELEASE"], [False], [NEW]), 100),
        ((["o55"], ["REACQUIRE"], [True], [NEW]), 200),
    ],
    "extend_orders": [((["o55"], [1], ["ttl 1 s, order"], [NEW], LAST // 2**20), 200)],
    "extend": [(([KNOWN], [1], ["ttl 1 s"], [NEWER], LAST // 2**20), 10)],
    "explain_stock": [(("p5", None, 20), 100)],
    # A product and at most one row of its ledger.
    "audit_range": [(("p5", 1000), 2 * 1000)],
    "audit": [(("p5", "p5"), 30)],
    "retain": [(("p4", 0, 20, 1000), 500), (("", 0, 1, 1000), 10_000)],
}


# The filling counts as the first test's, and others may be using the machine.
pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def million(postgres_server: str, template_database: str) -> Iterator[str]:
    """A database with a million rows in each table, which the tests do not change."""
    with _database(postgres_server, template_database) as (_, url):
        with ThreadPoolExecutor(len(_FILL)) as pool:
            list(pool.map(_fill, [url] * len(_FILL), *zip(*_FILL.items(), strict=True)))
        yield url


def _fill(url: str, table: str, statement: str) -> None:
    """Fill the table first and build its indexes then, which takes a third of the time."""
    with psycopg.connect(url, autocommit=True) as connection:
        ((key, definition),) = connection.execute(
            "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint"
            " WHERE contype = 'p' AND conrelid = %s::regclass",
            (table,),
        ).fetchall()
        connection.execute(f"ALTER TABLE {table} DROP CONSTRAINT {key}".encode())
        connection.execute(f"ALTER TABLE {table} SET UNLOGGED".encode())
        indexes = connection.execute(
            "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = %s", (table,)
        ).fetchall()
        for name, _ in indexes:
            connection.execute(f"DROP INDEX {name}".encode())
        connection.execute("SET maintenance_work_mem = '256MB'")
        connection.execute(statement.format(rows=ROWS, expired=EXPIRED, known=KNOWN).encode())
        connection.execute(f"ALTER TABLE {table} ADD CONSTRAINT {key} {definition}".encode())
        for _, index in indexes:
            connection.execute(index)
        # As autovacuum would, so that the planner knows what there is.
        connection.execute(f"VACUUM ANALYZE {table}".encode())


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize(
    ("name", "values", "most"),
    [
        pytest.param(name, values, most, id=f"{name}-{number}")
        for name, cases in _CASES.items()
        for number, (values, most) in enumerate(cases)
    ],
)
def test_a_statement_looks_at_no_more_rows_than_it_needs(
    million: str, name: str, values: tuple[object, ...], most: int, mode: str
) -> None:
    with _explained(million, mode) as (connection, plans):
        connection.execute(query(name).encode(), values, prepare=True)
        connection.rollback()
    scans = [node for plan in plans for node in _nodes(plan) if node.get("Relation Name", "").startswith("inventory_")]
    story = json.dumps(scans, indent=1)
    assert scans
    assert not [node for node in scans if "Seq Scan" in node["Node Type"]], story
    assert sum(map(_rows, scans)) <= most, story


def test_of_a_long_ledger_an_explanation_compares_the_totals_alone(million: str) -> None:
    """Neither is right here: to look at each movement would find nearly all of them odd, too."""
    with psycopg.connect(million) as connection:
        explain = query("explain_stock").encode()
        ((*_, of_short),) = connection.execute(explain, ("p5", None, 1)).fetchall()
        ((*_, of_long),) = connection.execute(explain, (HOT, None, 1)).fetchall()
    assert any("do not follow" in sentence for sentence in of_short)
    told = ["the record has 1 available", "500000 were added, 0 removed and 0 deducted", "1000000 are reserved, but"]
    assert [next(text for text in told if sentence.startswith(text)) for sentence in of_long] == told


def test_the_auditor_of_plans_sees_a_table_read_from_end_to_end(million: str) -> None:
    with _explained(million, "force_custom_plan") as (connection, plans):
        connection.execute("SELECT FROM inventory_stock WHERE reserved_quantity = 7")
    (scan,) = [node for plan in plans for node in _nodes(plan) if "Relation Name" in node]
    assert "Seq Scan" in scan["Node Type"]
    assert _rows(scan) == pytest.approx(ROWS, rel=0.01)


@contextmanager
def _explained(url: str, mode: str) -> Iterator[tuple[psycopg.Connection[Any], list[dict[str, Any]]]]:
    """Give a connection, and the list in which the plans of what it ran appear, with those inside functions."""
    plans: list[dict[str, Any]] = []

    def collect(notice: psycopg.errors.Diagnostic) -> None:
        head, plan, text = (notice.message_primary or "").partition("plan:")
        if head.startswith("duration:") and plan:
            plans.append(json.loads(text)["Plan"])

    with psycopg.connect(url) as connection:
        connection.execute("LOAD 'auto_explain'")
        settings = {"log_min_duration": 0, "log_analyze": "on", "log_nested_statements": "on", "log_format": "json"}
        for name, value in settings.items():
            connection.execute(f"SET auto_explain.{name} = {value}".encode())
        connection.execute(f"SET plan_cache_mode = {mode}".encode())
        connection.execute("SET max_parallel_workers_per_gather = 0")
        connection.execute("SET client_min_messages = log")
        connection.add_notice_handler(collect)
        yield connection, plans


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from _nodes(below)


def _rows(node: dict[str, Any]) -> float:
    """Count the rows that a scan looked at, whether or not it gave them."""
    if node["Node Type"] == "ModifyTable":
        return 0
    looked_at = ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck")
    return sum(float(node.get(name, 0)) for name in looked_at) * float(node["Actual Loops"])

"""The audit finds whatever does not agree, says what, and leaves alone what is fine."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import termios
from typing import TYPE_CHECKING

import pytest
from tests.fixtures.ledger import audit as independent_audit
from tests.fixtures.ledgers import Ledgers
from tests.fixtures.serving import connected
from tests.fixtures.shop import stocked
from tests.fixtures.traffic import selling

from inventory_server.postgres import auditing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fixtures.serving import Serve

MISMATCH, UNFINISHED = 1, 3


@pytest.fixture
def ledgers(database_url: str) -> Iterator[Ledgers]:
    """Three products with everything that can happen to them, all in order."""
    with Ledgers(database_url) as ledgers:
        for product_id in ("teapot", "cup", "spoon"):
            ledgers.live_through(product_id)
        independent_audit(database_url)
        yield ledgers


def found(url: str) -> dict[str, list[str]]:
    findings: dict[str, list[str]] = {}
    with auditing.connect(url, 5) as connection:
        for step in auditing.audit(connection):
            for finding in step.findings:
                findings.setdefault(finding.product_id, []).append(finding.discrepancy)
    return findings


def command(url: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "inventory_server", "audit"],
        env={**os.environ, "INVENTORY_DATABASE_URL": url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_what_agrees_is_left_alone(ledgers: Ledgers) -> None:
    assert found(ledgers.url) == {}


def test_no_products_agree(database_url: str) -> None:
    assert found(database_url) == {}
    done = command(database_url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "audited 0 products: everything agrees\n")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("UPDATE inventory_stock SET available_quantity = available_quantity + 1", "the record has"),
        ("UPDATE inventory_stock SET reserved_quantity = reserved_quantity + 1", "are reserved, but the holds hold"),
        ("UPDATE inventory_stock SET version = version + 1", "the record has"),
        ("DELETE FROM inventory_stock", "but no record"),
        ("DELETE FROM inventory_movements", "the ledger has no movements"),
        ("DELETE FROM inventory_movements", "holds do not agree with their movements"),
        ("DELETE FROM inventory_movements WHERE version = 1", "1 movements do not follow"),
        ("DELETE FROM inventory_movements WHERE version = 3", "the first is version 4"),
        ("DELETE FROM inventory_movements WHERE version = 15", "the record has"),
        (
            "UPDATE inventory_movements SET available_after = available_after + 1 WHERE version = 3",
            "the first is version 3",
        ),
        ("UPDATE inventory_movements SET reserved_after = reserved_after + 1 WHERE version = 15", "do not follow"),
        (
            "UPDATE inventory_movements SET available_delta = available_delta - 1 WHERE version = 2",
            "do not follow",
        ),
        ("UPDATE inventory_movements SET kind = 'ADJUST' WHERE kind = 'DEDUCT'", "do not fit their kind"),
        ("UPDATE inventory_movements SET kind = 'INITIALIZE' WHERE version = 2", "the first is version 2"),
        ("UPDATE inventory_movements SET kind = 'RELEASE' WHERE kind = 'EXPIRE'", "holds do not agree"),
        ("UPDATE inventory_movements SET kind = 'DEDUCT' WHERE kind = 'REACQUIRE'", "do not fit their kind"),
        (
            "UPDATE inventory_movements SET reservation_id = gen_random_uuid() WHERE kind = 'RESERVE'",
            "holds do not agree",
        ),
        ("UPDATE inventory_movements SET order_id = 'other' WHERE kind = 'DEDUCT'", "1 holds do not agree"),
        ("UPDATE inventory_movements SET reservation_id = NULL WHERE kind = 'RELEASE'", "do not fit their kind"),
        ("DELETE FROM inventory_reservations WHERE status = 'RESERVED'", "the holds hold 0"),
        ("DELETE FROM inventory_reservations WHERE release_reason = 'EXPIRED'", "1 holds do not agree"),
        ("UPDATE inventory_reservations SET quantity = quantity + 1 WHERE status = 'RESERVED'", "the holds hold 7"),
        ("UPDATE inventory_reservations SET quantity = 1 WHERE release_reason = 'REQUESTED'", "1 holds do not agree"),
        ("UPDATE inventory_reservations SET order_id = 'other' WHERE status = 'RESERVED'", "1 holds do not agree"),
        ("UPDATE inventory_reservations SET status = 'DEDUCTED' WHERE status = 'RESERVED'", "the holds hold 0"),
        (
            "UPDATE inventory_reservations SET release_reason = 'EXPIRED' WHERE release_reason = 'REQUESTED'",
            "1 holds do not agree",
        ),
    ],
)
def test_what_somebody_changed_by_hand_is_found(ledgers: Ledgers, change: str, says: str) -> None:
    condition = "AND product_id = 'cup'" if "WHERE" in change else "WHERE product_id = 'cup'"
    ledgers.run(f"{change} {condition}")
    findings = found(ledgers.url)
    assert set(findings) == {"cup"}
    assert any(says in finding for finding in findings["cup"]), findings
    with pytest.raises(AssertionError):
        independent_audit(ledgers.url)


@pytest.mark.parametrize("product_id", ["a", "d", "z", "\U0010ffff" * 255])
def test_what_is_left_of_a_product_that_nobody_knows_is_found(ledgers: Ledgers, product_id: str) -> None:
    ledgers.run(
        "UPDATE inventory_reservations SET product_id = %s WHERE order_id = 'open' AND product_id = 'cup'", [product_id]
    )
    assert found(ledgers.url)[product_id] == [
        "there are movements or holds, but no record",
        f"1 holds do not agree with their movements, such as {_open_hold(ledgers, product_id)}",
    ]


def _open_hold(ledgers: Ledgers, product_id: str) -> str:
    query = "SELECT reservation_id::text FROM inventory_reservations WHERE product_id = %s"
    ((hold,),) = ledgers.run(query, [product_id])
    return str(hold)


@pytest.mark.parametrize(("products", "movements"), [(1, 10**6), (2, 10**6), (1000, 1), (1000, 40)])
def test_every_product_is_audited_once_however_it_is_cut_into_steps(
    ledgers: Ledgers, monkeypatch: pytest.MonkeyPatch, products: int, movements: int
) -> None:
    monkeypatch.setattr(auditing, "_PRODUCTS_MAX", products)
    monkeypatch.setattr(auditing, "_MOVEMENTS_MAX", movements)
    ledgers.run("UPDATE inventory_stock SET version = version + 1")
    with auditing.connect(ledgers.url, 5) as connection:
        steps = list(auditing.audit(connection))
    assert sum(step.products for step in steps) == 3
    assert [finding.product_id for step in steps for finding in step.findings] == ["cup", "spoon", "teapot"]
    assert len(steps) > 1


def test_the_command_lists_what_does_not_agree(ledgers: Ledgers) -> None:
    done = command(ledgers.url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "audited 3 products: everything agrees\n")
    ledgers.run("UPDATE inventory_stock SET version = version + 1 WHERE product_id <> 'spoon'")
    done = command(ledgers.url)
    assert (done.returncode, done.stderr) == (MISMATCH, "audited 3 products: 2 disagreements\n")
    assert [line.partition(": the record has")[0] for line in done.stdout.splitlines()] == ["cup", "teapot"]


def test_the_command_says_why_it_could_not_tell(empty_database_url: str) -> None:
    done = command(empty_database_url)
    assert (done.returncode, done.stdout) == (UNFINISHED, "")
    assert "inventory-server migrate" in done.stderr
    done = command("postgresql://nobody@127.0.0.1:1/nothing")
    assert (done.returncode, done.stdout) == (UNFINISHED, "")
    assert done.stderr.startswith("inventory-server: PostgreSQL ended the audit: ")


def test_a_terminal_sees_a_bar(ledgers: Ledgers) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "inventory_server", "audit"],
            env={**os.environ, "INVENTORY_DATABASE_URL": ledgers.url},
            stdout=subprocess.PIPE,
            stderr=theirs,
            timeout=60,
            check=True,
        )
        shown = os.read(ours, 100_000).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.stdout == b""
    assert "3/3" in shown
    assert "audited 3 products: everything agrees" in shown


def test_a_live_service_agrees_at_every_moment(database_url: str, serve: Serve) -> None:
    server = serve(database_url)
    with connected(server) as client, selling(client, stocked(client, 10**6)) as promises:
        rounds = []
        for _ in range(20):
            assert found(database_url) == {}
            rounds.append(promises.rounds)
    assert rounds[-1] > rounds[0]
    assert command(database_url).returncode == 0

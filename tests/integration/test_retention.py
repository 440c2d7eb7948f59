"""What ended long ago is forgotten, a little at a time, and every unit stays accounted for."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

import grpc
import psycopg
import pytest
from tests.fixtures.ledger import AuditFailed
from tests.fixtures.ledger import audit as independent_audit
from tests.fixtures.ledgers import Ledgers
from tests.fixtures.refusals import check_wire, refused
from tests.fixtures.serving import connected
from tests.fixtures.shop import LONG, balance, stocked
from tests.fixtures.traffic import selling
from tests.fixtures.waiting import eventually

from inventory_client import RequestIdConflict
from inventory_client.proto.inventory.v1 import inventory_pb2 as pb
from inventory_client.proto.inventory.v1.inventory_pb2_grpc import InventoryServiceStub
from inventory_server.postgres import auditing
from inventory_server.postgres.database import Database
from inventory_server.postgres.retaining import Retained, RetentionRepository
from inventory_server.retention import RetentionWorker
from inventory_server.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fixtures.serving import Serve

HOUR = 3600
SOLD = (pb.RESERVATION_STATUS_DEDUCTED, pb.RELEASE_REASON_UNSPECIFIED)
GIVEN_BACK = (pb.RESERVATION_STATUS_RELEASED, pb.RELEASE_REASON_REQUESTED)
EXPIRED = (pb.RESERVATION_STATUS_RELEASED, pb.RELEASE_REASON_EXPIRED)
OPEN = (pb.RESERVATION_STATUS_RESERVED, pb.RELEASE_REASON_UNSPECIFIED)


@pytest.fixture
def ledgers(database_url: str) -> Iterator[Ledgers]:
    with Ledgers(database_url) as ledgers:
        yield ledgers


def agrees(url: str) -> None:
    """Both auditors are content."""
    with auditing.connect(url, 5) as connection:
        assert [step.findings for step in auditing.audit(connection) if step.findings] == []
    independent_audit(url)


def retain(url: str, keep: float = HOUR, *, rounds: int = 1) -> list[Retained | None]:
    """Run the worker's batches one after the other."""

    async def run() -> list[Retained | None]:
        database = Database(url, Settings(database_url=url), size=1, name="retention")
        await database.open()
        try:
            worker = RetentionWorker(RetentionRepository(database), keep, 1)
            return [await worker.run_once() for _ in range(rounds)]
        finally:
            await database.close()

    return asyncio.run(run())


def step(ledgers: Ledgers, rows_max: int, keep_us: int = HOUR * 1_000_000) -> tuple[bool, int, int]:
    ((last, movements, holds),) = ledgers.run(
        "SELECT last, movements_removed, holds_removed FROM inventory_retain_v1('', %s, 1000, %s)", (keep_us, rows_max)
    )
    return last, movements, holds


def age(ledgers: Ledgers, hours: int = 2) -> None:
    """Let hours pass."""
    passed = f"- interval '{hours} hours'"
    ledgers.run(f"UPDATE inventory_movements SET occurred_at = occurred_at {passed}")
    ledgers.run(f"UPDATE inventory_stock SET created_at = created_at {passed}, updated_at = updated_at {passed}")
    ledgers.run(
        f"UPDATE inventory_reservations SET created_at = created_at {passed}, updated_at = updated_at {passed},"
        f" expires_at = CASE status WHEN 'RESERVED' THEN expires_at ELSE expires_at {passed} END"
    )


def removed(done: list[Retained | None]) -> tuple[int, int]:
    return sum(each.movements for each in done if each), sum(each.holds for each in done if each)


def test_what_is_younger_stays(ledgers: Ledgers) -> None:
    ledgers.live_through("teapot")
    assert removed(retain(ledgers.url)) == (0, 0)
    assert (ledgers.count("movements"), ledgers.count("reservations")) == (15, 5)


def test_what_is_over_goes_up_to_the_first_hold_that_is_open(ledgers: Ledgers) -> None:
    ledgers.live_through("teapot")
    age(ledgers)
    assert removed(retain(ledgers.url, rounds=3)) == (12, 4)
    assert ledgers.kinds("teapot") == ["CARRY_FORWARD", "RESERVE", "EXTEND"]
    assert ledgers.count("reservations") == 1
    ((carried,),) = ledgers.run("SELECT carried FROM inventory_movements WHERE kind = 'CARRY_FORWARD'")
    assert carried == {
        "added": 122,
        "removed": 5,
        "deducted": 7,
        "holds_sold": 2,
        "units_sold": 7,
        "holds_released": 1,
        "units_released": 2,
        "holds_expired": 1,
        "units_expired": 5,
    }
    agrees(ledgers.url)


@pytest.mark.parametrize("rows_max", [2, 3, 4, 5, 7, 1000])
def test_the_audit_holds_after_every_batch_however_small(ledgers: Ledgers, rows_max: int) -> None:
    for product_id in ("cup", "teapot"):
        first = ledgers.reserve_after_stocking(product_id)
        second = ledgers.reserve(product_id, 3)
        ledgers.settle(first, "DEDUCT")
        third = ledgers.reserve(product_id, 4)
        ledgers.expire(second)
        ledgers.extend(third)
        ledgers.settle(second, "REACQUIRE")
        ledgers.settle(third, "RELEASE")
    age(ledgers)
    for _ in range(40):
        last, movements, _ = step(ledgers, rows_max)
        agrees(ledgers.url)
        if last and not movements:
            break
    assert ledgers.kinds("cup") == ledgers.kinds("teapot") == ["CARRY_FORWARD"]
    assert ledgers.count("reservations") == 0


def test_life_goes_on_after_what_was_carried_forward(ledgers: Ledgers) -> None:
    hold = ledgers.live_through("teapot")
    for _ in range(3):
        age(ledgers)
        step(ledgers, 1000)
        agrees(ledgers.url)
        ledgers.change("teapot", "ADD", 1)
        ledgers.settle(ledgers.reserve("teapot", 1), "DEDUCT")
        agrees(ledgers.url)
    ledgers.settle(hold, "RELEASE")
    age(ledgers)
    step(ledgers, 1000)
    agrees(ledgers.url)
    assert ledgers.kinds("teapot") == ["CARRY_FORWARD"]
    assert ledgers.count("reservations") == 0


def test_a_late_hold_that_is_sold_after_its_first_movements_went_is_accounted_for(ledgers: Ledgers) -> None:
    late = ledgers.reserve_after_stocking("teapot")
    ledgers.expire(late)
    age(ledgers)
    # As much as leaves its EXPIRE, with which the hold itself would go.
    assert step(ledgers, 2) == (False, 1, 0)
    assert ledgers.kinds("teapot") == ["CARRY_FORWARD", "EXPIRE"]
    agrees(ledgers.url)
    assert ledgers.settle(late, "REACQUIRE") == "DONE"
    agrees(ledgers.url)
    step(ledgers, 1000)
    assert ledgers.kinds("teapot") == ["CARRY_FORWARD", "EXPIRE", "REACQUIRE"]
    age(ledgers)
    step(ledgers, 1000)
    assert (ledgers.kinds("teapot"), ledgers.count("reservations")) == (["CARRY_FORWARD"], 0)
    agrees(ledgers.url)


def test_a_hold_that_ended_lately_keeps_what_is_older(ledgers: Ledgers) -> None:
    hold = ledgers.reserve_after_stocking("teapot")
    ledgers.change("teapot", "ADD", 1)
    ledgers.change("teapot", "ADD", 1)
    age(ledgers)
    ledgers.settle(hold, "DEDUCT")
    assert step(ledgers, 1000) == (True, 0, 0)
    assert ledgers.kinds("teapot") == ["INITIALIZE", "RESERVE", "ADD", "ADD", "DEDUCT"]


def test_it_waits_for_nobody_and_takes_what_it_can(ledgers: Ledgers) -> None:
    ledgers.initialize("teapot", 100)
    ledgers.change("teapot", "ADD", 1)
    hold = ledgers.reserve("teapot", 1)
    ledgers.settle(hold, "DEDUCT")
    age(ledgers)
    with psycopg.connect(ledgers.url) as somebody:
        somebody.execute("SELECT FROM inventory_reservations WHERE reservation_id = %s FOR UPDATE", (hold,))
        somebody.execute("SELECT FROM inventory_stock FOR UPDATE")
        ledgers.run("SET lock_timeout = '1ms'")
        assert step(ledgers, 1000) == (True, 1, 0)
        assert ledgers.kinds("teapot") == ["CARRY_FORWARD", "RESERVE", "DEDUCT"]
        agrees(ledgers.url)
    assert step(ledgers, 1000) == (True, 2, 1)


def test_one_server_at_a_time_does_it(ledgers: Ledgers) -> None:
    ledgers.live_through("teapot")
    age(ledgers)
    with psycopg.connect(ledgers.url) as other:
        other.execute("SELECT inventory_retain_v1('', 0, 0, 1000)")
        assert retain(ledgers.url) == [None]
    assert removed(retain(ledgers.url)) == (12, 4)


def test_the_worker_goes_round_all_products(ledgers: Ledgers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inventory_server.retention._PRODUCTS_MAX", 2)
    monkeypatch.setattr("inventory_server.retention._MOVEMENTS_MAX", 8)
    for number in range(5):
        ledgers.live_through(f"teapot-{number}")
    age(ledgers)
    done = retain(ledgers.url, rounds=40)
    assert removed(done) == (5 * 12, 5 * 4)
    assert all(each is not None and each.movements <= 8 for each in done)
    assert sum(each.last for each in done if each) > 1
    agrees(ledgers.url)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("UPDATE inventory_movements SET carried = carried || '{\"added\": 1}' WHERE kind = 'CARRY_FORWARD'", "added"),
        ("UPDATE inventory_movements SET carried = NULL WHERE kind = 'CARRY_FORWARD'", "fit"),
        ("UPDATE inventory_movements SET reserved_delta = 1 WHERE kind = 'CARRY_FORWARD'", "follow"),
        ("DELETE FROM inventory_movements WHERE kind = 'CARRY_FORWARD'", "follow"),
        ("DELETE FROM inventory_movements WHERE kind = 'RESERVE'", "holds do not agree"),
        ("UPDATE inventory_movements SET kind = 'CARRY_FORWARD' WHERE kind = 'EXTEND'", "follow"),
    ],
)
def test_what_was_carried_forward_is_audited_too(ledgers: Ledgers, change: str, says: str) -> None:
    ledgers.live_through("teapot")
    age(ledgers)
    step(ledgers, 1000)
    ledgers.run(change)
    with auditing.connect(ledgers.url, 5) as connection:
        findings = [finding.discrepancy for found in auditing.audit(connection) for finding in found.findings]
    assert any(says in finding for finding in findings), findings
    with pytest.raises((AuditFailed, KeyError)):
        independent_audit(ledgers.url)


def test_balances_are_explained_as_before_from_where_the_ledger_now_begins(
    ledgers: Ledgers, serve: Serve, database_url: str
) -> None:
    ledgers.live_through("teapot")
    age(ledgers)
    with grpc.insecure_channel(serve(database_url, expiry=False).address) as channel:
        stub = InventoryServiceStub(channel)
        before = stub.ExplainStock(pb.ExplainStockRequest(product_id="teapot", movements_max=2))
        long_ago = stub.ListMovements(pb.ListMovementsRequest(product_id="teapot")).movements[5].occurred_at
        step(ledgers, 1000)
        after = stub.ExplainStock(pb.ExplainStockRequest(product_id="teapot", movements_max=2))
        assert after == before
        holds = {(each.status, each.release_reason): (each.count, each.quantity) for each in after.holds}
        assert holds == {SOLD: (2, 7), GIVEN_BACK: (1, 2), EXPIRED: (1, 5), OPEN: (1, 6)}
        listed = stub.ListMovements(pb.ListMovementsRequest(product_id="teapot")).movements
        assert [movement.kind for movement in listed][-1] == pb.MOVEMENT_KIND_CARRY_FORWARD
        begin = stub.ExplainStock(pb.ExplainStockRequest(product_id="teapot", at=listed[-1].occurred_at))
        assert (begin.added_quantity, begin.removed_quantity, begin.deducted_quantity) == (122, 5, 7)
        assert begin.stock.version == 13
        with pytest.raises(grpc.RpcError) as raised:
            stub.ExplainStock(pb.ExplainStockRequest(product_id="teapot", at=long_ago))
        check_wire(raised.value, "VALIDATION_ERROR", {"http_status": "400", "fields": "at"})


@pytest.mark.parametrize("ended", [0, 1])
def test_an_order_that_lost_a_hold_is_no_replay_of_itself(
    ledgers: Ledgers, serve: Serve, database_url: str, ended: int
) -> None:
    with connected(serve(database_url, expiry=False)) as client:
        lines, request_id = [(stocked(client, 9), 2), (stocked(client, 9), 2)], str(uuid4())
        order = partial(client.reserve_order, "order", lines, ttl=LONG, request_id=request_id)
        holds = order()
        client.deduct_reservation(holds[ended].reservation_id)
        assert order() == holds
        age(ledgers)
        assert removed(retain(database_url))[1] == 1
        refused(RequestIdConflict, order, request_id=request_id)
        assert [balance(client, product_id) for product_id, _ in lines][1 - ended] == (7, 2)
    agrees(database_url)


def test_a_server_forgets_what_is_older_than_it_was_told_and_nothing_when_told_nothing(
    ledgers: Ledgers, serve: Serve, database_url: str
) -> None:
    ledgers.live_through("teapot")
    age(ledgers, 49)
    serve(database_url).stop()
    assert ledgers.count("movements") == 15
    server = serve(database_url, retention="2d")
    eventually(lambda: ledgers.count("movements") == 3)
    ledgers.live_through("cup")
    agrees(database_url)
    server.terminate()
    assert server.wait() == 0
    assert ledgers.count("movements") == 3 + 15
    assert "retention removed 12 movements and 4 holds" in server.log


def test_units_stay_accounted_for_while_everybody_sells_and_the_past_is_forgotten(
    database_url: str, serve: Serve
) -> None:
    server = serve(database_url)
    with connected(server) as client:
        product_id = stocked(client, 10**6)
        with selling(client, product_id) as promises:
            gone = 0
            for _ in range(15):
                began = promises.rounds
                eventually(lambda began=began: promises.rounds > began + 20)  # type: ignore[misc]
                # What ended a moment ago counts as old, so that batches and sales are about the same rows.
                gone += removed(retain(database_url, 0.05, rounds=3))[0]
                agrees(database_url)
        assert promises.errors == []
        assert gone > promises.rounds // 2
        retain(database_url, 0, rounds=20)
        agrees(database_url)
        available, reserved = balance(client, product_id)
        with grpc.insecure_channel(server.address) as channel:
            explained = InventoryServiceStub(channel).ExplainStock(pb.ExplainStockRequest(product_id=product_id))
        assert (reserved, explained.consistent) == (0, True)
        assert explained.added_quantity - explained.deducted_quantity == available

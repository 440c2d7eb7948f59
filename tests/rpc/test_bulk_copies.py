"""Bulk calls whose items share a request id or a hold: what each comes to, and how few statements that takes."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from tests.fixtures.bulk import item, reasons
from tests.fixtures.carts import rows
from tests.fixtures.ledger import audit
from tests.fixtures.scraping import Metered
from tests.fixtures.shop import balance, expire, fresh, held, locked, stocked, waiting
from tests.fixtures.waiting import at_once, eventually

from inventory_client import (
    InventoryClient,
    LatePolicy,
    RequestIdConflict,
    Reservation,
    ReserveItem,
    SettleItem,
    SettlementAction,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fixtures.serving import Connect, Serve, Server

RELEASE, DEDUCT = SettlementAction.RELEASE, SettlementAction.DEDUCT
REACQUIRE = LatePolicy.REACQUIRE
pytestmark = pytest.mark.parametrize("connect", ["sync"], indirect=True)


class Counted:
    """A server of the test's own, a client of it, and how many statements of a name it has run."""

    def __init__(self, database_url: str, serve: Serve, connect: Connect) -> None:
        self._metered = Metered(serve, database_url, expiry=False)
        self.server = self._metered.server
        self.client: InventoryClient = connect(self.server)

    def total(self, name: str, **labels: str) -> float:
        return self._metered.scrape().total(name, **labels)

    def statements(self, name: str, act: Callable[[], object]) -> float:
        """Count the statements of a name that an act takes."""

        def count() -> float:
            return self.total("inventory_database_statement_duration_seconds_count", statement=name)

        before = count()
        act()
        return count() - before


@pytest.fixture
def counted(database_url: str, serve: Serve, connect: Connect) -> Counted:
    return Counted(database_url, serve, connect)


def used_ids(client: InventoryClient, count: int) -> list[str]:
    """Give ids of requests that ended holds."""
    product_id = stocked(client, count)
    made = client.batch_reserve_stock([item(product_id) for _ in range(count)])
    items = [SettleItem(hold.reservation_id, DEDUCT) for hold in made if isinstance(hold, Reservation)]
    assert reasons(client.batch_settle_reservations(items)) == ["DONE"] * count
    return [str(each.request_id) for each in items]


def test_request_ids_used_for_something_else_cost_a_call_two_statements_however_many(counted: Counted) -> None:
    client = counted.client
    product_id, used = stocked(client, 300), used_ids(client, 300)
    items = [item(product_id, request_id=used[n] if n % 2 else None) for n in range(300)]
    outcomes: list[str] = []
    assert counted.statements("reserve", lambda: outcomes.extend(reasons(client.batch_reserve_stock(items)))) == 2
    assert outcomes == ["DONE", "REQUEST_ID_CONFLICT"] * 150
    assert balance(client, product_id) == (150, 150)
    audit(counted.server.database_url)


def test_single_requests_under_used_ids_cost_a_batch_two_statements_however_many(counted: Counted) -> None:
    client = counted.client
    product_id, used = stocked(client, 10), used_ids(client, 48)

    def reserve(request_id: str | None) -> Callable[[], Reservation]:
        return lambda: client.reserve_stock(product_id, fresh("order"), 1, request_id=request_id)

    def batches() -> float:
        return counted.total("inventory_batch_size_count", operation="reserve")

    before, answers = batches(), list[object]()
    calls = [*map(reserve, used), reserve(None)]
    statements = counted.statements("reserve", lambda: answers.extend(at_once(calls)))
    assert {type(answer) for answer in answers[:-1]} == {RequestIdConflict}
    assert isinstance(answers[-1], Reservation)
    assert statements <= 2 * (batches() - before)


def test_copies_of_an_item_are_asked_once_and_share_its_outcome(counted: Counted) -> None:
    client = counted.client
    product_id = stocked(client, 10)
    same, short = item(product_id, 2), item(product_id, 20)
    items = [same, short] * 200
    outcomes: list[object] = []
    assert counted.statements("reserve", lambda: outcomes.extend(client.batch_reserve_stock(items))) == 1
    assert reasons(outcomes) == ["DONE", "INSUFFICIENT_STOCK"] * 200
    assert set(outcomes[::2]) == {client.get_reservation(str(same.request_id))}
    assert balance(client, product_id) == (8, 2)


def test_of_items_under_one_request_id_the_first_that_can_be_made_has_it(counted: Counted) -> None:
    client = counted.client
    product_id = stocked(client, 10)
    first = item(product_id, 11)
    others = [dataclasses.replace(first, quantity=quantity) for quantity in (12, 3, 2, 3)]
    many = [dataclasses.replace(first, order_id=fresh("order"), quantity=1) for _ in range(300)]
    outcomes: list[object] = []
    items = [first, *others, *many, item(product_id, 7)]
    assert counted.statements("reserve", lambda: outcomes.extend(client.batch_reserve_stock(items))) == 1
    fates = reasons(outcomes)
    assert fates[:5] == ["INSUFFICIENT_STOCK"] * 2 + ["DONE", "REQUEST_ID_CONFLICT", "DONE"]
    assert fates[5:] == ["REQUEST_ID_CONFLICT"] * 300 + ["DONE"]
    assert outcomes[2] == outcomes[4]
    again = client.batch_reserve_stock([first, others[1], many[0]])
    assert reasons(again) == ["REQUEST_ID_CONFLICT", "DONE", "REQUEST_ID_CONFLICT"]
    assert balance(client, product_id) == (0, 10)
    audit(counted.server.database_url)


def test_a_hold_that_a_call_ends_many_times_takes_one_statement_and_the_first_decides(counted: Counted) -> None:
    client = counted.client
    hold = held(client, quantity=2)
    first = SettleItem(hold.reservation_id, RELEASE)
    items = [first, *[SettleItem(hold.reservation_id, (DEDUCT, RELEASE)[n % 2]) for n in range(300)]]
    items += [first, SettleItem(hold.reservation_id, DEDUCT, request_id=first.request_id)]
    outcomes: list[object] = []
    assert counted.statements("settle", lambda: outcomes.extend(client.batch_settle_reservations(items))) == 1
    assert reasons(outcomes) == [
        "DONE",
        *["RESERVATION_ALREADY_RELEASED"] * 300,
        "DONE",
        "REQUEST_ID_CONFLICT",
    ]
    assert balance(client, hold.product_id) == (2, 0)
    audit(counted.server.database_url)


def test_items_find_a_hold_as_those_before_them_left_it(counted: Counted) -> None:
    client = counted.client
    used = used_ids(client, 1)[0]
    product_id = stocked(client, 10)
    late, live, neighbour = (held(client, product_id, quantity) for quantity in (2, 3, 4))
    expire(counted.server.database_url, late.reservation_id)
    outcomes = client.batch_settle_reservations(
        [
            SettleItem(late.reservation_id, DEDUCT),
            SettleItem(live.reservation_id, DEDUCT, request_id=used),
            SettleItem(neighbour.reservation_id, RELEASE),
            SettleItem(late.reservation_id, DEDUCT, REACQUIRE),
            SettleItem(live.reservation_id, RELEASE),
            SettleItem(late.reservation_id, RELEASE),
            SettleItem(late.reservation_id, DEDUCT, REACQUIRE),
            SettleItem(live.reservation_id, DEDUCT),
        ]
    )
    assert reasons(outcomes) == [
        "RESERVATION_ALREADY_RELEASED",
        "REQUEST_ID_CONFLICT",
        "DONE",
        "DONE",
        "DONE",
        "RESERVATION_ALREADY_DEDUCTED",
        "RESERVATION_ALREADY_DEDUCTED",
        "RESERVATION_ALREADY_RELEASED",
    ]
    assert [client.get_reservation(each.reservation_id).status for each in (late, live, neighbour)] == [
        "DEDUCTED",
        "RELEASED",
        "RELEASED",
    ]
    query = "SELECT kind FROM inventory_movements WHERE reservation_id = %s ORDER BY version"
    assert rows(counted.server, query, late.reservation_id) == [("RESERVE",), ("EXPIRE",), ("REACQUIRE",)]
    assert client.get_reservation(late.reservation_id) == outcomes[3]
    assert balance(client, product_id) == (8, 0)
    audit(counted.server.database_url)


def test_holds_that_a_call_ends_under_one_request_id_take_one_statement_and_the_first_has_it(counted: Counted) -> None:
    client = counted.client
    product_id, request_id = stocked(client, 300), str(uuid4())
    made = client.batch_reserve_stock([item(product_id) for _ in range(300)])
    items = [
        SettleItem(hold.reservation_id, DEDUCT, request_id=request_id) for hold in made if isinstance(hold, Reservation)
    ]
    outcomes: list[object] = []
    assert counted.statements("settle", lambda: outcomes.extend(client.batch_settle_reservations(items))) == 1
    assert reasons(outcomes) == ["DONE"] + ["REQUEST_ID_CONFLICT"] * 299
    assert balance(client, product_id) == (0, 299)


def test_late_payments_of_one_hold_take_three_statements_however_many_and_one_gets_it(counted: Counted) -> None:
    client = counted.client
    product_id = stocked(client, 2)
    late = held(client, product_id, 2)
    expire(counted.server.database_url, late.reservation_id)
    client.release_reservation(held(client, product_id, 1).reservation_id)
    other = held(client, product_id, 2)
    expire(counted.server.database_url, other.reservation_id)
    items = [SettleItem(late.reservation_id, DEDUCT, REACQUIRE) for _ in range(100)]
    outcomes: list[object] = []
    assert counted.statements("settle", lambda: outcomes.extend(client.batch_settle_reservations(items))) == 2
    assert reasons(outcomes) == ["DONE"] + ["RESERVATION_ALREADY_DEDUCTED"] * 99
    assert client.get_reservation(other.reservation_id).status == "RELEASED"
    assert balance(client, product_id) == (0, 0)
    audit(counted.server.database_url)


def test_balances_are_read_while_bulk_calls_wait_for_a_stuck_row(calm_server: Server, connect: Connect) -> None:
    client = connect(calm_server)
    hot, cold = stocked(client, 10), stocked(client, 10)

    def blocked() -> object:
        return client.batch_reserve_stock([ReserveItem(hot, "order", 1, timedelta(hours=1))])

    def read() -> object:
        eventually(lambda: waiting(calm_server.database_url) == 2)
        return client.batch_get_stock([cold]), waiting(calm_server.database_url)

    with locked(calm_server.database_url, hot):
        *_, told = at_once([blocked, blocked, read])
    assert told == ((client.get_stock(cold),), 2)

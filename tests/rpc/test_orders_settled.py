"""ReleaseOrder and DeductOrder: every hold of the order in one transaction, and never half of them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest
from tests.fixtures.bulk import item, reasons
from tests.fixtures.carts import cart, ids, ledger, rows
from tests.fixtures.entries import Entries
from tests.fixtures.refusals import refused
from tests.fixtures.shop import LONG, balance, expire, fresh, held, stocked
from tests.fixtures.waiting import at_once, eventually

from inventory_client import (
    InvalidOrderId,
    InvalidStockState,
    InventoryClient,
    InventoryError,
    ReleaseReason,
    Reservation,
    ReservationAlreadyDeducted,
    ReservationAlreadyReleased,
    ReservationNotFound,
    ReservationStatus,
    SettleItem,
    SettlementAction,
    ValidationError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tests.fixtures.serving import Connect, Server

SETTLED = {"release_order": (ReservationStatus.RELEASED, 1), "deduct_order": (ReservationStatus.DEDUCTED, 0)}
both = pytest.mark.parametrize("action", SETTLED)
synchronous = pytest.mark.parametrize("connect", ["sync"], indirect=True)


def statuses(client: InventoryClient, holds: Iterable[Reservation]) -> list[str]:
    return [client.get_reservation(hold.reservation_id).status for hold in holds]


@both
def test_every_hold_of_an_order_ends_at_one_moment(client: InventoryClient, server: Server, action: str) -> None:
    order_id, holds = cart(client, 1, 2, 3)
    more = client.reserve_stock(stocked(client, 4), order_id, 4, ttl=LONG)
    stranger = held(client)
    holds = (*holds, more)
    entries = Entries(server.redis_url)
    assert all(entries.of(hold) for hold in holds)
    status, share = SETTLED[action]
    ended = getattr(client, action)(order_id)
    assert [hold.reservation_id for hold in ended] == ids(*holds)
    assert {hold.status for hold in ended} == {status}
    assert len({hold.updated_at for hold in ended}) == 1
    assert {hold.release_reason for hold in ended} == {ReleaseReason.REQUESTED if share else None}
    assert [client.get_reservation(hold.reservation_id) for hold in ended] == list(ended)
    for hold in holds:
        assert balance(client, hold.product_id) == (share * hold.quantity, 0)
    assert entries.gone(*holds)
    assert client.get_reservation(stranger.reservation_id) == stranger


@both
def test_an_order_without_holds_is_not_found(client: InventoryClient, action: str) -> None:
    order_id = fresh("order")
    refused(ReservationNotFound, partial(getattr(client, action), order_id), order_id=order_id)
    refused(InvalidOrderId, partial(getattr(client, action), ""), fields="order_id")
    refused(ValidationError, partial(getattr(client, action), "order", request_id="7"), fields="request_id")


@pytest.mark.parametrize("then", SETTLED)
@pytest.mark.parametrize("first", SETTLED)
def test_an_order_that_has_ended_stays_as_it_is(client: InventoryClient, first: str, then: str) -> None:
    order_id, holds = cart(client, 1, 2)
    getattr(client, first)(order_id)
    lowest = ids(*holds)[0]
    for _ in range(2):
        if first == "deduct_order":
            refused(ReservationAlreadyDeducted, partial(getattr(client, then), order_id), reservation_id=lowest)
        else:
            call = partial(getattr(client, then), order_id)
            refused(ReservationAlreadyReleased, call, reservation_id=lowest, release_reason="REQUESTED")
    assert statuses(client, holds) == [SETTLED[first][0]] * 2


def test_what_was_deducted_alone_is_left_alone(client: InventoryClient) -> None:
    for action, (status, share) in SETTLED.items():
        order_id, (first, second, third) = cart(client, 1, 2, 3)
        client.deduct_reservation(second.reservation_id)
        ended = getattr(client, action)(order_id)
        assert [hold.reservation_id for hold in ended] == ids(first, third)
        assert statuses(client, (first, second, third)) == [status, ReservationStatus.DEDUCTED, status]
        assert balance(client, second.product_id) == (0, 0)
        assert balance(client, third.product_id) == (3 * share, 0)


def test_a_release_gives_back_what_is_left_of_an_order(calm_client: InventoryClient, calm_server: Server) -> None:
    order_id, (released, expired, first, second) = cart(calm_client, 1, 2, 3, 4)
    calm_client.release_reservation(released.reservation_id)
    expire(calm_server.database_url, expired.reservation_id)
    ended = calm_client.release_order(order_id)
    # Those that had gone before are not this request's, tidied up or not.
    assert [hold.reservation_id for hold in ended] == ids(first, second)
    assert [balance(calm_client, hold.product_id)[0] for hold in (released, expired, first, second)] == [1, 2, 3, 4]
    assert ledger(calm_server, expired.product_id)[-1] == "EXPIRE"
    assert calm_client.get_reservation(expired.reservation_id).release_reason is ReleaseReason.EXPIRED


@pytest.mark.parametrize("tidied", [False, True])
def test_an_order_that_has_expired_is_told_so_whether_or_not_the_worker_came_by(
    calm_client: InventoryClient, calm_server: Server, tidied: bool
) -> None:
    order_id, holds = cart(calm_client, 1, 2)
    expire(calm_server.database_url, *ids(*holds))
    if tidied:
        for hold in holds:
            with pytest.raises(ReservationAlreadyReleased):
                calm_client.release_reservation(hold.reservation_id)
    for action in ("deduct_order", "release_order", "release_order"):
        refused(
            ReservationAlreadyReleased,
            partial(getattr(calm_client, action), order_id),
            reservation_id=ids(*holds)[0],
            release_reason="EXPIRED",
        )
    assert [balance(calm_client, hold.product_id) for hold in holds] == [(1, 0), (2, 0)]


@pytest.mark.parametrize("how", ["expired", "tidied", "released"])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_an_order_of_which_one_hold_is_gone_is_not_deducted_at_all(
    calm_client: InventoryClient, calm_server: Server, how: str, which: int
) -> None:
    order_id, holds = cart(calm_client, 1, 2, 3)
    gone = holds[which]
    if how != "released":
        expire(calm_server.database_url, gone.reservation_id)
    if how == "tidied":
        calm_client.reserve_stock(gone.product_id, "another", gone.quantity)
    if how == "released":
        calm_client.release_reservation(gone.reservation_id)
    before = [calm_client.get_stock(hold.product_id) for hold in holds]
    refused(
        ReservationAlreadyReleased,
        partial(calm_client.deduct_order, order_id),
        reservation_id=gone.reservation_id,
        release_reason="REQUESTED" if how == "released" else "EXPIRED",
    )
    assert [calm_client.get_stock(hold.product_id) for hold in holds] == before
    left = [hold for hold in holds if hold is not gone]
    assert [calm_client.get_reservation(hold.reservation_id) for hold in left] == left


@pytest.mark.parametrize("how", ["expired", "tidied", "released"])
def test_a_hold_that_was_made_again_does_not_stand_in_the_way_of_its_order(
    calm_client: InventoryClient, calm_server: Server, how: str
) -> None:
    order_id, (gone, other) = cart(calm_client, 2, 1)
    if how == "released":
        calm_client.release_reservation(gone.reservation_id)
    else:
        expire(calm_server.database_url, gone.reservation_id)
    if how == "expired":  # not even the new hold needs its units
        calm_client.add_stock(gone.product_id, 2)
    # An id of its own, which may be above or below the first one's.
    again = calm_client.reserve_stock(gone.product_id, order_id, 2, ttl=LONG, request_id=uuid4())
    sold = calm_client.deduct_order(order_id)
    assert [hold.reservation_id for hold in sold] == ids(other, again)
    lowest = ids(other, again)[0]
    for action in SETTLED:
        refused(ReservationAlreadyDeducted, partial(getattr(calm_client, action), order_id), reservation_id=lowest)


def test_a_later_hold_of_another_order_or_product_makes_up_for_nothing(
    calm_client: InventoryClient, calm_server: Server
) -> None:
    order_id, (gone, other) = cart(calm_client, 2, 1)
    expire(calm_server.database_url, gone.reservation_id)
    held(calm_client, gone.product_id, 2)
    calm_client.add_stock(other.product_id, 1)
    calm_client.reserve_stock(other.product_id, order_id, 1, ttl=LONG)
    refused(
        ReservationAlreadyReleased,
        partial(calm_client.deduct_order, order_id),
        reservation_id=gone.reservation_id,
        release_reason="EXPIRED",
    )


def test_two_lines_of_one_product_do_not_make_up_for_one_another(calm_client: InventoryClient) -> None:
    product_id, order_id = stocked(calm_client, 3), fresh("order")
    first, _ = calm_client.reserve_order(order_id, [(product_id, 1), (product_id, 2)], ttl=LONG)
    calm_client.release_reservation(first.reservation_id)
    refused(
        ReservationAlreadyReleased,
        partial(calm_client.deduct_order, order_id),
        reservation_id=first.reservation_id,
        release_reason="REQUESTED",
    )
    assert balance(calm_client, product_id) == (1, 2)


@both
def test_a_stock_row_that_holds_too_little_fails_the_whole_order_and_no_other(
    calm_client: InventoryClient, calm_server: Server, action: str
) -> None:
    order_id, holds = cart(calm_client, 1, 5, 3)
    others = [cart(calm_client, 1, 2) for _ in range(20)]
    change = "UPDATE inventory_stock SET reserved_quantity = reserved_quantity + %s WHERE product_id = %s"
    with psycopg.connect(calm_server.database_url, autocommit=True) as connection:
        connection.execute(change, (-1, holds[1].product_id))
        calls: list[Callable[[], Any]] = [partial(getattr(calm_client, action), each) for each, _ in others]
        calls.insert(10, partial(getattr(calm_client, action), order_id))
        answers = at_once(calls)
        connection.execute(change, (1, holds[1].product_id))
    broken = answers.pop(10)
    assert isinstance(broken, InvalidStockState)
    assert broken.metadata == {
        "reservation_id": holds[1].reservation_id,
        "product_id": holds[1].product_id,
        "quantity": "5",
        "reserved": "4",
        "http_status": "409",
    }
    assert [type(answer) for answer in answers] == [tuple] * 20
    assert [calm_client.get_reservation(hold.reservation_id) for hold in holds] == list(holds)
    assert len(getattr(calm_client, action)(order_id)) == 3


@synchronous
def test_of_all_that_race_for_an_order_one_ends_it_and_it_is_never_half_settled(
    client: InventoryClient, server: Server
) -> None:
    for number in range(15):
        order_id, holds = cart(client, 1, 2, 3)
        one = holds[number % 3]
        calls: list[Callable[[], object]] = [
            partial(client.deduct_order, order_id),
            partial(client.release_order, order_id),
            partial(client.release_reservation, one.reservation_id),
            partial(let_expire, server, holds[(number + 1) % 3]),
        ]
        deducted, *others = at_once(calls)
        if isinstance(deducted, InventoryError):
            assert isinstance(deducted, ReservationAlreadyReleased)
            assert ReservationStatus.DEDUCTED not in statuses(client, holds)
        else:
            assert statuses(client, holds) == [ReservationStatus.DEDUCTED] * 3
            assert [type(answer) for answer in others] == [ReservationAlreadyDeducted] * 2 + [type(None)]
        share = int(isinstance(deducted, InventoryError))
        for hold in holds:
            eventually(partial(settled, client, hold, share), within=5)


def let_expire(server: Server, hold: Reservation) -> None:
    with psycopg.connect(server.database_url) as connection:
        connection.execute(
            "UPDATE inventory_reservations SET expires_at = clock_timestamp(), tidy_at = clock_timestamp()"
            " WHERE reservation_id = %s AND status = 'RESERVED'",
            (hold.reservation_id,),
        )


def settled(client: InventoryClient, hold: Reservation, share: int) -> bool:
    return balance(client, hold.product_id) == (hold.quantity * share, 0)


@synchronous
def test_settlements_of_orders_and_of_single_holds_over_shared_products_all_end(
    calm_server: Server, twin_server: Server, connect: Connect
) -> None:
    clients = [connect(calm_server), connect(twin_server)]
    products = [stocked(clients[0], 200) for _ in range(3)]
    orders = [
        (order_id, clients[0].reserve_order(order_id, [(name, 1) for name in turned(products, number)], ttl=LONG))
        for number, order_id in enumerate(fresh("order") for _ in range(40))
    ]
    calls: list[Callable[[], object]] = []
    for number, (order_id, holds) in enumerate(orders):
        client = clients[number % 2]
        calls += [
            partial(client.deduct_order, order_id) if number % 4 < 2 else partial(client.release_order, order_id),
            partial(
                clients[1 - number % 2].batch_settle_reservations,
                [SettleItem(hold.reservation_id, SettlementAction.RELEASE) for hold in reversed(holds[:2])],
            ),
        ]
    answers = at_once(calls)
    allowed = {tuple, ReservationAlreadyReleased, ReservationAlreadyDeducted}
    assert {type(answer) for answer in answers} <= allowed
    for order_id, holds in orders:
        told = statuses(clients[0], holds)
        assert told.count("DEDUCTED") in {0, 3}, (order_id, told)
    query = "SELECT count(*) FROM inventory_reservations WHERE status = 'RESERVED' AND product_id = %s"
    for product_id in products:
        ((reserved,),) = rows(calm_server, query, product_id)
        assert balance(clients[0], product_id)[1] == reserved


def turned(products: list[str], number: int) -> list[str]:
    return products[number % 3 :] + products[: number % 3]


@synchronous
@both
def test_an_order_of_a_thousand_holds_ends_as_one_and_a_larger_one_by_its_holds(
    client: InventoryClient, action: str
) -> None:
    product_id = stocked(client, 2001)
    orders = [fresh("order"), fresh("order")]
    for order_id in orders:
        client.batch_reserve_stock([item(product_id, order_id=order_id) for _ in range(1000)])
    client.reserve_stock(product_id, orders[1], 1, ttl=LONG)
    assert len(getattr(client, action)(orders[0])) == 1000
    before = balance(client, product_id)
    refusal = refused(InvalidOrderId, lambda: getattr(client, action)(orders[1]), fields="order_id")
    assert "more than 1000 holds" in str(refusal)
    assert balance(client, product_id) == before
    holds = [hold.reservation_id for hold in client.list_reservations(order_id=orders[1])]
    word = SettlementAction.DEDUCT if action == "deduct_order" else SettlementAction.RELEASE
    for part in holds[:1000], holds[1000:]:
        assert set(reasons(client.batch_settle_reservations([SettleItem(each, word) for each in part]))) == {"DONE"}
    assert balance(client, product_id)[1] == 0

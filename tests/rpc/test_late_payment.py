"""DeductReservation of a hold that has expired: refused, or, with REACQUIRE, sold from what is free."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from tests.fixtures.carts import ledger
from tests.fixtures.entries import Entries
from tests.fixtures.refusals import refused
from tests.fixtures.shop import LONG, balance, expire, fresh, held, held_by_many, stocked
from tests.fixtures.waiting import at_once, eventually

from inventory_client import (
    InsufficientStock,
    InventoryClient,
    InventoryError,
    LatePolicy,
    ReleaseReason,
    Reservation,
    ReservationAlreadyDeducted,
    ReservationAlreadyReleased,
    ReservationNotFound,
    ReservationStatus,
    SettleItem,
    SettlementAction,
)
from inventory_client.proto.inventory.v1 import inventory_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fixtures.serving import Connect, Server

    from inventory_client.proto.inventory.v1.inventory_pb2_grpc import InventoryServiceStub

REACQUIRE = LatePolicy.REACQUIRE
synchronous = pytest.mark.parametrize("connect", ["sync"], indirect=True)


def late(client: InventoryClient, server: Server, quantity: int, *, product_id: str | None = None) -> Reservation:
    """Make a hold that has expired, of a product that has no more; nobody may have noticed yet."""
    hold = held(client, product_id, quantity)
    expire(server.database_url, hold.reservation_id)
    return hold


def tidied(client: InventoryClient, server: Server, quantity: int) -> Reservation:
    """Make a hold whose units went back, as if the worker had come by."""
    hold = late(client, server, quantity)
    with pytest.raises(ReservationAlreadyReleased):
        client.release_reservation(hold.reservation_id)
    return hold


def pay_late(client: InventoryClient, hold: Reservation, request_id: str | None = None) -> Reservation:
    return client.deduct_reservation(hold.reservation_id, late_policy=REACQUIRE, request_id=request_id)


def test_a_late_payment_is_refused_unless_somebody_asked_for_more(
    calm_client: InventoryClient, calm_server: Server
) -> None:
    for policy in (None, LatePolicy.STRICT):
        hold = late(calm_client, calm_server, 2)
        named: dict[str, Any] = {} if policy is None else {"late_policy": policy}
        refused(
            ReservationAlreadyReleased,
            partial(calm_client.deduct_reservation, hold.reservation_id, **named),
            reservation_id=hold.reservation_id,
            release_reason="EXPIRED",
        )
        assert balance(calm_client, hold.product_id) == (2, 0)


def test_a_hold_that_lives_is_deducted_as_ever(client: InventoryClient, server: Server) -> None:
    hold = held(client, quantity=2)
    assert pay_late(client, hold).status is ReservationStatus.DEDUCTED
    assert balance(client, hold.product_id) == (0, 0)
    assert ledger(server, hold.product_id)[-1] == "DEDUCT"


def test_its_own_units_are_sold_while_nobody_has_tidied_it_up(
    calm_client: InventoryClient, calm_server: Server
) -> None:
    hold = late(calm_client, calm_server, 2)
    sold = pay_late(calm_client, hold)
    assert (sold.status, sold.release_reason) == (ReservationStatus.DEDUCTED, None)
    assert balance(calm_client, hold.product_id) == (0, 0)
    assert calm_client.get_reservation(hold.reservation_id) == sold


def test_free_units_are_sold_once_it_was_tidied_up(client: InventoryClient, server: Server) -> None:
    hold = late(client, server, 2)
    eventually(lambda: balance(client, hold.product_id) == (2, 0))
    client.add_stock(hold.product_id, 5)
    sold = pay_late(client, hold)
    assert (sold.status, sold.release_reason, sold.quantity) == (ReservationStatus.DEDUCTED, None, 2)
    assert client.get_reservation(hold.reservation_id) == sold
    assert balance(client, hold.product_id) == (5, 0)
    assert ledger(server, hold.product_id)[-3:] == ["EXPIRE", "ADD", "REACQUIRE"]
    assert Entries(server.redis_url).gone(hold)


def test_units_that_were_sold_meanwhile_are_not_sold_again(calm_client: InventoryClient, calm_server: Server) -> None:
    hold = tidied(calm_client, calm_server, 3)
    other = held(calm_client, hold.product_id, 1)
    call = partial(pay_late, calm_client, hold)
    for _ in range(2):
        refused(InsufficientStock, call, product_id=hold.product_id, requested=3, available=2)
    assert calm_client.get_reservation(hold.reservation_id).release_reason is ReleaseReason.EXPIRED
    calm_client.deduct_reservation(other.reservation_id)
    refused(InsufficientStock, call, product_id=hold.product_id, requested=3, available=2)
    calm_client.add_stock(hold.product_id, 1)
    assert call().status is ReservationStatus.DEDUCTED
    assert balance(calm_client, hold.product_id) == (0, 0)


@pytest.mark.parametrize("bulk", [False, True])
def test_other_expired_holds_make_room_for_it(calm_client: InventoryClient, calm_server: Server, bulk: bool) -> None:
    hold = tidied(calm_client, calm_server, 3)
    others = [late(calm_client, calm_server, 1, product_id=hold.product_id) for _ in range(3)]
    assert balance(calm_client, hold.product_id) == (0, 3)
    if bulk:
        item = SettleItem(hold.reservation_id, SettlementAction.DEDUCT, REACQUIRE)
        (sold,) = calm_client.batch_settle_reservations([item])
    else:
        sold = pay_late(calm_client, hold)
    assert isinstance(sold, Reservation)
    assert sold.status is ReservationStatus.DEDUCTED
    assert balance(calm_client, hold.product_id) == (0, 0)
    for other in others:
        assert calm_client.get_reservation(other.reservation_id).release_reason is ReleaseReason.EXPIRED
        refused(
            InsufficientStock,
            partial(pay_late, calm_client, other),
            product_id=hold.product_id,
            requested=1,
            available=0,
        )


def test_so_do_more_of_them_than_one_statement_takes_back(calm_client: InventoryClient, calm_server: Server) -> None:
    hold = tidied(calm_client, calm_server, 4_500)
    expire(calm_server.database_url, *held_by_many(calm_client, hold.product_id, 4_500))
    assert pay_late(calm_client, hold).quantity == 4_500


def test_a_hold_that_was_given_back_on_request_is_never_taken_again(client: InventoryClient) -> None:
    hold = held(client, quantity=2)
    client.release_reservation(hold.reservation_id)
    refused(
        ReservationAlreadyReleased,
        partial(pay_late, client, hold),
        reservation_id=hold.reservation_id,
        release_reason="REQUESTED",
    )
    assert balance(client, hold.product_id) == (2, 0)
    unknown = str(uuid4())
    call = partial(client.deduct_reservation, unknown, late_policy=REACQUIRE)
    refused(ReservationNotFound, call, reservation_id=unknown)


def test_a_policy_that_nobody_knows_is_refused(client: InventoryClient, stub: InventoryServiceStub) -> None:
    hold = held(client)
    request = pb.DeductReservationRequest(reservation_id=hold.reservation_id)
    request.late_policy = 3  # type: ignore[assignment]
    with pytest.raises(Exception, match="late_policy must be STRICT or REACQUIRE"):
        stub.DeductReservation(request)
    assert client.get_reservation(hold.reservation_id) == hold


@pytest.mark.parametrize("was_tidied", [False, True])
def test_it_is_sold_once(calm_client: InventoryClient, calm_server: Server, was_tidied: bool) -> None:
    hold = (tidied if was_tidied else late)(calm_client, calm_server, 2)
    calm_client.add_stock(hold.product_id, 10)
    answers = at_once([partial(pay_late, calm_client, hold) for _ in range(30)])
    assert sum(isinstance(answer, Reservation) for answer in answers) == 1
    assert sum(isinstance(answer, ReservationAlreadyDeducted) for answer in answers) == 29
    assert balance(calm_client, hold.product_id) == (10, 0)
    call = partial(pay_late, calm_client, hold)
    refused(ReservationAlreadyDeducted, call, reservation_id=hold.reservation_id)


@pytest.mark.parametrize("was_tidied", [False, True])
def test_a_replay_answers_what_the_first_one_did(
    calm_client: InventoryClient, calm_server: Server, was_tidied: bool
) -> None:
    hold, request_id = (tidied if was_tidied else late)(calm_client, calm_server, 2), str(uuid4())
    sold = pay_late(calm_client, hold, request_id)
    calm_client.add_stock(hold.product_id, 10)
    assert [pay_late(calm_client, hold, request_id) for _ in range(2)] == [sold] * 2
    assert balance(calm_client, hold.product_id) == (10, 0)


def test_a_payment_that_was_refused_as_late_may_be_made_again_under_its_request_id(
    calm_client: InventoryClient, calm_server: Server
) -> None:
    hold, request_id = late(calm_client, calm_server, 2), str(uuid4())
    with pytest.raises(ReservationAlreadyReleased):
        calm_client.deduct_reservation(hold.reservation_id, request_id=request_id)
    assert pay_late(calm_client, hold, request_id).status is ReservationStatus.DEDUCTED


def test_an_order_may_be_paid_late_hold_by_hold(calm_client: InventoryClient, calm_server: Server) -> None:
    order_id, products = fresh("order"), [stocked(calm_client, 2), stocked(calm_client, 3)]
    holds = calm_client.reserve_order(order_id, [(products[0], 2), (products[1], 3)], ttl=LONG)
    expire(calm_server.database_url, holds[0].reservation_id)
    with pytest.raises(ReservationAlreadyReleased):
        calm_client.deduct_order(order_id)
    pay_late(calm_client, holds[0])
    assert [hold.reservation_id for hold in calm_client.deduct_order(order_id)] == [holds[1].reservation_id]


@synchronous
def test_late_payments_new_holds_and_the_worker_never_sell_a_unit_twice(
    client: InventoryClient, server: Server
) -> None:
    for _ in range(5):
        product_id = stocked(client, 30)
        holds = [held(client, product_id, 2) for _ in range(15)]
        expire(server.database_url, *(hold.reservation_id for hold in holds))
        calls: list[Callable[[], Reservation]] = [partial(pay_late, client, hold) for hold in holds]
        calls += [partial(client.reserve_stock, product_id, "new", 3, ttl=LONG) for _ in range(10)]
        answers = at_once(calls)
        refusals = {type(answer) for answer in answers if isinstance(answer, InventoryError)}
        assert refusals <= {InsufficientStock}
        made = [answer for answer in answers if isinstance(answer, Reservation)]
        sold = sum(hold.quantity for hold in made if hold.status is ReservationStatus.DEDUCTED)
        reserved = sum(hold.quantity for hold in made if hold.status is ReservationStatus.RESERVED)
        assert sold + reserved <= 30
        eventually(partial(settled, client, product_id, (30 - sold - reserved, reserved)), within=5)


def settled(client: InventoryClient, product_id: str, expected: tuple[int, int]) -> bool:
    return balance(client, product_id) == expected


@synchronous
def test_two_servers_sell_the_last_free_units_to_one_late_payer(
    calm_server: Server, twin_server: Server, connect: Connect
) -> None:
    clients = [connect(calm_server), connect(twin_server)]
    for _ in range(10):
        holds = [tidied(clients[0], calm_server, 2)]
        holds.append(held(clients[0], holds[0].product_id, 2))
        expire(calm_server.database_url, holds[1].reservation_id)
        answers = at_once([partial(pay_late, clients[n % 2], holds[n // 2 % 2]) for n in range(8)])
        assert sum(isinstance(answer, Reservation) for answer in answers) == 1
        assert balance(clients[0], holds[0].product_id) == (0, 0)

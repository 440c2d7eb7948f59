"""Whole orders that are paid late, that lost a line on purpose, or that ask for more time: all of it or nothing."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from tests.fixtures.carts import cart, ids, ledger, made_by, refused_lines
from tests.fixtures.entries import Entries
from tests.fixtures.refusals import refused
from tests.fixtures.shop import LONG, balance, expire, fresh, held, stocked
from tests.fixtures.waiting import at_once

from inventory_client import (
    InsufficientStock,
    InvalidOrderId,
    InventoryClient,
    InventoryError,
    LatePolicy,
    ReleaseReason,
    RequestIdConflict,
    Reservation,
    ReservationAlreadyDeducted,
    ReservationAlreadyReleased,
    ReservationNotFound,
    ReservationStatus,
    ValidationError,
)
from inventory_client.proto.inventory.v1 import inventory_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tests.fixtures.serving import Connect, Server

    from inventory_client.proto.inventory.v1.inventory_pb2_grpc import InventoryServiceStub

REACQUIRE = LatePolicy.REACQUIRE
DEDUCTED = ReservationStatus.DEDUCTED
synchronous = pytest.mark.parametrize("connect", ["sync"], indirect=True)


def pay_late(client: InventoryClient, order_id: str, **more: Any) -> tuple[Reservation, ...]:
    return client.deduct_order(order_id, late_policy=REACQUIRE, **more)


def tidy(client: InventoryClient, *holds: Reservation) -> None:
    """Give back the units of expired holds, as if the worker had come by."""
    for hold in holds:
        with pytest.raises(ReservationAlreadyReleased):
            client.release_reservation(hold.reservation_id)


def stocks(client: InventoryClient, holds: Iterable[Reservation]) -> list[tuple[int, int]]:
    return [balance(client, hold.product_id) for hold in holds]


@pytest.mark.parametrize("tidied", [0, 1, 3])
def test_an_order_that_has_expired_is_sold_whole_while_its_units_are_free(
    calm_client: InventoryClient, calm_server: Server, tidied: int
) -> None:
    order_id, holds = cart(calm_client, 1, 2, 3)
    expire(calm_server.database_url, *ids(*holds))
    tidy(calm_client, *holds[:tidied])
    sold = pay_late(calm_client, order_id)
    assert [hold.reservation_id for hold in sold] == ids(*holds)
    assert {(hold.status, hold.release_reason) for hold in sold} == {(DEDUCTED, None)}
    assert [calm_client.get_reservation(hold.reservation_id) for hold in sold] == list(sold)
    assert stocks(calm_client, holds) == [(0, 0)] * 3
    kinds = [ledger(calm_server, hold.product_id)[2:] for hold in holds]
    assert kinds == [["EXPIRE", "REACQUIRE"]] * tidied + [["DEDUCT"]] * (3 - tidied)
    lowest = ids(*holds)[0]
    refused(ReservationAlreadyDeducted, partial(pay_late, calm_client, order_id), reservation_id=lowest)


def test_an_order_in_time_is_sold_as_ever(client: InventoryClient, server: Server) -> None:
    order_id, holds = cart(client, 1, 2)
    assert [hold.reservation_id for hold in pay_late(client, order_id)] == ids(*holds)
    assert [ledger(server, hold.product_id) for hold in holds] == [["INITIALIZE", "RESERVE", "DEDUCT"]] * 2


def test_a_late_order_is_refused_unless_somebody_asked_for_more(
    calm_client: InventoryClient, calm_server: Server
) -> None:
    order_id, holds = cart(calm_client, 1, 2)
    expire(calm_server.database_url, holds[0].reservation_id)
    call = partial(calm_client.deduct_order, order_id)
    refused(
        ReservationAlreadyReleased, call, reservation_id=holds[0].reservation_id, release_reason=ReleaseReason.EXPIRED
    )
    assert len(pay_late(calm_client, order_id)) == 2


def test_every_product_that_is_short_is_named_and_nothing_is_sold(
    calm_client: InventoryClient, calm_server: Server
) -> None:
    order_id, holds = cart(calm_client, 1, 2, 3, 4)
    late = holds[:3]
    expire(calm_server.database_url, *ids(*late))
    tidy(calm_client, *late)
    taken = [held(calm_client, hold.product_id, 1) for hold in late[:2]]
    before = stocks(calm_client, holds)
    assert before == [(0, 1), (1, 1), (3, 0), (0, 4)]
    lines = sorted([(late[0].product_id, 1, 0), (late[1].product_id, 2, 1)])
    refused_lines(InsufficientStock, partial(pay_late, calm_client, order_id), *lines)
    assert stocks(calm_client, holds) == before
    assert calm_client.get_reservation(holds[3].reservation_id) == holds[3]
    for hold in taken:
        calm_client.release_reservation(hold.reservation_id)
    assert len(pay_late(calm_client, order_id)) == 4


def test_two_lines_of_one_product_count_together(calm_client: InventoryClient, calm_server: Server) -> None:
    product_id, order_id = stocked(calm_client, 5), fresh("order")
    holds = calm_client.reserve_order(order_id, [(product_id, 2), (product_id, 3)], ttl=LONG)
    expire(calm_server.database_url, *ids(*holds))
    tidy(calm_client, *holds)
    other = held(calm_client, product_id, 1)
    refused_lines(InsufficientStock, partial(pay_late, calm_client, order_id), (product_id, 5, 4))
    calm_client.release_reservation(other.reservation_id)
    assert len(pay_late(calm_client, order_id)) == 2


def test_expired_holds_of_others_make_room_for_it(calm_client: InventoryClient, calm_server: Server) -> None:
    order_id, holds = cart(calm_client, 1, 2)
    expire(calm_server.database_url, *ids(*holds))
    tidy(calm_client, *holds)
    others = [held(calm_client, hold.product_id, hold.quantity) for hold in holds]
    expire(calm_server.database_url, *ids(*others))
    assert len(pay_late(calm_client, order_id)) == 2
    gone = [calm_client.get_reservation(hold.reservation_id).release_reason for hold in others]
    assert gone == [ReleaseReason.EXPIRED] * 2


def test_what_was_given_back_on_request_is_not_taken_again(calm_client: InventoryClient, calm_server: Server) -> None:
    order_id, holds = cart(calm_client, 1, 2, 3)
    calm_client.release_reservation(holds[1].reservation_id)
    expire(calm_server.database_url, holds[0].reservation_id)
    call = partial(pay_late, calm_client, order_id)
    refused(
        ReservationAlreadyReleased,
        call,
        reservation_id=holds[1].reservation_id,
        release_reason=ReleaseReason.REQUESTED,
    )
    assert stocks(calm_client, holds) == [(0, 1), (2, 0), (0, 3)]


@pytest.mark.parametrize("policy", LatePolicy)
def test_a_line_that_was_taken_out_does_not_count_where_that_is_said(
    client: InventoryClient, policy: LatePolicy
) -> None:
    order_id, holds = cart(client, 1, 2, 3)
    client.release_reservation(holds[1].reservation_id)
    sold = client.deduct_order(order_id, late_policy=policy, skip_released=True)
    assert [hold.reservation_id for hold in sold] == ids(holds[0], holds[2])
    assert stocks(client, holds) == [(0, 0), (2, 0), (0, 0)]


def test_what_has_expired_still_counts_where_released_lines_do_not(
    calm_client: InventoryClient, calm_server: Server
) -> None:
    order_id, holds = cart(calm_client, 1, 2, 3)
    calm_client.release_reservation(holds[0].reservation_id)
    expire(calm_server.database_url, holds[1].reservation_id)
    refused(
        ReservationAlreadyReleased,
        partial(calm_client.deduct_order, order_id, skip_released=True),
        reservation_id=holds[1].reservation_id,
        release_reason=ReleaseReason.EXPIRED,
    )
    sold = pay_late(calm_client, order_id, skip_released=True)
    assert [hold.reservation_id for hold in sold] == ids(*holds[1:])


def test_an_order_of_which_everything_was_given_back_has_nothing_to_sell(client: InventoryClient) -> None:
    order_id, holds = cart(client, 1, 2)
    client.release_order(order_id)
    for call in (partial(client.deduct_order, order_id), partial(pay_late, client, order_id)):
        for skip in (False, True):
            refused(
                ReservationAlreadyReleased,
                partial(call, skip_released=skip),
                reservation_id=ids(*holds)[0],
                release_reason=ReleaseReason.REQUESTED,
            )


@pytest.mark.parametrize("tidied", [False, True])
def test_a_line_that_was_held_again_is_sold_once(
    calm_client: InventoryClient, calm_server: Server, *, tidied: bool
) -> None:
    order_id, (gone, other) = cart(calm_client, 2, 1)
    expire(calm_server.database_url, gone.reservation_id)
    if tidied:
        tidy(calm_client, gone)
    calm_client.add_stock(gone.product_id, 5)
    again = calm_client.reserve_stock(gone.product_id, order_id, 3, ttl=LONG)
    assert [hold.reservation_id for hold in pay_late(calm_client, order_id)] == ids(again, other)
    assert balance(calm_client, gone.product_id) == (4, 0)
    assert calm_client.get_reservation(gone.reservation_id).release_reason is ReleaseReason.EXPIRED


def test_units_that_have_expired_are_not_made_up_for_by_fewer(
    calm_client: InventoryClient, calm_server: Server
) -> None:
    product_id, order_id = stocked(calm_client, 10), fresh("order")
    lost = calm_client.reserve_order(order_id, [(product_id, 1), (product_id, 2)], ttl=LONG)
    expire(calm_server.database_url, *ids(*lost))
    again = [calm_client.reserve_stock(product_id, order_id, units, ttl=LONG) for units in (1, 1)]
    for call in (calm_client.deduct_order, partial(calm_client.extend_order, ttl=LONG)):
        refused(
            ReservationAlreadyReleased,
            partial(call, order_id),
            reservation_id=ids(*lost)[0],
            release_reason=ReleaseReason.EXPIRED,
        )
    again.append(calm_client.reserve_stock(product_id, order_id, 1, ttl=LONG))
    assert [hold.reservation_id for hold in calm_client.deduct_order(order_id)] == ids(*again)
    assert balance(calm_client, product_id) == (7, 0)


def test_a_line_may_be_exchanged_for_a_smaller_one(client: InventoryClient) -> None:
    order_id, (large,) = cart(client, 3)
    client.release_reservation(large.reservation_id)
    small = client.reserve_stock(large.product_id, order_id, 1, ttl=LONG)
    assert [hold.reservation_id for hold in client.deduct_order(order_id)] == [small.reservation_id]


def test_a_policy_that_nobody_knows_is_refused(client: InventoryClient, stub: InventoryServiceStub) -> None:
    order_id, (hold,) = cart(client, 1)
    request = pb.DeductOrderRequest(order_id=order_id)
    request.late_policy = 7  # type: ignore[assignment]
    with pytest.raises(Exception, match="late_policy must be STRICT or REACQUIRE"):
        stub.DeductOrder(request)
    assert client.get_reservation(hold.reservation_id) == hold


def test_a_late_order_is_sold_once_whatever_the_request_says_again(
    calm_client: InventoryClient, calm_server: Server
) -> None:
    order_id, holds = cart(calm_client, 1, 2)
    expire(calm_server.database_url, *ids(*holds))
    tidy(calm_client, holds[0])
    request_id = str(uuid4())
    first = pay_late(calm_client, order_id, request_id=request_id)
    calm_client.add_stock(holds[0].product_id, 9)
    assert pay_late(calm_client, order_id, request_id=request_id) == first
    assert made_by(calm_server, request_id) == 2
    refused(
        RequestIdConflict, partial(calm_client.release_order, order_id, request_id=request_id), request_id=request_id
    )
    assert stocks(calm_client, holds) == [(9, 0), (0, 0)]


@synchronous
def test_of_late_orders_at_once_none_is_sold_by_halves_nor_a_unit_twice(
    calm_server: Server, twin_server: Server, connect: Connect
) -> None:
    clients = [connect(calm_server), connect(twin_server)]
    for _ in range(5):
        products = [stocked(clients[0], 4), stocked(clients[0], 4)]
        orders = [fresh("order") for _ in range(6)]
        holds = []
        for number, order_id in enumerate(orders):  # one after another they take the same four units
            lines = [(product_id, 2) for product_id in (products if number % 2 else reversed(products))]
            made = clients[0].reserve_order(order_id, lines, ttl=LONG)
            expire(calm_server.database_url, *ids(*made))
            tidy(clients[0], *made)
            holds.append(made)
        calls = [partial(pay_late, clients[number % 2], order_id) for number, order_id in enumerate(orders * 2)]
        answers = at_once(calls)
        sold = [answer for answer in answers if isinstance(answer, tuple)]
        refusals = {type(answer) for answer in answers if isinstance(answer, InventoryError)}
        assert refusals <= {InsufficientStock, ReservationAlreadyDeducted}
        assert len(sold) == 2
        assert [balance(clients[0], product_id) for product_id in products] == [(0, 0), (0, 0)]
        ends = [{clients[0].get_reservation(hold.reservation_id).status for hold in made} for made in holds]
        assert all(len(each) == 1 for each in ends)


def test_every_hold_of_an_order_gets_more_time_at_one_moment(client: InventoryClient, server: Server) -> None:
    order_id, holds = cart(client, 1, 2, 3)
    entries = Entries(server.redis_url)
    assert all(entries.of(hold) for hold in holds)
    extended = client.extend_order(order_id, 2 * LONG)
    assert [hold.reservation_id for hold in extended] == ids(*holds)
    assert len({(hold.updated_at, hold.expires_at) for hold in extended}) == 1
    assert {hold.expires_at - hold.updated_at for hold in extended} == {2 * LONG}
    assert [client.get_reservation(hold.reservation_id) for hold in extended] == list(extended)
    assert stocks(client, holds) == [(0, 1), (0, 2), (0, 3)]
    assert [ledger(server, hold.product_id)[-1] for hold in holds] == ["EXTEND"] * 3
    assert client.extend_order(order_id, LONG)[0].expires_at == extended[0].expires_at


def test_an_order_of_which_a_hold_has_expired_gets_no_more_time(
    calm_client: InventoryClient, calm_server: Server
) -> None:
    order_id, holds = cart(calm_client, 1, 2)
    expire(calm_server.database_url, holds[1].reservation_id)
    refused(
        ReservationAlreadyReleased,
        partial(calm_client.extend_order, order_id, 2 * LONG),
        reservation_id=holds[1].reservation_id,
        release_reason=ReleaseReason.EXPIRED,
    )
    assert calm_client.get_reservation(holds[0].reservation_id) == holds[0]
    assert calm_client.get_reservation(holds[1].reservation_id).status is ReservationStatus.RELEASED


def test_lines_that_were_taken_out_or_sold_are_left_alone(client: InventoryClient) -> None:
    order_id, (given, sold, left) = cart(client, 1, 2, 3)
    client.release_reservation(given.reservation_id)
    client.deduct_reservation(sold.reservation_id)
    assert [hold.reservation_id for hold in client.extend_order(order_id, 2 * LONG)] == [left.reservation_id]


@pytest.mark.parametrize("ending", ["release_order", "deduct_order"])
def test_an_order_that_has_ended_gets_no_more_time(client: InventoryClient, ending: str) -> None:
    order_id, holds = cart(client, 1, 2)
    getattr(client, ending)(order_id)
    call, lowest = partial(client.extend_order, order_id, LONG), ids(*holds)[0]
    if ending == "deduct_order":
        refused(ReservationAlreadyDeducted, call, reservation_id=lowest)
    else:
        refused(ReservationAlreadyReleased, call, reservation_id=lowest, release_reason=ReleaseReason.REQUESTED)


def test_what_is_wrong_with_an_extension_is_told(client: InventoryClient, stub: InventoryServiceStub) -> None:
    order_id = fresh("order")
    refused(ReservationNotFound, partial(client.extend_order, order_id, LONG), order_id=order_id)
    refused(InvalidOrderId, partial(client.extend_order, "", LONG), fields="order_id")
    refused(ValidationError, partial(client.extend_order, "order", 30 * LONG), fields="ttl")
    refused(ValidationError, partial(client.extend_order, "order", LONG, request_id="7"), fields="request_id")
    with pytest.raises(Exception, match="ttl is missing"):
        stub.ExtendOrder(pb.ExtendOrderRequest(order_id=order_id))


def test_an_extension_is_made_once_and_its_id_is_used_up(client: InventoryClient, server: Server) -> None:
    order_id, holds = cart(client, 1, 2)
    other, _ = cart(client, 1)
    request_id = str(uuid4())
    extend = partial(client.extend_order, order_id, 2 * LONG, request_id=request_id)
    first = extend()
    client.extend_order(order_id, 3 * LONG)
    assert extend() == first
    assert made_by(server, request_id) == 2
    others: list[Callable[[], object]] = [
        partial(client.extend_order, order_id, 3 * LONG, request_id=request_id),
        partial(client.extend_order, other, 2 * LONG, request_id=request_id),
        partial(client.extend_reservation, ids(*holds)[0], 2 * LONG, request_id=request_id),
        partial(client.release_order, order_id, request_id=request_id),
        partial(client.add_stock, holds[0].product_id, 1, request_id=request_id),
    ]
    for call in others:
        refused(RequestIdConflict, call, request_id=request_id)
    client.deduct_order(order_id)
    assert extend() == first


def test_the_extension_of_one_hold_is_not_that_of_its_order(client: InventoryClient) -> None:
    order_id, (hold,) = cart(client, 1)
    request_id = str(uuid4())
    client.extend_reservation(hold.reservation_id, 2 * LONG, request_id=request_id)
    call = partial(client.extend_order, order_id, 2 * LONG, request_id=request_id)
    refused(RequestIdConflict, call, request_id=request_id)


@synchronous
def test_copies_of_an_extension_at_once_are_one(calm_server: Server, twin_server: Server, connect: Connect) -> None:
    clients = [connect(calm_server), connect(twin_server)]
    order_id, holds = cart(clients[0], 1, 2)
    request_id = str(uuid4())
    calls = [partial(clients[n % 2].extend_order, order_id, 2 * LONG, request_id=request_id) for n in range(20)]
    answers = at_once(calls)
    assert len(set(answers)) == 1
    assert made_by(calm_server, request_id) == len(holds)


@synchronous
def test_extensions_and_endings_of_orders_over_shared_products_all_come_to_an_end(client: InventoryClient) -> None:
    products = [stocked(client, 1000) for _ in range(4)]
    orders = [fresh("order") for _ in range(30)]
    for number, order_id in enumerate(orders):
        turned = products[number % 4 :] + products[: number % 4]
        client.reserve_order(order_id, [(product_id, 1) for product_id in turned], ttl=LONG)
    calls: list[Callable[[], Any]] = []
    for order_id in orders:
        calls += [partial(client.extend_order, order_id, 2 * LONG), partial(client.deduct_order, order_id)]
    answers = at_once(calls)
    refusals = [answer for answer in answers if isinstance(answer, InventoryError)]
    assert {type(refusal) for refusal in refusals} <= {ReservationAlreadyDeducted}
    assert [balance(client, product_id) for product_id in products] == [(970, 0)] * 4

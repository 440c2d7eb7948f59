"""The block of a whole order, with a real service behind it."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from tests.fixtures.shop import LONG, balance, expire, fresh, stocked

from inventory_client import (
    InsufficientStock,
    InventoryClient,
    OrderHold,
    ReservationAlreadyDeducted,
    ReservationAlreadyReleased,
    ReservationStatus,
)

if TYPE_CHECKING:
    from tests.fixtures.serving import Server

    Cart = tuple[str, list[tuple[str, int]]]


class CardDeclinedError(Exception):
    pass


def cart(client: InventoryClient) -> Cart:
    return fresh("order"), [(stocked(client, 2), 2), (stocked(client, 5), 3)]


def balances(client: InventoryClient, lines: list[tuple[str, int]]) -> list[tuple[int, int]]:
    return [balance(client, product_id) for product_id, _ in lines]


def enter(client: InventoryClient, cart: Cart, request_id: str) -> None:
    with client.hold_order(*cart, ttl=LONG, request_id=request_id):
        pass


def expire_and_deduct(server: Server, hold: OrderHold) -> None:
    expire(server.database_url, hold.reservations[1].reservation_id)
    hold.deduct()


def test_a_paid_order_is_sold_and_a_failed_one_given_back(client: InventoryClient) -> None:
    order_id, lines = cart(client)
    with suppress(CardDeclinedError), client.hold_order(order_id, lines, ttl=LONG) as hold:
        assert [(held.product_id, held.quantity) for held in hold.reservations] == lines
        raise CardDeclinedError
    assert {held.status for held in hold.reservations} == {ReservationStatus.RELEASED}
    assert balances(client, lines) == [(2, 0), (5, 0)]
    with client.hold_order(order_id, lines, ttl=LONG) as hold:
        assert {held.status for held in hold.deduct()} == {ReservationStatus.DEDUCTED}
    assert balances(client, lines) == [(0, 0), (2, 0)]
    with pytest.raises(InsufficientStock), client.hold_order(order_id, lines):
        pytest.fail("the block was entered")


def test_an_order_that_lost_a_hold_is_refused_and_given_back_as_a_whole(
    calm_client: InventoryClient, calm_server: Server
) -> None:
    order_id, lines = cart(calm_client)
    with pytest.raises(ReservationAlreadyReleased), calm_client.hold_order(order_id, lines, ttl=LONG) as hold:
        expire_and_deduct(calm_server, hold)
    assert balances(calm_client, lines) == [(2, 0), (5, 0)]


def test_a_cart_that_lost_a_line_since_its_last_attempt_is_sold_without_it(client: InventoryClient) -> None:
    order_id, lines = cart(client)
    with suppress(CardDeclinedError), client.hold_order(order_id, lines, ttl=LONG):
        raise CardDeclinedError
    with client.hold_order(order_id, lines[:1], ttl=LONG) as hold:
        with pytest.raises(ReservationAlreadyReleased):
            hold.deduct()
        assert [held.product_id for held in hold.deduct(skip_released=True)] == [lines[0][0]]
    assert balances(client, lines) == [(0, 0), (5, 0)]


def test_a_process_that_takes_over_from_another_repeats_its_deduct(client: InventoryClient) -> None:
    (order_id, lines), request_id = cart(client), str(uuid4())
    enter_again = partial(client.hold_order, order_id, lines, ttl=LONG, request_id=request_id)
    with enter_again() as first, enter_again() as second:
        first.deduct()
        assert second.deduct() == first.reservations
    assert balances(client, lines) == [(0, 0), (2, 0)]


def test_a_block_may_ask_for_more_time_for_its_order(client: InventoryClient) -> None:
    order_id, lines = cart(client)
    with client.hold_order(order_id, lines, ttl=LONG) as hold:
        before = {held.expires_at for held in hold.reservations}
        assert min(held.expires_at for held in hold.extend(2 * LONG)) > max(before)
        assert len(hold.reservations) == 2


def test_an_order_that_is_over_is_not_entered_again(calm_client: InventoryClient, calm_server: Server) -> None:
    both, request_id = cart(calm_client), str(uuid4())
    enter(calm_client, both, request_id)
    enter(calm_client, both, request_id)
    calm_client.deduct_order(both[0])
    with pytest.raises(ReservationAlreadyDeducted):
        enter(calm_client, both, request_id)
    both, request_id = cart(calm_client), str(uuid4())
    with calm_client.hold_order(*both, ttl=LONG, request_id=request_id) as hold:
        expire(calm_server.database_url, hold.reservations[1].reservation_id)
    with pytest.raises(ReservationAlreadyReleased) as raised:
        enter(calm_client, both, request_id)
    assert raised.value.reservation_id == hold.reservations[1].reservation_id

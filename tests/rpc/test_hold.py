"""The block of a hold, with a real service behind it that goes away, or knows its request already."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from tests.fixtures.losing import losing_answers
from tests.fixtures.refusals import refused
from tests.fixtures.shop import LONG, balance, expire, fresh, stocked

from inventory_client import (
    InsufficientStock,
    InventoryClient,
    ReservationAlreadyDeducted,
    ReservationAlreadyReleased,
    ReservationStatus,
    ServiceUnavailable,
    UnexpectedError,
)

if TYPE_CHECKING:
    from tests.fixtures.serving import Connect, Serve, Server

    from inventory_client import Hold


class CardDeclinedError(Exception):
    pass


def enter(client: InventoryClient, product_id: str, request_id: str) -> None:
    with client.hold(product_id, "order", 2, ttl=LONG, request_id=request_id):
        pass


def deduct_after_a_crash(server: Server, hold: Hold) -> None:
    server.kill()
    hold.deduct(timeout=0.2)


def test_a_service_that_goes_away_under_the_deduct_finds_the_hold_when_it_is_back(
    database_url: str, serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(database_url, expiry=False)
    client = connect(server, attempts=20, timeout=10.0)
    product_id = stocked(client, 2)
    with pytest.raises(ServiceUnavailable), client.hold(product_id, "order", 2, ttl=LONG) as hold:
        deduct_after_a_crash(server, hold)
    assert f"reservation {hold.reservation.reservation_id} is kept" in caplog.text
    server.start()
    assert balance(client, product_id) == (0, 2)
    assert hold.deduct().status is ReservationStatus.DEDUCTED
    assert balance(client, product_id) == (0, 0)


def test_a_hold_whose_answer_was_lost_is_given_back(server: Server) -> None:
    with losing_answers(server.address, "ReserveStock", "ReserveOrder") as client:
        product_id, order_id = stocked(client, 3), fresh("order")
        with InventoryClient(server.address) as other:
            elsewhere = other.reserve_stock(product_id, order_id, 1)
        with pytest.raises(UnexpectedError), client.hold(product_id, order_id, 2, ttl=LONG):
            pytest.fail("the block was entered")
        with pytest.raises(UnexpectedError), client.hold_order(order_id, [(product_id, 2)], ttl=LONG):
            pytest.fail("the block was entered")
        assert balance(client, product_id) == (2, 1)
        [sold] = client.deduct_order(order_id, skip_released=True)
        assert sold.reservation_id == elsewhere.reservation_id


def test_a_hold_that_has_expired_since_it_was_made_is_not_entered_again(
    calm_client: InventoryClient, calm_server: Server
) -> None:
    product_id, request_id = stocked(calm_client, 2), str(uuid4())
    enter(calm_client, product_id, request_id)
    enter(calm_client, product_id, request_id)
    expire(calm_server.database_url, request_id)
    assert calm_client.get_stock(product_id).reserved_quantity == 2  # nobody has tidied up
    with pytest.raises(ReservationAlreadyReleased) as raised:
        enter(calm_client, product_id, request_id)
    assert (raised.value.reservation_id, raised.value.release_reason) == (request_id, "EXPIRED")


def test_a_hold_that_was_sold_or_given_back_is_not_entered_again(client: InventoryClient) -> None:
    product_id, sold, failed = stocked(client, 4), str(uuid4()), str(uuid4())
    with client.hold(product_id, "order", 2, ttl=LONG, request_id=sold) as hold:
        hold.deduct()
    with pytest.raises(ReservationAlreadyDeducted) as raised:
        enter(client, product_id, sold)
    assert raised.value.reservation_id == sold
    with suppress(CardDeclinedError), client.hold(product_id, "order", 2, ttl=LONG, request_id=failed):
        raise CardDeclinedError
    with pytest.raises(ReservationAlreadyReleased, match="already released"):
        enter(client, product_id, failed)
    assert balance(client, product_id) == (2, 0)


def test_a_process_that_takes_over_from_another_repeats_its_deduct(client: InventoryClient) -> None:
    product_id, request_id = stocked(client, 2), str(uuid4())
    enter_again = partial(client.hold, product_id, "order", 2, ttl=LONG, request_id=request_id)
    with enter_again() as first, enter_again() as second:
        first.deduct()
        assert second.deduct() == first.reservation
    assert balance(client, product_id) == (0, 0)


def test_an_order_id_makes_no_second_hold_the_same_and_a_refusal_is_not_remembered(client: InventoryClient) -> None:
    product_id, order_id, request_id = stocked(client, 3), fresh("order"), str(uuid4())
    reserve = partial(client.reserve_stock, product_id, order_id, 2)
    first = reserve()
    refused(InsufficientStock, partial(reserve, request_id=request_id), product_id=product_id, requested=2, available=1)
    client.add_stock(product_id, 1)
    assert reserve(request_id=request_id).reservation_id != first.reservation_id
    assert balance(client, product_id) == (0, 4)

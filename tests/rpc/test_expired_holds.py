"""Expiry is a rule of the database's clock: the worker only tidies up what has expired already."""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest
from tests.fixtures.refusals import refused
from tests.fixtures.shop import LONG, balance, expire, held, held_by_many, locked, stocked
from tests.fixtures.waiting import at_once, eventually

from inventory_client import (
    InsufficientStock,
    InventoryClient,
    InventoryError,
    ReleaseReason,
    Reservation,
    ReservationAlreadyReleased,
    ReservationStatus,
    ReserveItem,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fixtures.serving import Server

SECOND = timedelta(seconds=1)


def row_status(server: Server, reservation_id: str) -> str:
    with psycopg.connect(server.database_url) as connection:
        query = "SELECT status FROM inventory_reservations WHERE reservation_id = %s"
        row = connection.execute(query, (reservation_id,)).fetchone()
    assert row is not None
    return str(row[0])


def has_expired(client: InventoryClient, hold: Reservation) -> bool:
    return client.get_reservation(hold.reservation_id).release_reason is ReleaseReason.EXPIRED


def test_without_a_worker_an_expired_hold_reads_released_and_cannot_be_deducted(
    calm_client: InventoryClient, calm_server: Server
) -> None:
    product_id = stocked(calm_client, 2)
    hold = calm_client.reserve_stock(product_id, "order", 2, ttl=SECOND)
    eventually(lambda: has_expired(calm_client, hold))
    assert datetime.now(UTC) - hold.expires_at > -SECOND
    read = calm_client.get_reservation(hold.reservation_id)
    assert (read.status, read.updated_at) == (ReservationStatus.RELEASED, hold.expires_at)
    assert row_status(calm_server, hold.reservation_id) == "RESERVED"
    refused(
        ReservationAlreadyReleased,
        lambda: calm_client.deduct_reservation(hold.reservation_id),
        reservation_id=hold.reservation_id,
        release_reason="EXPIRED",
    )
    assert row_status(calm_server, hold.reservation_id) == "RELEASED"
    assert balance(calm_client, product_id) == (2, 0)


def test_without_a_worker_expired_units_can_be_reserved_again_at_once(
    calm_client: InventoryClient, calm_server: Server
) -> None:
    product_id = stocked(calm_client, 5)
    first = calm_client.reserve_stock(product_id, "order-1", 2, ttl=SECOND)
    second = calm_client.reserve_stock(product_id, "order-2", 2, ttl=SECOND)
    lasting = held(calm_client, product_id, 1)
    eventually(lambda: has_expired(calm_client, second))
    assert row_status(calm_server, first.reservation_id) == "RESERVED"
    refused(
        InsufficientStock,
        lambda: calm_client.reserve_stock(product_id, "too many", 5),
        product_id=product_id,
        requested=5,
        available=4,
    )
    assert held(calm_client, product_id, 4).quantity == 4
    assert balance(calm_client, product_id) == (0, 5)
    assert calm_client.get_reservation(lasting.reservation_id) == lasting


def test_without_a_worker_thousands_of_expired_holds_make_room_for_one_order(
    calm_client: InventoryClient, calm_server: Server
) -> None:
    product_id = expired_only(calm_client, calm_server, 7_000)
    assert calm_client.reserve_stock(product_id, "all of it", 7_000, ttl=LONG).quantity == 7_000
    assert balance(calm_client, product_id) == (0, 7_000)


def test_without_a_worker_an_order_goes_on_while_any_of_its_products_gets_more(
    calm_client: InventoryClient, calm_server: Server
) -> None:
    large, small = expired_only(calm_client, calm_server, 1_100, 10), expired_only(calm_client, calm_server, 7_000)
    assert len(calm_client.reserve_order("all of both", [(large, 11_000), (small, 7_000)], ttl=LONG)) == 2


def test_without_a_worker_a_bulk_call_gets_the_expired_units_of_more_products_than_a_statement_takes_back(
    calm_client: InventoryClient, calm_server: Server
) -> None:
    products = [expired_only(calm_client, calm_server, 250) for _ in range(20)]
    made = calm_client.batch_reserve_stock([ReserveItem(name, "o", 250, ttl=LONG) for name in products])
    assert [type(each) for each in made] == [Reservation] * 20


def expired_only(client: InventoryClient, server: Server, holds: int, units: int = 1) -> str:
    """Make up a product that has nothing but so many expired holds of so many units each."""
    product_id = stocked(client, holds * units)
    expire(server.database_url, *held_by_many(client, product_id, holds, units))
    return product_id


def test_a_worker_tidies_up_by_itself(client: InventoryClient, server: Server) -> None:
    product_id = stocked(client, 1)
    hold = client.reserve_stock(product_id, "order", 1, ttl=SECOND)
    eventually(lambda: balance(client, product_id) == (1, 0), within=4)
    assert row_status(server, hold.reservation_id) == "RELEASED"
    released = client.get_reservation(hold.reservation_id)
    assert released.release_reason is ReleaseReason.EXPIRED
    assert released.updated_at >= hold.expires_at


def test_a_thousand_holds_that_expire_at_once_are_back_within_three_seconds(
    client: InventoryClient, server: Server
) -> None:
    product_id = stocked(client, 1000)
    holds = at_once([lambda: [held(client, product_id).reservation_id for _ in range(100)]] * 10)
    ids = [hold for each in holds if not isinstance(each, InventoryError) for hold in each]
    assert balance(client, product_id) == (0, 1000)
    expire(server.database_url, *ids)
    eventually(lambda: balance(client, product_id) == (1000, 0), within=3)


def test_an_inconsistent_hold_is_set_aside_and_told_of_and_never_blocks_the_others(
    client: InventoryClient, server: Server
) -> None:
    broken = [held(client, quantity=5) for _ in range(3)]
    products = [hold.product_id for hold in broken]
    change = "UPDATE inventory_stock SET reserved_quantity = reserved_quantity + %s WHERE product_id = ANY (%s)"
    with psycopg.connect(server.database_url, autocommit=True) as connection:
        connection.execute(change, (-1, products))
        expire(server.database_url, *(hold.reservation_id for hold in broken))
        healthy = [held(client, quantity=5) for _ in range(5)]
        expire(server.database_url, *(hold.reservation_id for hold in healthy))
        for hold in healthy:
            eventually(lambda hold=hold: balance(client, hold.product_id) == (5, 0), within=3)  # type: ignore[misc]
        eventually(lambda: all(f"INVALID_STOCK_STATE: product {name}" in server.log for name in products))
        connection.execute(change, (1, products))
    assert [row_status(server, hold.reservation_id) for hold in broken] == ["RESERVED"] * 3
    expire(server.database_url, *(hold.reservation_id for hold in broken))
    for name in products:
        eventually(lambda name=name: balance(client, name) == (5, 0), within=3)  # type: ignore[misc]


def test_a_stock_row_that_a_stranger_keeps_locked_does_not_hold_up_the_others(
    client: InventoryClient, server: Server
) -> None:
    stuck = [held(client, quantity=5) for _ in range(3)]
    with ExitStack() as strangers:
        for hold in stuck:
            strangers.enter_context(locked(server.database_url, hold.product_id))
        expire(server.database_url, *(hold.reservation_id for hold in stuck))
        healthy = [held(client, quantity=5) for _ in range(5)]
        expire(server.database_url, *(hold.reservation_id for hold in healthy))
        for hold in healthy:
            eventually(lambda hold=hold: balance(client, hold.product_id) == (5, 0), within=6)  # type: ignore[misc]
        for hold in stuck:
            assert f"1 expired holds of product {hold.product_id} wait" in server.log
            assert row_status(server, hold.reservation_id) == "RESERVED"
    for hold in stuck:
        eventually(lambda hold=hold: balance(client, hold.product_id) == (5, 0), within=15)  # type: ignore[misc]


def test_a_deduct_wins_before_the_expiry_and_loses_from_then_on(client: InventoryClient) -> None:
    product_id = stocked(client, 60)
    holds = [client.reserve_stock(product_id, f"order-{number}", 1, ttl=SECOND) for number in range(60)]

    def deduct_around_its_end(hold: Reservation) -> Reservation:
        until = hold.expires_at.timestamp() - 0.002
        eventually(lambda: time.time() >= until)
        return client.deduct_reservation(hold.reservation_id)

    answers = at_once([lambda hold=hold: deduct_around_its_end(hold) for hold in holds])  # type: ignore[misc]
    for hold, answer in zip(holds, answers, strict=True):
        if isinstance(answer, InventoryError):
            assert isinstance(answer, ReservationAlreadyReleased)
            assert answer.release_reason is ReleaseReason.EXPIRED
            assert client.get_reservation(hold.reservation_id).updated_at >= hold.expires_at
        else:
            assert answer.updated_at < hold.expires_at
    deducted = sum(isinstance(answer, Reservation) for answer in answers)
    eventually(lambda: balance(client, product_id) == (60 - deducted, 0), within=3)


def test_a_reserve_gets_expired_units_while_the_worker_is_after_them_too(
    client: InventoryClient, server: Server
) -> None:
    for _ in range(20):
        product_id = stocked(client, 20)
        holds = [held(client, product_id, 4).reservation_id for _ in range(5)]
        expire(server.database_url, *holds)
        assert client.reserve_stock(product_id, "order", 20, ttl=LONG).quantity == 20


def test_a_hold_that_a_stranger_has_locked_keeps_neither_worker_nor_reserve_from_the_others(
    client: InventoryClient, server: Server, calm_client: InventoryClient, calm_server: Server
) -> None:
    product_id = stocked(client, 2)
    first, second = (client.reserve_stock(product_id, f"order-{number}", 1, ttl=SECOND) for number in (1, 2))
    with locked_hold(server, first):
        eventually(lambda: row_status(server, second.reservation_id) == "RELEASED", within=3)
        assert row_status(server, first.reservation_id) == "RESERVED"
    eventually(lambda: balance(client, product_id) == (2, 0), within=3)

    product_id = stocked(calm_client, 2)
    first, second = (held(calm_client, product_id) for _ in range(2))
    expire(calm_server.database_url, first.reservation_id, second.reservation_id)
    with locked_hold(calm_server, first):
        assert held(calm_client, product_id).quantity == 1
        with pytest.raises(InsufficientStock):
            held(calm_client, product_id)
    assert held(calm_client, product_id).quantity == 1


@contextmanager
def locked_hold(server: Server, hold: Reservation) -> Iterator[None]:
    with psycopg.connect(server.database_url) as connection:
        query = "SELECT 1 FROM inventory_reservations WHERE reservation_id = %s FOR UPDATE"
        assert connection.execute(query, (hold.reservation_id,)).rowcount == 1
        yield
        connection.rollback()

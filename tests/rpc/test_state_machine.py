"""What each operation does to the balances and to a hold, and every transition that is not allowed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from tests.fixtures.refusals import refused
from tests.fixtures.shop import balance, expire, fresh, held, stocked

from inventory_client import (
    InventoryClient,
    ReleaseReason,
    ReservationAlreadyDeducted,
    ReservationAlreadyReleased,
    ReservationStatus,
)

if TYPE_CHECKING:
    from tests.fixtures.serving import Server


def test_a_record_is_created_once_and_comes_back_unchanged(client: InventoryClient) -> None:
    product_id = fresh()
    first = client.initialize_stock(product_id, 7)
    assert first.created
    assert (first.stock.product_id, first.stock.available_quantity, first.stock.reserved_quantity) == (product_id, 7, 0)
    assert (first.stock.version, first.stock.created_at) == (1, first.stock.updated_at)
    again = client.initialize_stock(product_id, 99)
    assert (again.created, again.stock) == (False, first.stock)
    assert client.get_stock(product_id) == first.stock


def test_added_units_are_available(client: InventoryClient) -> None:
    product_id = stocked(client, 7)
    added = client.add_stock(product_id, 3, reason="delivery")
    assert (added.available_quantity, added.reserved_quantity, added.version) == (10, 0, 2)
    assert added.updated_at > added.created_at
    assert client.get_stock(product_id) == added


def test_a_hold_moves_units_from_available_to_reserved(client: InventoryClient) -> None:
    product_id = stocked(client, 7)
    hold = client.reserve_stock(product_id, "order", 3, ttl=timedelta(minutes=1))
    assert (hold.product_id, hold.order_id, hold.quantity) == (product_id, "order", 3)
    assert (hold.status, hold.release_reason) == (ReservationStatus.RESERVED, None)
    assert hold.created_at == hold.updated_at == hold.expires_at - timedelta(minutes=1)
    assert abs(hold.created_at - datetime.now(UTC)) < timedelta(seconds=30)
    assert balance(client, product_id) == (4, 3)
    assert client.get_reservation(hold.reservation_id) == hold


def test_all_units_can_be_held_and_not_one_more(client: InventoryClient) -> None:
    product_id = stocked(client, 3)
    for _ in range(3):
        held(client, product_id)
    assert balance(client, product_id) == (0, 3)


def test_a_released_hold_gives_its_units_back(client: InventoryClient) -> None:
    hold = held(client, quantity=3)
    released = client.release_reservation(hold.reservation_id)
    assert (released.status, released.release_reason) == (ReservationStatus.RELEASED, ReleaseReason.REQUESTED)
    assert (released.created_at, released.expires_at) == (hold.created_at, hold.expires_at)
    assert released.updated_at > hold.updated_at
    assert client.get_reservation(hold.reservation_id) == released
    assert balance(client, hold.product_id) == (3, 0)


def test_a_deducted_hold_takes_its_units_away_for_good(client: InventoryClient) -> None:
    hold = held(client, quantity=3)
    deducted = client.deduct_reservation(hold.reservation_id)
    assert (deducted.status, deducted.release_reason) == (ReservationStatus.DEDUCTED, None)
    assert client.get_reservation(hold.reservation_id) == deducted
    assert balance(client, hold.product_id) == (0, 0)


@pytest.mark.parametrize("then", ["release", "deduct"])
@pytest.mark.parametrize("first", ["release", "deduct", "expire"])
def test_a_hold_that_has_ended_stays_as_it_is(client: InventoryClient, server: Server, first: str, then: str) -> None:
    actions = {"release": client.release_reservation, "deduct": client.deduct_reservation}
    hold = held(client, quantity=2)
    if first == "expire":
        expire(server.database_url, hold.reservation_id)
    else:
        actions[first](hold.reservation_id)
    before = client.get_reservation(hold.reservation_id)
    for _ in range(2):
        if first == "deduct":
            refused(
                ReservationAlreadyDeducted,
                lambda: actions[then](hold.reservation_id),
                reservation_id=hold.reservation_id,
            )
        else:
            refused(
                ReservationAlreadyReleased,
                lambda: actions[then](hold.reservation_id),
                reservation_id=hold.reservation_id,
                release_reason="EXPIRED" if first == "expire" else "REQUESTED",
            )
    after = client.get_reservation(hold.reservation_id)
    assert (after.status, after.release_reason) == (before.status, before.release_reason)
    assert balance(client, hold.product_id) == ((0, 0) if first == "deduct" else (2, 0))


def test_a_block_that_fails_gives_its_hold_back(server: Server) -> None:
    with InventoryClient(server.address) as client:
        product_id = stocked(client, 1)
        with pytest.raises(ZeroDivisionError), client.hold(product_id, "order", 1):
            raise ZeroDivisionError
        assert balance(client, product_id) == (1, 0)

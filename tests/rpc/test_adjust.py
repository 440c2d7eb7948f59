"""AdjustStock: signed corrections, never below zero, and compare-and-set on the version."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from tests.fixtures.carts import ledger, rows
from tests.fixtures.refusals import refused
from tests.fixtures.shop import balance, expire, fresh, held, stocked
from tests.fixtures.waiting import at_once

from inventory_client import (
    AdjustmentReason,
    InsufficientStock,
    InvalidProductId,
    InvalidQuantity,
    InventoryClient,
    InventoryError,
    ProductNotFound,
    ValidationError,
    VersionMismatch,
)
from inventory_client.proto.inventory.v1 import inventory_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fixtures.serving import Connect, Server

    from inventory_client.proto.inventory.v1.inventory_pb2_grpc import InventoryServiceStub

COUNT = AdjustmentReason.COUNT
MOST = 10**12
STOCK_MAX = 10**15
synchronous = pytest.mark.parametrize("connect", ["sync"], indirect=True)


@pytest.mark.parametrize("reason", AdjustmentReason)
@pytest.mark.parametrize("delta", [4, -4])
def test_a_correction_changes_what_is_available_and_tells_the_ledger_why(
    client: InventoryClient, server: Server, reason: AdjustmentReason, delta: int
) -> None:
    product_id = stocked(client, 7)
    held(client, product_id, 2)
    stock = client.adjust_stock(product_id, delta, reason)
    assert (stock.available_quantity, stock.reserved_quantity, stock.version) == (5 + delta, 2, 3)
    assert stock.updated_at > stock.created_at
    assert client.get_stock(product_id) == stock
    query = "SELECT kind, available_delta, reserved_delta, reason FROM inventory_movements WHERE product_id = %s"
    assert rows(server, query + " AND version = 3", product_id) == [("ADJUST", delta, 0, reason.value)]


def test_stock_never_falls_below_zero_and_what_is_held_is_nobodys_to_remove(client: InventoryClient) -> None:
    product_id = stocked(client, 7)
    held(client, product_id, 4)
    before = client.get_stock(product_id)
    for too_much in (4, 7, MOST):
        call = partial(client.adjust_stock, product_id, -too_much, AdjustmentReason.LOSS)
        refused(InsufficientStock, call, product_id=product_id, requested=too_much, available=3)
    assert client.get_stock(product_id) == before
    assert client.adjust_stock(product_id, -3, AdjustmentReason.LOSS).available_quantity == 0


def test_units_of_an_expired_hold_that_nobody_tidied_up_can_be_removed(
    calm_client: InventoryClient, calm_server: Server
) -> None:
    product_id = stocked(calm_client, 5)
    expire(calm_server.database_url, held(calm_client, product_id, 3).reservation_id)
    lasting = held(calm_client, product_id, 2)
    assert balance(calm_client, product_id) == (0, 5)
    call = partial(calm_client.adjust_stock, product_id, -4, AdjustmentReason.LOSS)
    refused(InsufficientStock, call, product_id=product_id, requested=4, available=3)
    assert calm_client.adjust_stock(product_id, -3, AdjustmentReason.LOSS).available_quantity == 0
    assert ledger(calm_server, product_id) == ["INITIALIZE", "RESERVE", "RESERVE", "EXPIRE", "ADJUST"]
    assert calm_client.get_reservation(lasting.reservation_id) == lasting


def test_a_version_that_was_read_before_expired_holds_were_taken_back_is_no_longer_the_expected_one(
    calm_client: InventoryClient, calm_server: Server
) -> None:
    hold = held(calm_client, quantity=3)
    expire(calm_server.database_url, hold.reservation_id)
    take = partial(calm_client.adjust_stock, hold.product_id, -3, AdjustmentReason.LOSS)
    call = partial(take, expected_version=2)
    refused(VersionMismatch, call, product_id=hold.product_id, expected_version=2, version=3)
    assert balance(calm_client, hold.product_id) == (3, 0)
    assert take(expected_version=3).available_quantity == 0


@pytest.mark.parametrize("delta", [0, MOST + 1, -MOST - 1, 2**63 - 1, -(2**63)])
def test_a_delta_of_nothing_or_beyond_the_limit_is_refused(client: InventoryClient, delta: int) -> None:
    product_id = stocked(client, 7)
    error = refused(InvalidQuantity, partial(client.adjust_stock, product_id, delta, COUNT), fields="delta")
    assert f"delta must be -{MOST} to -1 or 1 to {MOST}, not {delta}." in str(error)
    assert balance(client, product_id) == (7, 0)


def test_the_largest_correction_goes_both_ways(client: InventoryClient) -> None:
    product_id = stocked(client, 0)
    assert client.adjust_stock(product_id, MOST, COUNT).available_quantity == MOST
    assert client.adjust_stock(product_id, -MOST, COUNT).available_quantity == 0


def test_a_record_holds_up_to_its_limit_of_available_and_held_units_together(
    client: InventoryClient, stub: InventoryServiceStub
) -> None:
    product_id = stocked(client, MOST)
    for _ in range(STOCK_MAX // MOST - 1):
        stub.AddStock(pb.AddStockRequest(product_id=product_id, quantity=MOST))
    hold = held(client, product_id, 1)
    refused(InvalidQuantity, partial(client.adjust_stock, product_id, 1, COUNT), fields="delta")
    refused(InvalidQuantity, partial(client.add_stock, product_id, 1), fields="quantity")
    client.deduct_reservation(hold.reservation_id)
    assert client.adjust_stock(product_id, 1, COUNT).available_quantity == STOCK_MAX
    refused(InvalidQuantity, partial(client.adjust_stock, product_id, 1, COUNT), fields="delta")


def test_what_is_wrong_with_a_request_is_told(client: InventoryClient, stub: InventoryServiceStub) -> None:
    product_id = stocked(client, 7)
    refused(InvalidProductId, partial(client.adjust_stock, "", 1, COUNT), fields="product_id")
    unknown = fresh()
    refused(ProductNotFound, partial(client.adjust_stock, unknown, 1, COUNT), product_id=unknown)
    refused(ProductNotFound, partial(client.adjust_stock, unknown, -1, COUNT, expected_version=1), product_id=unknown)
    for version in (0, -1, -(2**63)):
        call = partial(client.adjust_stock, product_id, 1, COUNT, expected_version=version)
        refused(ValidationError, call, fields="expected_version")
    for reason in (0, 7, -1):
        request = pb.AdjustStockRequest(product_id=product_id, delta=1)
        request.reason = reason  # type: ignore[assignment]
        with pytest.raises(Exception, match="reason must be one of COUNT, DAMAGE, LOSS, RETURN, CORRECTION, TRANSFER"):
            stub.AdjustStock(request)
    assert client.get_stock(product_id).version == 1


def test_only_the_expected_version_is_corrected(client: InventoryClient) -> None:
    product_id = stocked(client, 7)
    assert client.adjust_stock(product_id, 1, COUNT, expected_version=1).version == 2
    for version in (1, 3, 2**63 - 1):
        call = partial(client.adjust_stock, product_id, -8, COUNT, expected_version=version)
        refused(VersionMismatch, call, product_id=product_id, expected_version=version, version=2)
    # The version is looked at first: whoever counts must know that the count is stale.
    call = partial(client.adjust_stock, product_id, -9, COUNT, expected_version=1)
    refused(VersionMismatch, call, product_id=product_id, expected_version=1, version=2)
    hold = held(client, product_id, 1)
    call = partial(client.adjust_stock, product_id, 1, COUNT, expected_version=2)
    refused(VersionMismatch, call, product_id=product_id, expected_version=2, version=3)
    client.release_reservation(hold.reservation_id)
    assert client.adjust_stock(product_id, -8, COUNT, expected_version=4).available_quantity == 0


def test_a_version_that_was_refused_may_be_corrected_under_the_same_request_id(client: InventoryClient) -> None:
    product_id, request_id = stocked(client, 7), str(uuid4())
    with pytest.raises(VersionMismatch):
        client.adjust_stock(product_id, 1, COUNT, expected_version=2, request_id=request_id)
    assert client.adjust_stock(product_id, 1, COUNT, expected_version=1, request_id=request_id).version == 2


@synchronous
def test_of_all_that_saw_the_same_version_one_corrects_it(
    calm_server: Server, twin_server: Server, connect: Connect
) -> None:
    clients = [connect(calm_server), connect(twin_server)]
    product_id = stocked(clients[0], 100)
    for version in range(1, 9):
        correct = [partial(each.adjust_stock, product_id, expected_version=version) for each in clients]
        answers = at_once([partial(correct[n % 2], 1 + n, COUNT) for n in range(30)])
        (winner,) = (answer for answer in answers if not isinstance(answer, InventoryError))
        assert winner.version == version + 1
        assert clients[1].get_stock(product_id) == winner
        losers = [answer for answer in answers if isinstance(answer, VersionMismatch)]
        assert {(loser.expected_version, loser.version) for loser in losers} == {(version, version + 1)}
        assert len(losers) == 29


@synchronous
def test_corrections_at_once_take_no_more_than_there_is_and_lose_none(client: InventoryClient) -> None:
    product_id = stocked(client, 50)
    calls: list[Callable[[], object]] = [
        partial(client.adjust_stock, product_id, -1, AdjustmentReason.DAMAGE),
        partial(client.reserve_stock, product_id, "order", 1),
    ]
    answers = at_once(calls * 60)
    refusals = [answer for answer in answers if isinstance(answer, InventoryError)]
    assert {type(refusal) for refusal in refusals} == {InsufficientStock}
    assert len(refusals) == 70
    taken = sum(not isinstance(answer, InventoryError) for answer in answers[::2])
    assert balance(client, product_id) == (0, 50 - taken)


@synchronous
def test_a_correction_that_is_refused_hurts_none_of_its_neighbours(client: InventoryClient) -> None:
    product_id, used = stocked(client, 5), str(uuid4())
    client.add_stock(stocked(client, 1), 1, request_id=used)
    good = partial(client.adjust_stock, product_id, 1, COUNT)
    bad = [
        partial(client.adjust_stock, fresh(), 1, COUNT),
        partial(client.adjust_stock, product_id, -1000, COUNT),
        partial(client.adjust_stock, product_id, 1, COUNT, expected_version=2**40),
        partial(client.adjust_stock, product_id, 1, COUNT, request_id=used),
    ]
    answers = at_once([good, *bad] * 8)
    reasons = [answer.reason if isinstance(answer, InventoryError) else "DONE" for answer in answers]
    expected = ["DONE", "PRODUCT_NOT_FOUND", "INSUFFICIENT_STOCK", "VERSION_MISMATCH", "REQUEST_ID_CONFLICT"]
    assert reasons == expected * 8
    assert balance(client, product_id) == (13, 0)

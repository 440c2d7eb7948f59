"""BatchReserveStock, BatchSettleReservations and BatchGetStock: independent outcomes in the order of the items."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

import grpc
import psycopg
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from tests.fixtures.bulk import item, reasons
from tests.fixtures.carts import made_by
from tests.fixtures.entries import Entries
from tests.fixtures.refusals import detail, refused, status_of
from tests.fixtures.shop import balance, expire, fresh, held, stocked

from inventory_client import (
    InventoryClient,
    InventoryError,
    LatePolicy,
    Reservation,
    SettleItem,
    SettlementAction,
    Stock,
    ValidationError,
)
from inventory_client.proto.inventory.v1 import inventory_pb2 as pb

if TYPE_CHECKING:
    from tests.fixtures.serving import Server

    from inventory_client.proto.inventory.v1.inventory_pb2_grpc import InventoryServiceStub

RELEASE, DEDUCT = SettlementAction.RELEASE, SettlementAction.DEDUCT


def test_every_item_is_answered_in_its_place_and_none_hurts_another(client: InventoryClient, server: Server) -> None:
    product_id, small, used = stocked(client, 100), stocked(client, 2), str(uuid4())
    client.add_stock(stocked(client, 1), 1, request_id=used)
    unknown = fresh()
    items = [
        item(product_id, 3),
        item("", 3),
        item(small, 3),
        item(unknown, 3),
        item(product_id, 0),
        item(small, 2),
        item(product_id, 3, request_id=used),
        item(product_id, 3, request_id="7"),
        item(product_id, 3, ttl=timedelta(0)),
        item(product_id, 4, order_id=""),
        item(" ", -1, order_id=""),
        item(product_id, 5, ttl=None),
    ]
    outcomes = client.batch_reserve_stock(items)
    assert reasons(outcomes) == [
        "DONE",
        "INVALID_PRODUCT_ID",
        "INSUFFICIENT_STOCK",
        "PRODUCT_NOT_FOUND",
        "INVALID_QUANTITY",
        "DONE",
        "REQUEST_ID_CONFLICT",
        "VALIDATION_ERROR",
        "VALIDATION_ERROR",
        "INVALID_ORDER_ID",
        "VALIDATION_ERROR",
        "DONE",
    ]
    for number in (0, 5, 11):
        hold = outcomes[number]
        assert isinstance(hold, Reservation)
        expected = (items[number].request_id, items[number].product_id, items[number].order_id, items[number].quantity)
        assert (hold.reservation_id, hold.product_id, hold.order_id, hold.quantity) == expected
        assert client.get_reservation(hold.reservation_id) == hold
        assert made_by(server, hold.reservation_id) == 1
        assert Entries(server.redis_url).of(hold)
    told = [outcome.metadata for outcome in outcomes if isinstance(outcome, InventoryError)]
    assert told[1] == {"product_id": small, "requested": "3", "available": "2", "http_status": "409"}
    assert told[4] == {"request_id": used, "http_status": "409"}
    assert told[8] == {"fields": "product_id,order_id,quantity", "http_status": "400"}
    assert balance(client, product_id) == (92, 8)
    assert balance(client, small) == (0, 2)


def test_the_error_of_an_item_has_the_details_of_the_single_call(
    client: InventoryClient, stub: InventoryServiceStub
) -> None:
    product_id = stocked(client, 2)
    good = pb.ReserveStockRequest(product_id=product_id, order_id="order", quantity=1)
    short = pb.ReserveStockRequest(product_id=product_id, order_id="order", quantity=2)
    bad = pb.ReserveStockRequest(product_id=product_id, order_id="order", ttl=Duration(seconds=-1))
    outcomes = stub.BatchReserveStock(pb.BatchReserveStockRequest(items=[good, short, bad])).outcomes
    assert [outcome.WhichOneof("result") for outcome in outcomes] == ["reservation", "error", "error"]
    for request, outcome in zip((short, bad), outcomes[1:], strict=True):
        with pytest.raises(grpc.RpcError) as raised:
            stub.ReserveStock(request)
        assert (outcome.error.code, outcome.error.message) == (raised.value.code().value[0], raised.value.details())
        assert outcome.error == status_of(raised.value)
    assert detail(outcomes[1].error, ErrorInfo).reason == "INSUFFICIENT_STOCK"
    assert [v.field for v in detail(outcomes[2].error, BadRequest).field_violations] == ["quantity", "ttl"]


def test_a_call_has_one_to_a_thousand_items(client: InventoryClient) -> None:
    product_id = stocked(client, 1000)
    refused(ValidationError, partial(client.batch_reserve_stock, []), fields="items")
    refused(ValidationError, partial(client.batch_settle_reservations, []), fields="items")
    refused(ValidationError, partial(client.batch_get_stock, []), fields="product_ids")
    items = [item(product_id) for _ in range(1001)]
    refused(ValidationError, partial(client.batch_reserve_stock, items), fields="items")
    settlements = [SettleItem(str(each.request_id), DEDUCT) for each in items]
    refused(ValidationError, partial(client.batch_settle_reservations, settlements), fields="items")
    refused(ValidationError, partial(client.batch_get_stock, [product_id] * 1001), fields="product_ids")
    assert balance(client, product_id) == (1000, 0)

    held_now = client.batch_reserve_stock(items[:1000])
    assert reasons(held_now) == ["DONE"] * 1000
    assert balance(client, product_id) == (0, 1000)
    ended = client.batch_settle_reservations(settlements[:1000])
    assert reasons(ended) == ["DONE"] * 1000
    assert [hold.reservation_id for hold in ended if isinstance(hold, Reservation)] == [
        each.request_id for each in items[:1000]
    ]
    assert balance(client, product_id) == (0, 0)
    stocks = client.batch_get_stock([product_id] * 1000)
    assert [stock.version for stock in stocks if isinstance(stock, Stock)] == [2001] * 1000


def test_a_thousand_items_of_the_longest_names_fit_into_one_call(client: InventoryClient) -> None:
    name = fresh("\N{TEAPOT}" * (255 - 37))
    items = [item(name, order_id="\N{TEAPOT}" * 255) for _ in range(1000)]
    assert reasons(client.batch_reserve_stock(items)) == ["PRODUCT_NOT_FOUND"] * 1000
    client.initialize_stock(name, 1000)
    assert reasons(client.batch_reserve_stock(items)) == ["DONE"] * 1000
    settlements = [SettleItem(str(each.request_id), RELEASE) for each in items]
    assert reasons(client.batch_settle_reservations(settlements)) == ["DONE"] * 1000


def test_one_item_that_the_database_refuses_hurts_none_of_a_thousand(client: InventoryClient) -> None:
    products = [stocked(client, 400) for _ in range(3)]
    used = [str(uuid4()) for _ in range(3)]
    for request_id in used:
        client.add_stock(products[0], 1, request_id=request_id)
    items = [item(products[number % 3]) for number in range(1000)]
    bad = {0: used[0], 498: used[1], 999: used[2]}
    for number, request_id in bad.items():
        items[number] = item(products[1], request_id=request_id)
    outcomes = reasons(client.batch_reserve_stock(items))
    assert {number for number, reason in enumerate(outcomes) if reason == "REQUEST_ID_CONFLICT"} == set(bad)
    assert outcomes.count("DONE") == 997
    assert sum(balance(client, product_id)[1] for product_id in products) == 997


def test_items_get_what_is_left_in_their_order(client: InventoryClient) -> None:
    product_id = stocked(client, 10)
    items = [item(product_id, quantity) for quantity in (4, 4, 3, 2, 1)]
    fates = [reason == "DONE" for reason in reasons(client.batch_reserve_stock(items))]
    assert fates == [True, True, False, True, False]


def test_the_same_item_twice_in_a_call_is_one_hold(client: InventoryClient, server: Server) -> None:
    product_id = stocked(client, 10)
    same = item(product_id, 2)
    other = dataclasses.replace(same, quantity=3)
    outcomes = client.batch_reserve_stock([same, item(product_id), same, other, same])
    assert reasons(outcomes) == ["DONE", "DONE", "DONE", "REQUEST_ID_CONFLICT", "DONE"]
    assert outcomes[0] == outcomes[2] == outcomes[4]
    assert made_by(server, str(same.request_id)) == 1
    assert balance(client, product_id) == (7, 3)


def test_a_call_again_answers_what_the_first_one_did(client: InventoryClient) -> None:
    product_id = stocked(client, 10)
    items = [item(product_id, 4), item(product_id, 8), item(product_id, 5), item("")]
    first = client.batch_reserve_stock(items)
    again = client.batch_reserve_stock(items)
    assert again[0] == first[0]
    assert again[2] == first[2]
    assert reasons(again) == reasons(first) == ["DONE", "INSUFFICIENT_STOCK", "DONE", "INVALID_PRODUCT_ID"]
    settlements = [SettleItem(str(items[0].request_id), DEDUCT), SettleItem(str(items[2].request_id), RELEASE)]
    ended = client.batch_settle_reservations(settlements)
    assert client.batch_settle_reservations(settlements) == ended
    assert client.batch_reserve_stock(items)[0] == first[0]
    assert balance(client, product_id) == (6, 0)


def test_settlements_are_answered_in_their_place_and_none_hurts_another(
    calm_client: InventoryClient, calm_server: Server
) -> None:
    product_id = stocked(calm_client, 100)
    first, second, expired, late, released, deducted, broken, last = (held(calm_client, product_id) for _ in range(8))
    stuck = held(calm_client, quantity=5)
    calm_client.release_reservation(released.reservation_id)
    calm_client.deduct_reservation(deducted.reservation_id)
    expire(calm_server.database_url, expired.reservation_id, late.reservation_id)
    used, unknown = str(uuid4()), str(uuid4())
    calm_client.add_stock(product_id, 1, request_id=used)
    change = "UPDATE inventory_stock SET reserved_quantity = reserved_quantity + %s WHERE product_id = %s"
    items = [
        SettleItem(first.reservation_id, RELEASE),
        SettleItem(unknown, DEDUCT),
        SettleItem(expired.reservation_id, DEDUCT),
        SettleItem(late.reservation_id, DEDUCT, LatePolicy.REACQUIRE),
        SettleItem(released.reservation_id, DEDUCT),
        SettleItem(deducted.reservation_id, RELEASE),
        SettleItem(broken.reservation_id, DEDUCT, request_id=used),
        SettleItem(stuck.reservation_id, DEDUCT),
        SettleItem("", RELEASE),
        SettleItem("7", RELEASE),
        SettleItem(second.reservation_id, DEDUCT),
        SettleItem(last.reservation_id, RELEASE, request_id="7"),
    ]
    with psycopg.connect(calm_server.database_url, autocommit=True) as connection:
        connection.execute(change, (-1, stuck.product_id))
        outcomes = calm_client.batch_settle_reservations(items)
        connection.execute(change, (1, stuck.product_id))
    assert reasons(outcomes) == [
        "DONE",
        "RESERVATION_NOT_FOUND",
        "RESERVATION_ALREADY_RELEASED",
        "DONE",
        "RESERVATION_ALREADY_RELEASED",
        "RESERVATION_ALREADY_DEDUCTED",
        "REQUEST_ID_CONFLICT",
        "INVALID_STOCK_STATE",
        "INVALID_RESERVATION_ID",
        "VALIDATION_ERROR",
        "DONE",
        "VALIDATION_ERROR",
    ]
    for number, status in ((0, "RELEASED"), (3, "DEDUCTED"), (10, "DEDUCTED")):
        hold = outcomes[number]
        assert isinstance(hold, Reservation)
        assert (hold.reservation_id, hold.status) == (items[number].reservation_id, status)
        assert calm_client.get_reservation(hold.reservation_id) == hold
        assert Entries(calm_server.redis_url).gone(hold)
    metadata = [outcome.metadata for outcome in outcomes if isinstance(outcome, InventoryError)]
    assert [metadata[1]["release_reason"], metadata[2]["release_reason"]] == ["EXPIRED", "REQUESTED"]
    assert calm_client.get_reservation(broken.reservation_id) == broken
    assert calm_client.get_reservation(last.reservation_id) == last
    assert balance(calm_client, product_id) == (96, 2)


def test_an_action_or_policy_that_nobody_knows_fails_its_item_alone(
    client: InventoryClient, stub: InventoryServiceStub
) -> None:
    holds = [held(client) for _ in range(4)]
    items = [pb.Settlement(reservation_id=hold.reservation_id, action=pb.SETTLEMENT_ACTION_DEDUCT) for hold in holds]
    items[0].action = 0  # type: ignore[assignment]
    items[1].action = 3  # type: ignore[assignment]
    items[2].late_policy = 9  # type: ignore[assignment]
    outcomes = stub.BatchSettleReservations(pb.BatchSettleReservationsRequest(items=items)).outcomes
    fields = [detail(outcome.error, ErrorInfo).metadata["fields"] for outcome in outcomes[:3]]
    assert fields == ["action", "action", "late_policy"]
    assert outcomes[3].reservation.status == pb.RESERVATION_STATUS_DEDUCTED


def test_a_hold_that_a_call_ends_twice_is_ended_by_the_first_item(client: InventoryClient) -> None:
    hold = held(client, quantity=2)
    release = SettleItem(hold.reservation_id, RELEASE)
    same_id = SettleItem(hold.reservation_id, DEDUCT, request_id=release.request_id)
    outcomes = client.batch_settle_reservations([release, SettleItem(hold.reservation_id, DEDUCT), release, same_id])
    assert reasons(outcomes) == ["DONE", "RESERVATION_ALREADY_RELEASED", "DONE", "REQUEST_ID_CONFLICT"]
    assert outcomes[2] == outcomes[0]
    assert balance(client, hold.product_id) == (2, 0)


def test_two_holds_that_a_call_ends_under_one_request_id_are_two_requests(client: InventoryClient) -> None:
    holds = [held(client, quantity=2) for _ in range(40)]
    items = [SettleItem(hold.reservation_id, DEDUCT) for hold in holds]
    items[29] = SettleItem(holds[29].reservation_id, DEDUCT, request_id=items[3].request_id)
    outcomes = reasons(client.batch_settle_reservations(items))
    assert outcomes.pop(29) == "REQUEST_ID_CONFLICT"
    assert outcomes == ["DONE"] * 39


def test_balances_are_read_in_the_order_of_the_ids(client: InventoryClient) -> None:
    teapot, kettle, unknown = stocked(client, 1), stocked(client, 2), fresh()
    outcomes = client.batch_get_stock([kettle, unknown, "", teapot, kettle, "p" * 256, unknown])
    assert reasons(outcomes) == [
        "DONE",
        "PRODUCT_NOT_FOUND",
        "INVALID_PRODUCT_ID",
        "DONE",
        "DONE",
        "VALIDATION_ERROR",
        "PRODUCT_NOT_FOUND",
    ]
    assert (outcomes[0], outcomes[3], outcomes[4]) == tuple(map(client.get_stock, (kettle, teapot, kettle)))


def test_a_wait_has_no_effect_on_an_item(client: InventoryClient, stub: InventoryServiceStub) -> None:
    product_id = stocked(client, 1)
    patient = pb.ReserveStockRequest(product_id=product_id, order_id="order", quantity=2, wait=Duration(seconds=30))
    call = partial(stub.BatchReserveStock, pb.BatchReserveStockRequest(items=[patient]), timeout=5)
    assert detail(call().outcomes[0].error, ErrorInfo).reason == "INSUFFICIENT_STOCK"


def test_an_item_gets_the_units_of_expired_holds(calm_client: InventoryClient, calm_server: Server) -> None:
    product_id = stocked(calm_client, 3)
    expire(calm_server.database_url, held(calm_client, product_id, 3).reservation_id)
    outcomes = calm_client.batch_reserve_stock([item(product_id, 4), item(product_id, 2), item(product_id, 1)])
    assert reasons(outcomes) == ["INSUFFICIENT_STOCK", "DONE", "DONE"]

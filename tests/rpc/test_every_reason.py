"""Every reason of the contract's table, provoked over the wire by both clients, with its raw details.

VERSION_MISMATCH has no operation yet that could answer it.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, cast
from uuid import uuid4

import grpc
import psycopg
import pytest
from tests.fixtures.refusals import TABLE, check, refused
from tests.fixtures.shop import balance, expire, fresh, held, locked, stocked, waiting
from tests.fixtures.waiting import eventually

from inventory_client import (
    DatabaseUnavailable,
    InsufficientStock,
    InternalError,
    InvalidOrderId,
    InvalidProductId,
    InvalidQuantity,
    InvalidReservationId,
    InvalidStockState,
    InventoryClient,
    InventoryError,
    Overloaded,
    PermissionDenied,
    ProductNotFound,
    ReleaseReason,
    RequestIdConflict,
    ReservationAlreadyDeducted,
    ReservationAlreadyReleased,
    ReservationNotFound,
    Unauthenticated,
    ValidationError,
)
from inventory_client.proto.inventory.v1 import inventory_pb2 as pb
from inventory_client.proto.inventory.v1.inventory_pb2_grpc import InventoryServiceStub

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fixtures.serving import Connect, Serve, Server

    from inventory_server.embedded import EmbeddedPostgres


def test_the_table_names_every_reason_of_the_proto() -> None:
    reasons = {name.removeprefix("ERROR_REASON_") for name in pb.ErrorReason.keys()}  # noqa: SIM118 - not a dict
    assert reasons - {"UNSPECIFIED"} == set(TABLE)


@pytest.mark.parametrize("product_id", ["", " ", "\t \n"])
def test_a_blank_product_id_is_invalid_product_id(client: InventoryClient, product_id: str) -> None:
    refused(InvalidProductId, lambda: client.initialize_stock(product_id, 1), fields="product_id")
    refused(InvalidProductId, lambda: client.get_stock(product_id), fields="product_id")
    refused(InvalidProductId, lambda: client.add_stock(product_id, 1), fields="product_id")
    refused(InvalidProductId, lambda: client.reserve_stock(product_id, "order", 1), fields="product_id")


@pytest.mark.parametrize("order_id", ["", " ", "\u00a0"])
def test_a_blank_order_id_is_invalid_order_id(client: InventoryClient, order_id: str) -> None:
    refused(InvalidOrderId, lambda: client.reserve_stock("teapot", order_id, 1), fields="order_id")


def test_a_quantity_out_of_range_is_invalid_quantity(client: InventoryClient) -> None:
    refused(InvalidQuantity, lambda: client.add_stock("teapot", 0), fields="quantity")
    refused(InvalidQuantity, lambda: client.initialize_stock("teapot", -1), fields="quantity")
    refused(InvalidQuantity, lambda: client.reserve_stock("teapot", "order", -1), fields="quantity")


def test_a_missing_reservation_id_is_invalid_reservation_id(client: InventoryClient) -> None:
    for call in (client.get_reservation, client.release_reservation, client.deduct_reservation):
        refused(InvalidReservationId, partial(call, ""), fields="reservation_id")


def test_a_rule_without_a_code_of_its_own_is_a_validation_error(client: InventoryClient) -> None:
    refused(ValidationError, lambda: client.get_stock("tea\0pot"), fields="product_id")


def test_two_bad_fields_are_one_validation_error_that_tells_both(client: InventoryClient) -> None:
    error = refused(ValidationError, lambda: client.reserve_stock("", " ", 0), fields="product_id,order_id,quantity")
    assert {v.field: v.reason for v in error.violations} == {
        "product_id": "INVALID_PRODUCT_ID",
        "order_id": "INVALID_ORDER_ID",
        "quantity": "INVALID_QUANTITY",
    }


def test_a_product_without_a_record_is_not_found(client: InventoryClient) -> None:
    product_id = fresh()
    refused(ProductNotFound, lambda: client.get_stock(product_id), product_id=product_id)
    refused(ProductNotFound, lambda: client.add_stock(product_id, 1), product_id=product_id)
    refused(ProductNotFound, lambda: client.reserve_stock(product_id, "order", 1), product_id=product_id)


def test_an_unknown_hold_is_not_found(client: InventoryClient) -> None:
    nobody = str(uuid4())
    for call in (client.get_reservation, client.release_reservation, client.deduct_reservation):
        refused(ReservationNotFound, partial(call, nobody), reservation_id=nobody)


def test_too_few_units_are_insufficient_stock(client: InventoryClient) -> None:
    product_id = stocked(client, 2)
    error = refused(
        InsufficientStock,
        lambda: client.reserve_stock(product_id, "order", 3),
        product_id=product_id,
        requested=3,
        available=2,
    )
    assert (error.product_id, error.requested, error.available) == (product_id, 3, 2)
    assert balance(client, product_id) == (2, 0)


def test_a_released_hold_is_already_released_by_request(client: InventoryClient) -> None:
    hold = client.release_reservation(held(client).reservation_id).reservation_id
    for call in (client.release_reservation, client.deduct_reservation):
        error = refused(
            ReservationAlreadyReleased,
            partial(call, hold),
            reservation_id=hold,
            release_reason="REQUESTED",
        )
        assert error.release_reason is ReleaseReason.REQUESTED


def test_an_expired_hold_is_already_released_by_expiry(client: InventoryClient, server: Server) -> None:
    for call in (client.release_reservation, client.deduct_reservation):
        hold = held(client).reservation_id
        expire(server.database_url, hold)
        refused(
            ReservationAlreadyReleased,
            partial(call, hold),
            reservation_id=hold,
            release_reason="EXPIRED",
        )


def test_a_deducted_hold_is_already_deducted(client: InventoryClient) -> None:
    hold = client.deduct_reservation(held(client).reservation_id).reservation_id
    for call in (client.release_reservation, client.deduct_reservation):
        refused(ReservationAlreadyDeducted, partial(call, hold), reservation_id=hold)


def test_a_stock_row_changed_by_hand_is_invalid_stock_state(client: InventoryClient, server: Server) -> None:
    hold = held(client, quantity=3)
    with psycopg.connect(server.database_url, autocommit=True) as connection:
        change = "UPDATE inventory_stock SET reserved_quantity = %s WHERE product_id = %s"
        connection.execute(change, (1, hold.product_id))
        for call in (client.release_reservation, client.deduct_reservation):
            refused(
                InvalidStockState,
                partial(call, hold.reservation_id),
                reservation_id=hold.reservation_id,
                product_id=hold.product_id,
                quantity=3,
                reserved=1,
            )
        connection.execute(change, (3, hold.product_id))
    client.deduct_reservation(hold.reservation_id)


def test_a_request_id_used_twice_is_a_conflict(client: InventoryClient) -> None:
    request_id = str(uuid4())
    product_id = stocked(client, 9)
    client.add_stock(product_id, 1, request_id=request_id)
    error = refused(
        RequestIdConflict, lambda: client.add_stock(product_id, 2, request_id=request_id), request_id=request_id
    )
    assert error.request_id == request_id


def test_something_unexpected_is_one_fixed_sentence_outside_and_the_story_in_the_log(
    serve: Serve, connect: Connect, database_url: str
) -> None:
    server = serve(database_url, expiry=False)
    client = connect(server)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("ALTER TABLE inventory_stock RENAME TO misplaced")
        error = refused(InternalError, lambda: client.get_stock("teapot"))
        connection.execute("ALTER TABLE misplaced RENAME TO inventory_stock")
    assert error.message == "An unexpected error occurred."
    assert 'relation "inventory_stock" does not exist' in server.log
    assert client.initialize_stock("teapot", 1).created


def test_a_stopped_database_is_database_unavailable_until_it_is_back(
    serve: Serve, connect: Connect, private_postgres: EmbeddedPostgres
) -> None:
    server = serve(private_postgres.url, pool_timeout="500ms")
    client = connect(server)
    product_id = stocked(client, 1)
    private_postgres.stop()
    refused(DatabaseUnavailable, lambda: client.get_stock(product_id))
    refused(DatabaseUnavailable, lambda: client.reserve_stock(product_id, "order", 1))
    eventually(lambda: server.health() == "NOT_SERVING")
    private_postgres.start()
    eventually(lambda: server.health() == "SERVING", within=30)
    assert balance(client, product_id) == (1, 0)


def test_more_than_may_wait_are_overloaded_and_the_others_are_served(
    serve: Serve, connect: Connect, database_url: str
) -> None:
    server = serve(database_url, queue_size=1, batch_size=1)
    client = connect(server)
    product_id = stocked(client, 100)

    def reserve(number: int) -> InventoryError | None:
        try:
            client.reserve_stock(product_id, f"order-{number}", 1)
        except InventoryError as error:
            return error
        return None

    with ThreadPoolExecutor(10) as pool, locked(database_url, product_id) as stranger:
        first = pool.submit(reserve, 0)
        eventually(lambda: waiting(database_url) == 1)
        others = [pool.submit(reserve, number) for number in range(1, 10)]
        eventually(lambda: sum(other.done() for other in others) == 8)
        stranger.rollback()
    assert first.result() is None
    answers = [other.result() for other in others]
    assert answers.count(None) == 1
    for error in answers:
        if error is not None:
            assert isinstance(error, Overloaded)
            check(error)
    assert balance(client, product_id) == (98, 2)


def test_tokens_decide_who_may_read_and_who_may_write(
    serve: Serve, connect: Connect, database_url: str, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("# who may do what\nreader read\nwriter write\n")
    server = serve(database_url, tokens_file=tokens)
    writer, reader = connect(server, token="writer"), connect(server, token="reader")
    product_id = stocked(writer, 1)
    assert balance(reader, product_id) == (1, 0)
    refused(PermissionDenied, lambda: reader.reserve_stock(product_id, "order", 1), method="ReserveStock")
    for stranger in (connect(server), connect(server, token="guessed")):
        refused(Unauthenticated, partial(stranger.get_stock, product_id))
        refused(Unauthenticated, partial(stranger.reserve_stock, product_id, "order", 1))
    with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError) as raised:
        # Nothing that our client would send.
        InventoryServiceStub(channel).GetStock(
            pb.GetStockRequest(product_id=product_id), metadata=(("authorization", "Bearer "),)
        )
    assert cast("grpc.Call", raised.value).code() is grpc.StatusCode.UNAUTHENTICATED
    assert server.health() == "SERVING"

"""What no honest client sends: each is refused by its rule, and nothing of it reaches the database or the log."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from tests.fixtures.refusals import check_wire, violations
from tests.fixtures.shop import fresh

from inventory_client.proto.inventory.v1 import inventory_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable

    from inventory_client.proto.inventory.v1.inventory_pb2_grpc import InventoryServiceStub

    Call = grpc.UnaryUnaryMultiCallable[bytes, bytes]

MILLION_MILLION = 10**12
INT64_MAX, INT64_MIN = 2**63 - 1, -(2**63)
DAY = 86_400
UUID = "01980c6e-7f4c-7c3e-9d2a-5b8f6a1e0c47"


def failure(call: Callable[[], object]) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as raised:
        call()
    return raised.value


def refuse(call: Callable[[], object], reason: str, *fields: str) -> None:
    error = failure(call)
    check_wire(error, reason, {"http_status": "400", "fields": ",".join(fields)})
    if len(fields) == 1:
        assert violations(error) == {fields[0]: reason}


def reserve(stub: InventoryServiceStub, product_id: str, **fields: object) -> pb.Reservation:
    values: dict[str, object] = {"order_id": "order", "quantity": 1, **fields}
    return stub.ReserveStock(pb.ReserveStockRequest(product_id=product_id, **values)).reservation  # type: ignore[arg-type]


@pytest.fixture
def product_id(stub: InventoryServiceStub) -> str:
    product_id = fresh()
    stub.InitializeStock(pb.InitializeStockRequest(product_id=product_id, quantity=MILLION_MILLION))
    return product_id


@pytest.mark.parametrize(
    "text",
    [
        "x" * 256,
        "😀" * 256,
        "a\0b",
        "a\nb",
        "a\x7fb",
        "a\u0085b",  # the second set of control characters
        "\x1b[31mred",
        "a\u2028b",
    ],
)
def test_a_text_that_is_too_long_or_has_control_characters_is_refused_everywhere(
    stub: InventoryServiceStub, product_id: str, text: str
) -> None:
    rule = "VALIDATION_ERROR"
    refuse(lambda: stub.GetStock(pb.GetStockRequest(product_id=text)), rule, "product_id")
    refuse(lambda: stub.InitializeStock(pb.InitializeStockRequest(product_id=text, quantity=1)), rule, "product_id")
    refuse(lambda: reserve(stub, text), rule, "product_id")
    refuse(lambda: reserve(stub, product_id, order_id=text), rule, "order_id")
    add = pb.AddStockRequest(product_id=product_id, quantity=1, reason=text)
    refuse(lambda: stub.AddStock(add), rule, "reason")


@pytest.mark.parametrize(
    "text",
    [
        "x" * 255,
        "😀" * 255,  # four bytes each
        "NULL",
        '{"a\\b",\'; DROP TABLE inventory_stock; -- %s $1}',
        "Größe 43 / \u05e8\u05d2\u05dc \u200f",  # Hebrew, and a mark that turns the direction
        " between blanks ",
    ],
)
def test_any_other_text_comes_back_as_it_was(stub: InventoryServiceStub, text: str) -> None:
    product_id = text if len(text) == 255 else text + fresh("")
    stub.InitializeStock(pb.InitializeStockRequest(product_id=product_id, quantity=5))
    stub.AddStock(pb.AddStockRequest(product_id=product_id, quantity=1, reason=text))
    hold = reserve(stub, product_id, order_id=text)
    assert (hold.product_id, hold.order_id) == (product_id, text)
    assert stub.GetReservation(pb.GetReservationRequest(reservation_id=hold.reservation_id)).reservation == hold
    assert stub.GetStock(pb.GetStockRequest(product_id=product_id)).stock.product_id == product_id
    error = failure(lambda: reserve(stub, product_id, quantity=MILLION_MILLION))
    available = stub.GetStock(pb.GetStockRequest(product_id=product_id)).stock.available_quantity
    told = {
        "product_id": product_id,
        "requested": str(MILLION_MILLION),
        "available": str(available),
        "http_status": "409",
    }
    check_wire(error, "INSUFFICIENT_STOCK", told)


@pytest.mark.parametrize("quantity", [0, -1, MILLION_MILLION + 1, INT64_MAX, INT64_MIN])
def test_a_quantity_out_of_range_is_refused(stub: InventoryServiceStub, product_id: str, quantity: int) -> None:
    add = pb.AddStockRequest(product_id=product_id, quantity=quantity)
    refuse(lambda: stub.AddStock(add), "INVALID_QUANTITY", "quantity")
    refuse(lambda: reserve(stub, product_id, quantity=quantity), "INVALID_QUANTITY", "quantity")
    if quantity != 0:
        first = pb.InitializeStockRequest(product_id=fresh(), quantity=quantity)
        refuse(lambda: stub.InitializeStock(first), "INVALID_QUANTITY", "quantity")


def test_the_largest_and_the_smallest_quantities_are_taken(stub: InventoryServiceStub, product_id: str) -> None:
    assert reserve(stub, product_id, quantity=MILLION_MILLION).quantity == MILLION_MILLION
    stub.AddStock(pb.AddStockRequest(product_id=product_id, quantity=1))
    assert reserve(stub, product_id, quantity=1).quantity == 1
    nothing = stub.InitializeStock(pb.InitializeStockRequest(product_id=fresh(), quantity=0))
    assert (nothing.created, nothing.stock.available_quantity) == (True, 0)


def test_to_initialize_without_a_quantity_is_not_to_initialize_with_zero(stub: InventoryServiceStub) -> None:
    first = pb.InitializeStockRequest(product_id=fresh())
    refuse(lambda: stub.InitializeStock(first), "INVALID_QUANTITY", "quantity")


def test_a_record_holds_no_more_than_its_limit(stub: InventoryServiceStub, product_id: str) -> None:
    add = pb.AddStockRequest(product_id=product_id, quantity=MILLION_MILLION)
    for adding in [stub.AddStock.future(add) for _ in range(999)]:
        adding.result()
    full = stub.GetStock(pb.GetStockRequest(product_id=product_id)).stock
    assert full.available_quantity == 10**15
    one_more = pb.AddStockRequest(product_id=product_id, quantity=1)
    refuse(lambda: stub.AddStock(one_more), "INVALID_QUANTITY", "quantity")
    reserve(stub, product_id, quantity=1)
    refuse(lambda: stub.AddStock(one_more), "INVALID_QUANTITY", "quantity")


@pytest.mark.parametrize(
    "ttl",
    [
        Duration(),
        Duration(seconds=-1),
        Duration(nanos=999_000_000),
        Duration(nanos=999_999_999),
        Duration(seconds=DAY, nanos=1),
        Duration(seconds=DAY + 1),
        Duration(seconds=INT64_MAX, nanos=2**31 - 1),
        Duration(seconds=INT64_MIN, nanos=-(2**31)),
    ],
    ids=lambda ttl: f"{ttl.seconds}.{ttl.nanos:09}s",
)
def test_a_ttl_out_of_range_is_refused(stub: InventoryServiceStub, product_id: str, ttl: Duration) -> None:
    refuse(lambda: reserve(stub, product_id, ttl=ttl), "VALIDATION_ERROR", "ttl")


@pytest.mark.parametrize("seconds", [1, DAY])
def test_a_hold_lasts_as_long_as_it_asked(stub: InventoryServiceStub, product_id: str, seconds: int) -> None:
    hold = reserve(stub, product_id, ttl=Duration(seconds=seconds))
    assert hold.expires_at.ToNanoseconds() - hold.created_at.ToNanoseconds() == seconds * 10**9


def test_a_hold_that_does_not_say_lasts_ten_minutes(stub: InventoryServiceStub, product_id: str) -> None:
    hold = reserve(stub, product_id)
    assert hold.expires_at.ToNanoseconds() - hold.created_at.ToNanoseconds() == 600 * 10**9


@pytest.mark.parametrize(
    "text", ["1", "not a uuid", UUID[:-1], UUID + "0", "{" + UUID + "}", UUID.replace("-", ""), UUID + "\n", "é" * 36]
)
def test_an_id_that_is_no_uuid_is_a_validation_error(stub: InventoryServiceStub, product_id: str, text: str) -> None:
    rule = "VALIDATION_ERROR"
    refuse(lambda: stub.GetReservation(pb.GetReservationRequest(reservation_id=text)), rule, "reservation_id")
    release = pb.ReleaseReservationRequest(reservation_id=text)
    refuse(lambda: stub.ReleaseReservation(release), rule, "reservation_id")
    deduct = pb.DeductReservationRequest(reservation_id=UUID, request_id=text)
    refuse(lambda: stub.DeductReservation(deduct), rule, "request_id")
    refuse(lambda: reserve(stub, product_id, request_id=text), rule, "request_id")
    add = pb.AddStockRequest(product_id=product_id, quantity=1, request_id=text)
    refuse(lambda: stub.AddStock(add), rule, "request_id")
    first = pb.InitializeStockRequest(product_id=fresh(), quantity=1, request_id=text)
    refuse(lambda: stub.InitializeStock(first), rule, "request_id")


def test_an_id_means_the_same_in_capitals(stub: InventoryServiceStub, product_id: str) -> None:
    request_id = str(uuid4())
    hold = reserve(stub, product_id, request_id=request_id)
    assert reserve(stub, product_id, request_id=request_id.upper()) == hold
    shouted = hold.reservation_id.upper()
    assert stub.GetReservation(pb.GetReservationRequest(reservation_id=shouted)).reservation == hold
    deducted = stub.DeductReservation(pb.DeductReservationRequest(reservation_id=shouted)).reservation
    assert deducted.reservation_id == hold.reservation_id


@pytest.mark.parametrize("body", [b"\xff\xff\xff", b"\x0a\x05ab", b"\x0a\x02\xff\xfe"])
def test_bytes_that_are_no_message_are_a_validation_error(channel: grpc.Channel, body: bytes) -> None:
    for method in ("InitializeStock", "GetStock", "AddStock", "ReserveStock", "GetReservation", "DeductReservation"):
        call: Call = channel.unary_unary(f"/inventory.v1.InventoryService/{method}")
        refuse(partial(call, body), "VALIDATION_ERROR", "request")


def test_fields_that_the_server_does_not_know_are_ignored(channel: grpc.Channel, product_id: str) -> None:
    call: Call = channel.unary_unary("/inventory.v1.InventoryService/GetStock")
    body = pb.GetStockRequest(product_id=product_id).SerializeToString() + b"\xf8\x3f\x01"
    assert pb.GetStockResponse.FromString(call(body)).stock.product_id == product_id


def test_a_message_above_the_limit_is_refused_and_the_connection_goes_on(
    stub: InventoryServiceStub, product_id: str
) -> None:
    huge = pb.GetStockRequest(product_id="x" * (5 * 1024 * 1024))
    assert failure(lambda: stub.GetStock(huge)).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    largest = pb.GetStockRequest(product_id="x" * (4 * 1024 * 1024 - 100))
    refuse(lambda: stub.GetStock(largest), "VALIDATION_ERROR", "product_id")
    assert stub.GetStock(pb.GetStockRequest(product_id=product_id)).stock.version == 1


def test_an_operation_that_does_not_exist_is_unimplemented(channel: grpc.Channel) -> None:
    call: Call = channel.unary_unary("/inventory.v1.InventoryService/StealStock")
    assert failure(lambda: call(b"")).code() is grpc.StatusCode.UNIMPLEMENTED

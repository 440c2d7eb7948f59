"""Refusals in which everything is wrong, or long: a gRPC client with its usual 8 KiB of metadata reads them."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_from_bytes
from uuid import uuid4

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from tests.fixtures.carts import refused_lines
from tests.fixtures.refusals import detail, status_of
from tests.fixtures.shop import fresh

from inventory_client import ProductNotFound
from inventory_client.proto.inventory.v1 import inventory_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable

    from inventory_client import InventoryClient
    from inventory_client.proto.inventory.v1.inventory_pb2_grpc import InventoryServiceStub

ANSWER_BYTES_MAX = 6 * 1024
LEAST = -(2**63)
# What a header carries as it is; all else takes three bytes each.
_PLAIN = bytes(range(0x20, 0x7F)).replace(b"%", b"").decode()


def failure(call: Callable[[], object]) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as raised:
        call()
    return raised.value


def size(error: grpc.RpcError) -> int:
    """Count the bytes of the trailers as HTTP/2 has them: 32 more for each header."""
    trailers: Any = error.trailing_metadata()
    sentence = quote_from_bytes(str(error.details()).encode(), safe=_PLAIN)
    packed = [key + b64encode(value).decode() for key, value in trailers]
    return sum(32 + len(header) for header in ["grpc-status3", "grpc-message" + sentence, *packed])


def order(lines: int) -> pb.ReserveOrderRequest:
    return pb.ReserveOrderRequest(lines=[pb.OrderLine(product_id=" ", quantity=LEAST)] * lines)


def watched(stub: InventoryServiceStub) -> object:
    return next(iter(stub.WatchStock(pb.WatchStockRequest(product_ids=[""] * 1000))))


@pytest.mark.parametrize(
    ("call", "bad"),
    [
        (lambda stub: stub.ReserveOrder(order(2)), 5),
        (lambda stub: stub.ReserveOrder(order(30)), 61),
        (lambda stub: stub.ReserveOrder(order(100)), 201),
        (watched, 1000),
    ],
    ids=["2 lines", "30 lines", "100 lines", "1000 products"],
)
def test_of_many_bad_fields_the_first_are_listed_and_the_rest_is_counted(
    stub: InventoryServiceStub, call: Callable[[InventoryServiceStub], object], bad: int
) -> None:
    error = failure(lambda: call(stub))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert size(error) < ANSWER_BYTES_MAX
    status = status_of(error)
    listed = detail(status, BadRequest).field_violations
    metadata = detail(status, ErrorInfo).metadata
    assert metadata["fields"] == ",".join(violation.field for violation in listed)
    assert len(listed) + int(metadata.get("omitted", "0")) == bad
    assert len(listed) >= min(bad, 15)
    assert all(f"{each.field} {each.description}" in status.message for each in listed[:5])
    assert status.message.endswith(f"; and {bad - 5} more." if bad > 5 else f"{listed[-1].description}.")


def test_a_refusal_of_the_longest_ids_is_small_and_tells_them_whole(stub: InventoryServiceStub) -> None:
    longest = ("😀" * 200 + fresh("")).ljust(255, "😀")[-255:]  # nobody else's
    hold = pb.ReserveStockRequest(product_id=longest, order_id=longest, quantity=10**12)
    stub.InitializeStock(pb.InitializeStockRequest(product_id=longest, quantity=1))
    for kind, call in {
        "order_id": lambda: stub.ReleaseOrder(pb.ReleaseOrderRequest(order_id=longest)),
        "product_id": lambda: stub.ReserveStock(hold),
    }.items():
        error = failure(call)
        assert size(error) < ANSWER_BYTES_MAX
        assert detail(status_of(error), ErrorInfo).metadata[kind] == longest
        assert f" {longest[:63]}… has " in str(error.details())


def test_every_client_can_read_of_forty_short_lines(stub: InventoryServiceStub) -> None:
    lines = [pb.OrderLine(product_id=str(uuid4()), quantity=10**12) for _ in range(40)]
    error = failure(lambda: stub.ReserveOrder(pb.ReserveOrderRequest(order_id=fresh("order"), lines=lines)))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert size(error) < 8 * 1024
    told = [short for packed in status_of(error).details if packed.Unpack(short := pb.StockShortage())]
    assert [short.product_id for short in told] == [line.product_id for line in lines]


def test_our_client_reads_of_every_short_line_there_can_be(client: InventoryClient) -> None:
    lines = [(f"{number:03}{fresh('')[:30]}".ljust(255, "😀"), 10**12) for number in range(100)]
    told = [(product_id, quantity, None) for product_id, quantity in lines]
    refused_lines(ProductNotFound, lambda: client.reserve_order(fresh("order"), lines), *told)

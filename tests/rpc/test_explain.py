"""Why a product has its balances: rebuilt from the ledger, now and as of any earlier moment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import grpc
import psycopg
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.error_details_pb2 import BadRequest
from tests.fixtures.refusals import check_wire, detail, status_of
from tests.fixtures.shop import expire, fresh

from inventory_client.proto.inventory.v1 import inventory_pb2 as pb
from inventory_client.proto.inventory.v1.inventory_pb2_grpc import InventoryServiceStub

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fixtures.serving import Server

OPEN = (pb.RESERVATION_STATUS_RESERVED, pb.RELEASE_REASON_UNSPECIFIED)
GIVEN_BACK = (pb.RESERVATION_STATUS_RELEASED, pb.RELEASE_REASON_REQUESTED)
EXPIRED = (pb.RESERVATION_STATUS_RELEASED, pb.RELEASE_REASON_EXPIRED)
SOLD = (pb.RESERVATION_STATUS_DEDUCTED, pb.RELEASE_REASON_UNSPECIFIED)


class Shop:
    """One product, and what happens to it."""

    def __init__(self, stub: InventoryServiceStub, database_url: str, quantity: int) -> None:
        self.stub = stub
        self.database_url = database_url
        self.product_id = fresh()
        stub.InitializeStock(pb.InitializeStockRequest(product_id=self.product_id, quantity=quantity))

    def reserve(self, quantity: int) -> str:
        request = pb.ReserveStockRequest(
            product_id=self.product_id, order_id="order", quantity=quantity, ttl=Duration(seconds=3600)
        )
        return self.stub.ReserveStock(request).reservation.reservation_id

    def release(self, hold: str) -> None:
        self.stub.ReleaseReservation(pb.ReleaseReservationRequest(reservation_id=hold))

    def deduct(self, hold: str, policy: Any = pb.LATE_POLICY_STRICT) -> None:
        self.stub.DeductReservation(pb.DeductReservationRequest(reservation_id=hold, late_policy=policy))

    def extend(self, hold: str) -> None:
        self.stub.ExtendReservation(pb.ExtendReservationRequest(reservation_id=hold, ttl=Duration(seconds=7200)))

    def add(self, quantity: int) -> None:
        self.stub.AddStock(pb.AddStockRequest(product_id=self.product_id, quantity=quantity))

    def adjust(self, delta: int) -> None:
        request = pb.AdjustStockRequest(product_id=self.product_id, delta=delta, reason=pb.ADJUSTMENT_REASON_COUNT)
        self.stub.AdjustStock(request)

    def expire(self, hold: str) -> None:
        """Let its time pass, without anybody tidying it up."""
        expire(self.database_url, hold)

    def tidy(self) -> None:
        """Ask for more than there is, so that what has expired is taken back."""
        with pytest.raises(grpc.RpcError):
            self.reserve(10**12)

    def explain(self, **fields: Any) -> pb.ExplainStockResponse:
        return self.stub.ExplainStock(pb.ExplainStockRequest(product_id=self.product_id, **fields))

    def ledger(self) -> list[pb.Movement]:
        request = pb.ListMovementsRequest(product_id=self.product_id, page_size=1000)
        return list(self.stub.ListMovements(request).movements)

    def alter(self, statement: str, *values: object) -> None:
        with psycopg.connect(self.database_url) as connection:
            assert connection.execute(statement.encode(), values).rowcount == 1


@pytest.fixture
def shop(calm_server: Server) -> Iterator[Shop]:
    with grpc.insecure_channel(calm_server.address) as channel:
        yield Shop(InventoryServiceStub(channel), calm_server.database_url, 10)


def holds(explained: pb.ExplainStockResponse) -> dict[tuple[int, int], tuple[int, int]]:
    return {(each.status, each.release_reason): (each.count, each.quantity) for each in explained.holds}


def totals(explained: pb.ExplainStockResponse) -> tuple[int, int, int, int]:
    return (
        explained.on_hand_quantity,
        explained.added_quantity,
        explained.removed_quantity,
        explained.deducted_quantity,
    )


def bad_at(shop: Shop, at: Timestamp) -> str:
    with pytest.raises(grpc.RpcError) as raised:
        shop.explain(at=at)
    check_wire(raised.value, "VALIDATION_ERROR", {"http_status": "400", "fields": "at"})
    return detail(status_of(raised.value), BadRequest).field_violations[0].description


def test_a_new_product_has_what_it_began_with(shop: Shop) -> None:
    explained = shop.explain()
    assert explained.stock == shop.stub.GetStock(pb.GetStockRequest(product_id=shop.product_id)).stock
    assert (totals(explained), holds(explained)) == ((10, 10, 0, 0), {})
    assert [movement.kind for movement in explained.movements] == [pb.MOVEMENT_KIND_INITIALIZE]
    assert (explained.consistent, list(explained.discrepancies)) == (True, [])


def test_every_unit_is_explained(shop: Shop) -> None:
    shop.add(20)
    shop.adjust(-4)
    shop.adjust(3)
    shop.release(shop.reserve(1))
    shop.deduct(shop.reserve(2))
    shop.deduct(shop.reserve(3))
    shop.extend(shop.reserve(5))
    shop.expire(late := shop.reserve(4))
    shop.tidy()
    shop.deduct(late, pb.LATE_POLICY_REACQUIRE)
    shop.expire(shop.reserve(6))
    explained = shop.explain(movements_max=3)
    assert explained.stock == shop.stub.GetStock(pb.GetStockRequest(product_id=shop.product_id)).stock
    assert (explained.stock.available_quantity, explained.stock.reserved_quantity) == (9, 11)
    assert totals(explained) == (20, 33, 4, 9)
    # The last one is past its expiry, and still counted as reserved: that is why so little is available.
    assert holds(explained) == {OPEN: (1, 5), GIVEN_BACK: (1, 1), SOLD: (3, 9), EXPIRED: (1, 6)}
    assert list(explained.movements) == shop.ledger()[:3]
    assert (explained.consistent, list(explained.discrepancies)) == (True, [])


def test_twenty_movements_are_told_unless_asked_for_more_or_less(shop: Shop) -> None:
    for _ in range(25):
        shop.add(1)
    ledger = shop.ledger()
    assert list(shop.explain().movements) == ledger[:20]
    assert list(shop.explain(movements_max=1).movements) == ledger[:1]
    assert list(shop.explain(movements_max=1000).movements) == ledger


def test_each_moment_of_the_past_is_explained_as_it_was(shop: Shop) -> None:
    hold = shop.reserve(4)
    shop.add(7)
    shop.release(shop.reserve(5))
    shop.adjust(-2)
    shop.deduct(hold)
    ledger = shop.ledger()
    for number, movement in enumerate(ledger):
        explained = shop.explain(at=movement.occurred_at, movements_max=1000)
        assert list(explained.movements) == ledger[number:]
        stock = explained.stock
        assert (stock.available_quantity, stock.reserved_quantity, stock.version, stock.updated_at) == (
            movement.available_after,
            movement.reserved_after,
            movement.version,
            movement.occurred_at,
        )
        on_hand, added, removed, deducted = totals(explained)
        assert on_hand == stock.available_quantity + stock.reserved_quantity == added - removed - deducted
        assert explained.consistent
    states = [holds(shop.explain(at=movement.occurred_at)) for movement in reversed(ledger)]
    assert states == [
        {},
        {OPEN: (1, 4)},
        {OPEN: (1, 4)},
        {OPEN: (2, 9)},
        {OPEN: (1, 4), GIVEN_BACK: (1, 5)},
        {OPEN: (1, 4), GIVEN_BACK: (1, 5)},
        {SOLD: (1, 4), GIVEN_BACK: (1, 5)},
    ]


def test_between_its_expiry_and_its_tidying_a_hold_was_expired_and_counted_as_reserved(shop: Shop) -> None:
    shop.expire(shop.reserve(4))
    shop.add(1)
    between = shop.ledger()[0].occurred_at
    shop.tidy()
    then, now = shop.explain(at=between), shop.explain()
    assert holds(then) == holds(now) == {EXPIRED: (1, 4)}
    assert (then.stock.available_quantity, then.stock.reserved_quantity) == (7, 4)
    assert (now.stock.available_quantity, now.stock.reserved_quantity) == (11, 0)


def test_before_it_was_sold_after_all_a_late_hold_was_expired(shop: Shop) -> None:
    shop.expire(late := shop.reserve(4))
    shop.tidy()
    between = shop.ledger()[0].occurred_at
    shop.deduct(late, pb.LATE_POLICY_REACQUIRE)
    assert holds(shop.explain(at=between)) == {EXPIRED: (1, 4)}
    assert holds(shop.explain()) == {SOLD: (1, 4)}


def test_an_extension_counts_from_when_it_was_made(shop: Shop) -> None:
    hold = shop.reserve(4)
    made = shop.ledger()[0].occurred_at
    shop.add(1)
    past_its_first_expiry = shop.ledger()[0].occurred_at
    shop.extend(hold)
    # Its time was short, and it was extended although that had passed: no server does so, a ledger can tell it.
    shop.alter("UPDATE inventory_reservations SET ttl_us = 1 WHERE reservation_id = %s", hold)
    assert holds(shop.explain(at=made)) == {OPEN: (1, 4)}
    assert holds(shop.explain(at=past_its_first_expiry)) == {EXPIRED: (1, 4)}
    assert holds(shop.explain()) == {OPEN: (1, 4)}


def test_a_moment_to_come_is_now(shop: Shop) -> None:
    assert shop.explain(at=Timestamp(seconds=253_402_300_799)) == shop.explain()


def test_a_moment_before_the_ledger_begins_is_refused(shop: Shop) -> None:
    began = shop.ledger()[0].occurred_at
    assert shop.explain(at=began).stock.version == 1
    before = Timestamp(seconds=began.seconds, nanos=began.nanos)
    before.FromMicroseconds(began.ToMicroseconds() - 1)
    assert began.ToJsonString()[:19] in bad_at(shop, before)
    bad_at(shop, Timestamp(seconds=-62_135_596_800))
    bad_at(shop, Timestamp(seconds=2**63 - 1))
    bad_at(shop, Timestamp(nanos=-1))


def test_what_is_wrong_with_the_request_is_told(shop: Shop) -> None:
    for fields, reason, field in (
        ({}, "INVALID_PRODUCT_ID", "product_id"),
        ({"product_id": "p", "movements_max": 1001}, "VALIDATION_ERROR", "movements_max"),
        ({"product_id": "p", "movements_max": -1}, "VALIDATION_ERROR", "movements_max"),
    ):
        with pytest.raises(grpc.RpcError) as raised:
            shop.stub.ExplainStock(pb.ExplainStockRequest(**fields))  # type: ignore[arg-type]
        check_wire(raised.value, reason, {"http_status": "400", "fields": field})


def test_a_product_without_a_record_is_not_found(shop: Shop) -> None:
    product_id = str(uuid4())
    with pytest.raises(grpc.RpcError) as raised:
        shop.stub.ExplainStock(pb.ExplainStockRequest(product_id=product_id))
    check_wire(raised.value, "PRODUCT_NOT_FOUND", {"http_status": "404", "product_id": product_id})


def test_what_does_not_agree_is_told_and_what_the_ledger_says_is_the_answer(shop: Shop) -> None:
    shop.reserve(4)
    shop.alter("UPDATE inventory_stock SET reserved_quantity = 3 WHERE product_id = %s", shop.product_id)
    explained = shop.explain()
    shop.alter("UPDATE inventory_stock SET reserved_quantity = 4 WHERE product_id = %s", shop.product_id)
    assert (explained.stock.available_quantity, explained.stock.reserved_quantity) == (6, 4)
    assert not explained.consistent
    assert list(explained.discrepancies) == [
        "the record has 6 available and 3 reserved at version 2, the ledger 6 and 4 at version 2",
        "10 were added, 0 removed and 0 deducted, but 6 are available and 3 reserved",
        "3 are reserved, but the holds hold 4",
    ]
    assert shop.explain().consistent

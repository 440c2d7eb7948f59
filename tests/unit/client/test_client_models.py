from __future__ import annotations

import dataclasses
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from inventory_client import (
    LatePolicy,
    MovementKind,
    ReleaseReason,
    Reservation,
    ReservationStatus,
    Stock,
    _calls,
    _values,
)
from inventory_client.models import derived_request_id, new_request_id
from inventory_client.proto.inventory.v1 import inventory_pb2 as pb

NOON = datetime(2027, 3, 4, 12, 0, 0, 123456, tzinfo=UTC)


def at(moment: datetime) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp


def test_stock_is_read_field_by_field() -> None:
    later = NOON + timedelta(microseconds=1)
    message = pb.Stock(
        product_id="teapot",
        available_quantity=10**12,
        reserved_quantity=2,
        version=3,
        created_at=at(NOON),
        updated_at=at(later),
    )
    assert _values.stock(message) == Stock(
        product_id="teapot",
        available_quantity=10**12,
        reserved_quantity=2,
        version=3,
        created_at=NOON,
        updated_at=later,
    )


def test_a_reservation_is_read_field_by_field() -> None:
    message = pb.Reservation(
        reservation_id="r-1",
        product_id="teapot",
        order_id="order-1",
        quantity=2,
        status=pb.RESERVATION_STATUS_RELEASED,
        expires_at=at(NOON + timedelta(minutes=10)),
        created_at=at(NOON),
        updated_at=at(NOON + timedelta(minutes=1)),
        release_reason=pb.RELEASE_REASON_EXPIRED,
    )
    assert _values.reservation(message) == Reservation(
        reservation_id="r-1",
        product_id="teapot",
        order_id="order-1",
        quantity=2,
        status=ReservationStatus.RELEASED,
        expires_at=NOON + timedelta(minutes=10),
        created_at=NOON,
        updated_at=NOON + timedelta(minutes=1),
        release_reason=ReleaseReason.EXPIRED,
    )


def test_times_are_in_utc_to_the_microsecond() -> None:
    created_at = _values.stock(pb.Stock(created_at=at(NOON))).created_at
    assert created_at.utcoffset() == timedelta(0)
    assert created_at.microsecond == 123456


@pytest.mark.parametrize(
    ("ours", "theirs"), [(ReservationStatus, pb.ReservationStatus), (ReleaseReason, pb.ReleaseReason)]
)
def test_each_enum_has_the_values_of_the_proto_and_one_for_the_future(ours: Any, theirs: Any) -> None:
    names = [value.name.removeprefix("RESERVATION_STATUS_") for value in theirs.DESCRIPTOR.values if value.number]
    assert [member.value for member in ours] == [name.removeprefix("RELEASE_REASON_") for name in names] + ["UNKNOWN"]


def test_values_newer_than_this_client_are_unknown() -> None:
    message = pb.Reservation.FromString(b"\x28\x63\x48\x63")  # status (field 5) and release_reason (field 9) are 99
    read = _values.reservation(message)
    assert (read.status, read.release_reason) == (ReservationStatus.UNKNOWN, ReleaseReason.UNKNOWN)
    movement = pb.Movement(kind=99)  # type: ignore[arg-type]
    assert _values.movement(movement).kind is MovementKind.UNKNOWN
    explained = pb.ExplainStockResponse(holds=[pb.HoldSummary(status=99, release_reason=99)])  # type: ignore[arg-type]
    [summary] = _values.explanation(explained).holds
    assert (summary.status, summary.release_reason) == (ReservationStatus.UNKNOWN, ReleaseReason.UNKNOWN)


def test_a_hold_that_is_not_released_has_no_release_reason() -> None:
    assert _values.reservation(pb.Reservation(status=pb.RESERVATION_STATUS_RESERVED)).release_reason is None


def test_answers_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        _values.stock(pb.Stock()).version = 2  # type: ignore[misc]


def test_a_zero_quantity_is_sent_not_left_out() -> None:
    request: Any = _calls.initialize_stock("teapot", 0, None).request
    assert request.HasField("quantity")


def test_the_ttl_is_sent_to_the_microsecond_and_left_out_when_not_given() -> None:
    request: Any = _calls.reserve_stock("teapot", "o", 1, timedelta(seconds=90, microseconds=5), None, None).request
    assert (request.ttl.seconds, request.ttl.nanos) == (90, 5000)
    without: Any = _calls.reserve_stock("teapot", "o", 1, None, None, None).request
    assert not without.HasField("ttl")


@pytest.mark.parametrize("given", [None, ""])
def test_a_request_id_is_made_up_as_a_uuid_of_version_7(given: str | None) -> None:
    one, other = (_calls.add_stock("teapot", 1, "", given).request_id for _ in range(2))
    assert uuid.UUID(one).version == 7
    assert one != other


@pytest.mark.parametrize("origin", ["01890a5d-ac96-774b-bcce-b302099a8057", str(uuid.uuid4()), "of a newer server"])
def test_the_id_of_a_request_that_follows_is_the_same_each_time_and_for_nothing_else(origin: str) -> None:
    derived = derived_request_id(origin, "deduct")
    assert derived == derived_request_id(origin, "deduct")
    assert len({origin, derived, derived_request_id(origin, "release"), derived_request_id("another", "deduct")}) == 4
    assert str(uuid.UUID(derived)) == derived


def test_the_id_of_a_request_that_follows_lies_near_its_origin_in_an_index() -> None:
    origin = new_request_id()
    assert derived_request_id(origin, "deduct")[:13] == origin[:13]


def test_a_request_id_that_is_given_is_sent_as_text() -> None:
    chosen = uuid.uuid4()
    assert _calls.release_reservation("r-1", chosen).request_id == str(chosen)
    assert _calls.deduct_reservation("r-1", LatePolicy.STRICT, "mine").request_id == "mine"


def test_a_read_has_no_request_id() -> None:
    assert _calls.get_stock("teapot").request_id is None


@pytest.mark.parametrize("quantity", ["3", 1.5])
def test_what_no_request_can_carry_is_a_type_error(quantity: Any) -> None:
    with pytest.raises(TypeError):
        _calls.add_stock("teapot", quantity, "", None)

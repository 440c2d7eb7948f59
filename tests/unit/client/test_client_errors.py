from __future__ import annotations

import pickle
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as PackedAny
from google.rpc.error_details_pb2 import ErrorInfo
from grpc import StatusCode

import inventory_client
from inventory_client import (
    Cancelled,
    DatabaseUnavailable,
    DeadlineExceeded,
    FieldViolation,
    InsufficientStock,
    InternalError,
    InvalidQuantity,
    InvalidStockState,
    InventoryError,
    Overloaded,
    PermissionDenied,
    ProductNotFound,
    ReleaseReason,
    ReservationAlreadyReleased,
    ReservationNotFound,
    ServiceUnavailable,
    Unauthenticated,
    UnexpectedError,
    Unimplemented,
    ValidationError,
    VersionMismatch,
)
from inventory_client._status import BY_REASON, error_of, error_of_status
from inventory_client.proto.inventory.v1 import inventory_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.rpc.status_pb2 import Status

    MakeStatus = Callable[..., Status]

REASONS = [value.name.removeprefix("ERROR_REASON_") for value in pb.ErrorReason.DESCRIPTOR.values if value.number]
CODES: dict[str, tuple[StatusCode, int]] = {
    "VALIDATION_ERROR": (StatusCode.INVALID_ARGUMENT, 400),
    "INVALID_PRODUCT_ID": (StatusCode.INVALID_ARGUMENT, 400),
    "INVALID_ORDER_ID": (StatusCode.INVALID_ARGUMENT, 400),
    "INVALID_QUANTITY": (StatusCode.INVALID_ARGUMENT, 400),
    "INVALID_RESERVATION_ID": (StatusCode.INVALID_ARGUMENT, 400),
    "PRODUCT_NOT_FOUND": (StatusCode.NOT_FOUND, 404),
    "RESERVATION_NOT_FOUND": (StatusCode.NOT_FOUND, 404),
    "INSUFFICIENT_STOCK": (StatusCode.FAILED_PRECONDITION, 409),
    "RESERVATION_ALREADY_RELEASED": (StatusCode.FAILED_PRECONDITION, 409),
    "RESERVATION_ALREADY_DEDUCTED": (StatusCode.FAILED_PRECONDITION, 409),
    "INVALID_STOCK_STATE": (StatusCode.FAILED_PRECONDITION, 409),
    "INTERNAL_ERROR": (StatusCode.INTERNAL, 500),
    "REQUEST_ID_CONFLICT": (StatusCode.ALREADY_EXISTS, 409),
    "VERSION_MISMATCH": (StatusCode.ABORTED, 409),
    "DATABASE_UNAVAILABLE": (StatusCode.UNAVAILABLE, 503),
    "OVERLOADED": (StatusCode.RESOURCE_EXHAUSTED, 429),
    "UNAUTHENTICATED": (StatusCode.UNAUTHENTICATED, 401),
    "PERMISSION_DENIED": (StatusCode.PERMISSION_DENIED, 403),
}


def camel(reason: str) -> str:
    return "".join(word.capitalize() for word in reason.split("_"))


def test_there_is_one_class_per_reason_of_the_proto_and_no_other() -> None:
    assert sorted(BY_REASON) == sorted(REASONS) == sorted(CODES)
    assert [cls.__name__ for cls in BY_REASON.values()] == [camel(reason) for reason in BY_REASON]


@pytest.mark.parametrize("reason", REASONS)
def test_each_reason_is_raised_as_its_public_class_with_its_code(reason: str, make_status: MakeStatus) -> None:
    code, http_status = CODES[reason]
    error = error_of_status(make_status(code, reason, message="a sentence"))
    assert type(error) is getattr(inventory_client, camel(reason))
    assert (error.reason, error.code, error.http_status, str(error)) == (reason, code, http_status, "a sentence")


@pytest.mark.parametrize("reason", REASONS)
def test_a_refusal_says_that_nothing_was_done_and_trouble_leaves_it_open(reason: str, make_status: MakeStatus) -> None:
    error = error_of_status(make_status(CODES[reason][0], reason))
    assert error.outcome_unknown == (reason in {"INTERNAL_ERROR", "DATABASE_UNAVAILABLE"})
    assert error_of_status(make_status(StatusCode.RESOURCE_EXHAUSTED)).outcome_unknown  # the answer may be too large


@pytest.mark.parametrize("reason", REASONS)
def test_an_error_made_by_hand_says_the_same_as_one_from_the_wire(reason: str) -> None:
    error = BY_REASON[reason]()
    assert (error.reason, error.code, error.http_status) == (reason, *CODES[reason])
    assert str(error) == reason


def test_the_metadata_is_read_into_typed_attributes(make_status: MakeStatus) -> None:
    said = {"product_id": "teapot", "requested": "3", "available": "2", "http_status": "409"}
    error = error_of_status(make_status(StatusCode.FAILED_PRECONDITION, "INSUFFICIENT_STOCK", metadata=said))
    assert isinstance(error, InsufficientStock)
    assert (error.product_id, error.requested, error.available) == ("teapot", 3, 2)
    assert error.metadata == said


def test_every_other_typed_attribute_reads_its_metadata() -> None:
    released = ReservationAlreadyReleased("", {"reservation_id": "r", "release_reason": "EXPIRED"})
    assert (released.reservation_id, released.release_reason) == ("r", ReleaseReason.EXPIRED)
    mismatch = VersionMismatch("", {"product_id": "teapot", "expected_version": "3", "version": "4"})
    assert (mismatch.product_id, mismatch.expected_version, mismatch.version) == ("teapot", 3, 4)
    state = InvalidStockState("", {"reservation_id": "r", "product_id": "teapot", "quantity": "3", "reserved": "1"})
    assert (state.reservation_id, state.product_id, state.quantity, state.reserved) == ("r", "teapot", 3, 1)
    assert ProductNotFound("", {"product_id": "teapot"}).product_id == "teapot"
    assert ReservationNotFound("", {"reservation_id": "r"}).reservation_id == "r"
    assert inventory_client.ReservationAlreadyDeducted("", {"reservation_id": "r"}).reservation_id == "r"


def test_missing_and_garbled_metadata_never_raises() -> None:
    assert InsufficientStock().available == 0
    assert InsufficientStock("", {"available": "plenty"}).available == 0
    assert ReservationAlreadyReleased("", {"release_reason": "BORED"}).release_reason is ReleaseReason.UNKNOWN


def test_a_newer_rule_for_requests_is_a_validation_error_that_keeps_its_reason(make_status: MakeStatus) -> None:
    error = error_of_status(make_status(StatusCode.INVALID_ARGUMENT, "INVALID_TTL", violations={"ttl": "is odd"}))
    assert type(error) is ValidationError
    assert (error.reason, error.http_status) == ("INVALID_TTL", 400)
    assert error.violations == (FieldViolation("ttl", "is odd"),)
    assert type(error_of_status(make_status(StatusCode.INVALID_ARGUMENT, "BAD", domain="a.proxy"))) is UnexpectedError


def test_the_attributes_of_a_class_can_be_looked_at() -> None:
    assert InsufficientStock.available is not None


def test_violations_name_the_bad_fields_under_one_base_class(make_status: MakeStatus) -> None:
    error = error_of_status(
        make_status(StatusCode.INVALID_ARGUMENT, "INVALID_QUANTITY", violations={"quantity": "must be at least 1"})
    )
    assert isinstance(error, InvalidQuantity)
    assert isinstance(error, ValidationError)
    assert error.violations == (FieldViolation("quantity", "must be at least 1"),)


def test_a_call_that_was_ended_by_closing_the_channel_is_not_made_again() -> None:
    assert not Cancelled("Channel closed!").retryable
    assert Cancelled("CANCELLED").retryable


def test_retry_info_becomes_a_timedelta(make_status: MakeStatus) -> None:
    error = error_of_status(make_status(StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE", retry_after=0.25))
    assert error.retry_after == timedelta(milliseconds=250)
    assert InventoryError().retry_after is None


@pytest.mark.parametrize(
    ("code", "cls", "http_status", "retryable"),
    [
        (StatusCode.DEADLINE_EXCEEDED, DeadlineExceeded, 504, True),
        (StatusCode.UNAVAILABLE, ServiceUnavailable, 503, True),
        (StatusCode.CANCELLED, Cancelled, 499, True),
        (StatusCode.UNIMPLEMENTED, Unimplemented, 501, False),
        (StatusCode.UNAUTHENTICATED, Unauthenticated, 401, False),
        (StatusCode.PERMISSION_DENIED, PermissionDenied, 403, False),
        (StatusCode.INTERNAL, UnexpectedError, 500, False),
        (StatusCode.RESOURCE_EXHAUSTED, UnexpectedError, 500, False),
    ],
)
def test_an_error_without_a_reason_is_told_apart_by_its_code(
    code: StatusCode, cls: type[InventoryError], http_status: int, *, retryable: bool, make_status: MakeStatus
) -> None:
    error = error_of_status(make_status(code))
    assert type(error) is cls
    assert (error.code, error.http_status, error.retryable) == (code, http_status, retryable)


def test_what_is_transient_is_retryable_and_a_refusal_is_not() -> None:
    assert DatabaseUnavailable().retryable
    assert Overloaded().retryable
    assert not InsufficientStock().retryable
    assert not InternalError().retryable


def test_a_reason_newer_than_this_client_is_kept_and_crashes_nothing(make_status: MakeStatus) -> None:
    error = error_of_status(make_status(StatusCode.FAILED_PRECONDITION, "MOON_IN_THE_WRONG_PHASE"))
    assert type(error) is UnexpectedError
    assert (error.reason, error.code) == ("MOON_IN_THE_WRONG_PHASE", StatusCode.FAILED_PRECONDITION)
    assert error_of_status(make_status(StatusCode.UNAVAILABLE, "MOON_IN_THE_WRONG_PHASE")).retryable


def test_the_reason_of_another_domain_is_not_ours(make_status: MakeStatus) -> None:
    error = error_of_status(make_status(StatusCode.NOT_FOUND, "PRODUCT_NOT_FOUND", domain="shop.example"))
    assert type(error) is UnexpectedError


def test_a_damaged_detail_is_passed_over(make_status: MakeStatus) -> None:
    status = make_status(StatusCode.NOT_FOUND, "PRODUCT_NOT_FOUND")
    broken = PackedAny(type_url=f"type.googleapis.com/{ErrorInfo.DESCRIPTOR.full_name}", value=b"\xff\xff")
    status.details.insert(0, broken)
    assert type(error_of_status(status)) is ProductNotFound


def test_a_detail_newer_than_this_client_and_figures_beyond_all_bounds_crash_nothing(make_status: MakeStatus) -> None:
    endless = {"http_status": "4" * 5000, "available": "4" * 5000}
    status = make_status(StatusCode.FAILED_PRECONDITION, "INSUFFICIENT_STOCK", metadata=endless, retry_after=2.0**60)
    status.details.append(PackedAny(type_url="type.googleapis.com/inventory.v2.Horoscope", value=b"\xff"))
    error = error_of_status(status)
    assert isinstance(error, InsufficientStock)
    assert (error.http_status, error.available, error.retry_after) == (409, 0, None)


@pytest.mark.parametrize("packed", [b"", b"\xff\xff\xff"])
def test_missing_and_damaged_details_leave_the_code(packed: bytes) -> None:
    trailers = grpc.aio.Metadata(("grpc-status-details-bin", packed), ("other", "thing"))
    failure = grpc.aio.AioRpcError(StatusCode.UNAVAILABLE, None, trailers, "connection refused")
    error = error_of(failure)
    assert type(error) is ServiceUnavailable
    assert str(error) == "connection refused"


def test_errors_survive_pickling_with_all_they_know(make_status: MakeStatus) -> None:
    error = error_of_status(
        make_status(
            StatusCode.FAILED_PRECONDITION,
            "INSUFFICIENT_STOCK",
            metadata={"available": "2"},
            violations={"quantity": "too many"},
            retry_after=1,
        )
    )
    error.request_id = "r-1"
    copy: Any = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(copy) is InsufficientStock
    assert (str(copy), vars(copy), copy.available) == (str(error), vars(error), 2)


def test_every_error_is_public_under_the_name_that_users_import() -> None:
    names = [name for name, value in vars(inventory_client).items() if isinstance(value, type)]
    public = [name for name in names if issubclass(getattr(inventory_client, name), InventoryError)]
    assert set(public) <= set(inventory_client.__all__)
    assert {getattr(inventory_client, name).__module__ for name in public} == {"inventory_client"}
    assert re.match(r"inventory_client\.Overloaded\b", f"{Overloaded.__module__}.{Overloaded.__qualname__}")

"""From what gRPC says to what we raise: the only reader of `google.rpc.Status`."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from google.protobuf.message import DecodeError, Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode

from inventory_client import errors
from inventory_client.errors import FieldViolation, InventoryError
from inventory_client.models import StockShortage
from inventory_client.proto.inventory.v1 import inventory_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import grpc

M = TypeVar("M", bound=Message)

DOMAIN = "inventory.v1"
DETAILS_KEY = "grpc-status-details-bin"

BY_REASON: Mapping[str, type[InventoryError]] = {
    cls.reason: cls
    for cls in (
        errors.ValidationError,
        errors.InvalidProductId,
        errors.InvalidOrderId,
        errors.InvalidQuantity,
        errors.InvalidReservationId,
        errors.ProductNotFound,
        errors.ReservationNotFound,
        errors.InsufficientStock,
        errors.ReservationAlreadyReleased,
        errors.ReservationAlreadyDeducted,
        errors.InvalidStockState,
        errors.InternalError,
        errors.RequestIdConflict,
        errors.VersionMismatch,
        errors.DatabaseUnavailable,
        errors.Overloaded,
        errors.Unauthenticated,
        errors.PermissionDenied,
    )
}

# for what the transport, a proxy or a newer server says
BY_CODE: Mapping[StatusCode, type[InventoryError]] = {
    cls.code: cls
    for cls in (
        errors.DeadlineExceeded,
        errors.ServiceUnavailable,
        errors.Cancelled,
        errors.Unimplemented,
        errors.Unauthenticated,
        errors.PermissionDenied,
    )
}

# The service has looked the request up and refused it: neither this attempt nor an earlier one has changed anything.
DECIDED = frozenset(
    {StatusCode.NOT_FOUND, StatusCode.ALREADY_EXISTS, StatusCode.FAILED_PRECONDITION, StatusCode.ABORTED}
)
# This attempt came to nothing before anybody looked; an earlier one may have come further.
_TURNED_AWAY = frozenset(
    {
        StatusCode.INVALID_ARGUMENT,
        StatusCode.UNAUTHENTICATED,
        StatusCode.PERMISSION_DENIED,
        StatusCode.UNIMPLEMENTED,
    }
)

_CODES: Mapping[int, StatusCode] = {code.value[0]: code for code in StatusCode}


def error_of(failure: grpc.RpcError) -> InventoryError:
    """Read the failure of a call."""
    trailers: Any = failure.trailing_metadata()  # the stubs know only one of the two shapes, both are pairs
    packed = next((value for key, value in trailers or () if key == DETAILS_KEY), b"")
    try:
        status = Status.FromString(packed)
    except DecodeError:  # a proxy may damage what it does not know
        status = Status()
    message = failure.details() or ""
    if message.startswith("failed to connect") and message.endswith("Socket closed"):
        message += ". Does the server expect TLS? This is how it ends a connection in plaintext."
    return error_from(failure.code(), message, status)


def error_of_status(status: Status) -> InventoryError:
    """Read the failure of one item of a batch."""
    return error_from(_CODES.get(status.code, StatusCode.UNKNOWN), status.message, status)


def error_from(code: StatusCode, message: str, status: Status) -> InventoryError:
    """Choose the class by the reason, and where that is missing or new, by the code."""
    info = _detail(status, ErrorInfo)
    known = _class_of(info.reason, code) if info.domain == DOMAIN else None
    cls = known or BY_CODE.get(code, errors.UnexpectedError)
    error = cls(message, info.metadata)
    error.code = code
    error.reason = info.reason or error.reason
    error.http_status = _http_status(info, cls)
    error.outcome_unknown = leaves_open(error, open_before=False)
    error.violations = tuple(
        FieldViolation(violation.field, violation.description, violation.reason)
        for violation in _detail(status, BadRequest).field_violations
    )
    if isinstance(error, (errors.InsufficientStock, errors.ProductNotFound)):
        error.lines = tuple(_shortage(short) for short in _details(status, pb.StockShortage))
    if isinstance(error, errors.InsufficientStock) and not error.lines:  # one line needs no list to be told
        error.lines = (StockShortage(error.product_id, error.requested, error.available),)
    retry = _detail(status, RetryInfo)
    if retry.HasField("retry_delay"):
        with suppress(OverflowError):  # longer than a timedelta can be, as no duration of the standard is
            error.retry_after = retry.retry_delay.ToTimedelta()
    return error


def leaves_open(error: InventoryError, *, open_before: bool) -> bool:
    """Tell whether a request may have been carried out although this is all that was heard of its last attempt."""
    if error.code in DECIDED:
        return False
    return open_before or not (error.code in _TURNED_AWAY or isinstance(error, errors.Overloaded))


def _details(status: Status, kind: type[M]) -> Iterator[M]:
    """Unpack the details of a kind, apart from those that cannot be read."""
    for packed in status.details:
        message = kind()
        with suppress(DecodeError):
            if packed.Unpack(message):
                yield message


def _detail(status: Status, kind: type[M]) -> M:
    """Unpack the first detail of a kind; an empty one where there is none that can be read."""
    return next(_details(status, kind), kind())


def _class_of(reason: str, code: StatusCode) -> type[InventoryError] | None:
    """Choose the class for what the service says; a newer one may know more that can be wrong with a request."""
    newer = errors.ValidationError if code is StatusCode.INVALID_ARGUMENT else None
    return BY_REASON.get(reason, newer)


def _shortage(message: pb.StockShortage) -> StockShortage:
    available = message.available if message.HasField("available") else None
    return StockShortage(message.product_id, message.requested, available)


def _http_status(info: ErrorInfo, cls: type[InventoryError]) -> int:
    text = info.metadata.get("http_status", "")
    return int(text) if text.isdecimal() and len(text) == 3 else cls.http_status

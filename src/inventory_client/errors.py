"""One exception class per reason of the proto's `ErrorReason`, and a few for what goes wrong on the way there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar, overload

from grpc import StatusCode

from inventory_client.models import ReleaseReason, StockShortage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import timedelta
    from typing import Self

T = TypeVar("T")


class FieldViolation(NamedTuple):
    """One bad field of a request: its name, what is wrong with it, and the reason it has as the only bad one."""

    field: str
    description: str
    reason: str = ""


class InventoryError(Exception):
    """Everything that a call can fail with, except for arguments that no request can carry (TypeError, ValueError).

    `reason` is the code of the contract, such as `INSUFFICIENT_STOCK`; assert on it or on the class, never on the
    sentence. `metadata` holds every value that the sentence names. `violations` lists the bad fields of an invalid
    request (of dozens the first; the metadata `omitted` tells how many more), `retry_after` is how long the server asks
    to be left alone.

    `request_id` is the id under which a mutation was sent. Where `outcome_unknown` says that it may have been carried
    out all the same, as after DeadlineExceeded, repeat the call with `request_id=error.request_id` to get what the
    first one did, or to do it now.

    The cause (`__cause__`) is the `grpc.RpcError`. All of them can be pickled.
    """

    reason: str = "UNEXPECTED"
    code: StatusCode = StatusCode.UNKNOWN
    http_status: int = 500
    violations: tuple[FieldViolation, ...] = ()
    retry_after: timedelta | None = None
    request_id: str | None = None
    outcome_unknown: bool = False

    def __init__(self, message: str = "", metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = dict(metadata or {})

    def __str__(self) -> str:
        return self.message or self.reason

    @property
    def retryable(self) -> bool:
        """Whether the same request, under the same request id, may succeed later."""
        return self.retry_after is not None or self.code in {StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED}


class _Told(Generic[T]):
    """An attribute that reads the metadata of the same name.

    It falls back where the server said nothing usable: handling an error must not raise another one.
    """

    def __init__(self, read: Callable[[str], T], fallback: T) -> None:
        self._read = read
        self._fallback = fallback

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, error: None, owner: type) -> Self: ...
    @overload
    def __get__(self, error: InventoryError, owner: type | None = None) -> T: ...
    def __get__(self, error: InventoryError | None, owner: type | None = None) -> T | Self:
        if error is None:  # as documentation tools and mocks ask for it
            return self
        try:
            return self._read(error.metadata[self._name])
        except (KeyError, ValueError):
            return self._fallback


class ValidationError(InventoryError):
    """A parameter breaks a rule that has no class of its own, or several are bad: see `violations`."""

    reason = "VALIDATION_ERROR"
    code = StatusCode.INVALID_ARGUMENT
    http_status = 400


class InvalidProductId(ValidationError):
    """The product id is empty or blank."""

    reason = "INVALID_PRODUCT_ID"


class InvalidOrderId(ValidationError):
    """The order id is empty or blank."""

    reason = "INVALID_ORDER_ID"


class InvalidQuantity(ValidationError):
    """The quantity is zero, negative or above the limit."""

    reason = "INVALID_QUANTITY"


class InvalidReservationId(ValidationError):
    """The reservation id is empty."""

    reason = "INVALID_RESERVATION_ID"


class ProductNotFound(InventoryError):
    """There is no inventory record of `product_id`; in an order of several lines, of none of those of `lines`."""

    reason = "PRODUCT_NOT_FOUND"
    code = StatusCode.NOT_FOUND
    http_status = 404
    product_id = _Told(str, "")
    lines: tuple[StockShortage, ...] = ()


class ReservationNotFound(InventoryError):
    """There is no hold `reservation_id`."""

    reason = "RESERVATION_NOT_FOUND"
    code = StatusCode.NOT_FOUND
    http_status = 404
    reservation_id = _Told(str, "")


class InsufficientStock(InventoryError):
    """Of `product_id`, `requested` units were asked for and `available` are there.

    `lines` has every product of which an order asks too much, also those without an inventory record; where only one
    product was asked for, that one.
    """

    reason = "INSUFFICIENT_STOCK"
    code = StatusCode.FAILED_PRECONDITION
    http_status = 409
    product_id = _Told(str, "")
    requested = _Told(int, 0)
    available = _Told(int, 0)
    lines: tuple[StockShortage, ...] = ()


class ReservationAlreadyReleased(InventoryError):
    """The hold `reservation_id` was released: by request or by expiry, as `release_reason` says."""

    reason = "RESERVATION_ALREADY_RELEASED"
    code = StatusCode.FAILED_PRECONDITION
    http_status = 409
    reservation_id = _Told(str, "")
    release_reason = _Told(ReleaseReason, ReleaseReason.UNKNOWN)


class ReservationAlreadyDeducted(InventoryError):
    """The hold `reservation_id` was deducted."""

    reason = "RESERVATION_ALREADY_DEDUCTED"
    code = StatusCode.FAILED_PRECONDITION
    http_status = 409
    reservation_id = _Told(str, "")


class InvalidStockState(InventoryError):
    """Of `product_id`, fewer units are `reserved` than the hold's `quantity`: somebody changed the tables by hand."""

    reason = "INVALID_STOCK_STATE"
    code = StatusCode.FAILED_PRECONDITION
    http_status = 409
    reservation_id = _Told(str, "")
    product_id = _Told(str, "")
    quantity = _Told(int, 0)
    reserved = _Told(int, 0)


class InternalError(InventoryError):
    """The server met something unexpected; its log tells the story."""

    reason = "INTERNAL_ERROR"
    code = StatusCode.INTERNAL
    http_status = 500


class RequestIdConflict(InventoryError):
    """Another request was made under this request id before."""

    reason = "REQUEST_ID_CONFLICT"
    code = StatusCode.ALREADY_EXISTS
    http_status = 409


class VersionMismatch(InventoryError):
    """The record of `product_id` has `version`, not `expected_version`."""

    reason = "VERSION_MISMATCH"
    code = StatusCode.ABORTED
    http_status = 409
    product_id = _Told(str, "")
    expected_version = _Told(int, 0)
    version = _Told(int, 0)


class DatabaseUnavailable(InventoryError):
    """The server cannot reach its database; retries have already been made, except for an item of a bulk call."""

    reason = "DATABASE_UNAVAILABLE"
    code = StatusCode.UNAVAILABLE
    http_status = 503


class Overloaded(InventoryError):
    """Too many requests are waiting in the server; retries have already been made, unless the overload lasts.

    Of an item of a bulk call none have been made.
    """

    reason = "OVERLOADED"
    code = StatusCode.RESOURCE_EXHAUSTED
    http_status = 429
    retryable = True


class Unauthenticated(InventoryError):
    """No token, or one that the server does not know."""

    reason = "UNAUTHENTICATED"
    code = StatusCode.UNAUTHENTICATED
    http_status = 401


class PermissionDenied(InventoryError):
    """The token does not allow this operation."""

    reason = "PERMISSION_DENIED"
    code = StatusCode.PERMISSION_DENIED
    http_status = 403


class DeadlineExceeded(InventoryError):
    """No answer came in time. Whether a mutation took place is unknown: see `InventoryError.request_id`."""

    reason = "DEADLINE_EXCEEDED"
    code = StatusCode.DEADLINE_EXCEEDED
    http_status = 504


class ServiceUnavailable(InventoryError):
    """No server was reached, or the connection broke before the answer; retries have already been made."""

    reason = "UNAVAILABLE"
    code = StatusCode.UNAVAILABLE
    http_status = 503


class Cancelled(InventoryError):
    """The call was cancelled on its way, as by a server that shuts down or a proxy, or by closing the channel here."""

    reason = "CANCELLED"
    code = StatusCode.CANCELLED
    http_status = 499

    @property
    def retryable(self) -> bool:
        """A server that stops cancels what it has not begun; who closed the channel here wants no other attempt."""
        return not self.message.startswith(("Channel closed", "Locally cancelled"))


class Unimplemented(InventoryError):
    """The server does not know this operation: it is older than this client, or not an inventory server."""

    reason = "UNIMPLEMENTED"
    code = StatusCode.UNIMPLEMENTED
    http_status = 501


class UnexpectedError(InventoryError):
    """Anything else: a fault of the transport, or a reason that is newer than this client (see `reason`, `code`)."""

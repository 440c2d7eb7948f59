"""What clients are told: one class per reason, with its sentence, its code and the values that the sentence names."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from grpc import StatusCode

from inventory_server.domain import ORDER_HOLDS_MAX, STOCK_MAX

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


# What a refusal tells travels in trailers, of which most gRPC clients take 8 KiB: bytes of the violations listed, each
# with its name once more in `fields`, violations and characters of an id that the sentence names.
_LISTED_BYTES_MAX = 2400
_NAMED_MAX = 5
_NAME_LENGTH_MAX = 64


class InventoryError(Exception):
    """A refusal that the contract names. `retry_after` in seconds is set where the same request may succeed later."""

    reason: ClassVar[str]
    code: ClassVar[StatusCode]
    http_status: ClassVar[int]
    retry_after: ClassVar[float | None] = None

    def __init__(self, sentence: str, metadata: Mapping[str, object] | None = None) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.metadata = {name: str(value) for name, value in (metadata or {}).items()}


class Violation(NamedTuple):
    """One bad field: its name, what is wrong, and the reason it has when it is the only bad one."""

    field: str
    description: str
    reason: str = "VALIDATION_ERROR"


class ValidationError(InventoryError):
    """Where more is wrong than an answer can hold, `violations` has the first, and `omitted` tells of how many more."""

    reason = "VALIDATION_ERROR"
    code = StatusCode.INVALID_ARGUMENT
    http_status = 400

    def __init__(self, violations: Sequence[Violation]) -> None:
        named = [f"{violation.field} {violation.description}" for violation in violations[:_NAMED_MAX]]
        if len(violations) > _NAMED_MAX:
            named.append(f"and {len(violations) - _NAMED_MAX} more")
        self.violations = _listed(violations)
        metadata = {"fields": ",".join(violation.field for violation in self.violations)}
        if omitted := len(violations) - len(self.violations):
            metadata["omitted"] = str(omitted)
        super().__init__(f"Invalid request: {'; '.join(named)}.", metadata)


class InvalidProductId(ValidationError):
    reason = "INVALID_PRODUCT_ID"


class InvalidOrderId(ValidationError):
    reason = "INVALID_ORDER_ID"

    @classmethod
    def of_large_order(cls) -> InvalidOrderId:
        description = f"names an order that has had more than {ORDER_HOLDS_MAX} holds; end them by their own ids"
        return cls([Violation("order_id", description, cls.reason)])


class InvalidQuantity(ValidationError):
    reason = "INVALID_QUANTITY"

    @classmethod
    def above_stock_limit(cls, field: str) -> InvalidQuantity:
        return cls([Violation(field, f"would take the stock above {STOCK_MAX} units", cls.reason)])


class InvalidReservationId(ValidationError):
    reason = "INVALID_RESERVATION_ID"


class Shortage(NamedTuple):
    """A product of which an order asks more than there is; `available` is None where there is no record."""

    product_id: str
    requested: int
    available: int | None


class ProductNotFound(InventoryError):
    reason = "PRODUCT_NOT_FOUND"
    code = StatusCode.NOT_FOUND
    http_status = 404

    def __init__(self, product_id: str, shortages: Sequence[Shortage] = ()) -> None:
        super().__init__(f"There is no inventory record of product {_name(product_id)}.", {"product_id": product_id})
        self.shortages = tuple(shortages)


class ReservationNotFound(InventoryError):
    reason = "RESERVATION_NOT_FOUND"
    code = StatusCode.NOT_FOUND
    http_status = 404

    def __init__(self, reservation_id: str) -> None:
        super().__init__(f"There is no reservation {reservation_id}.", {"reservation_id": reservation_id})

    @classmethod
    def of_order(cls, order_id: str) -> ReservationNotFound:
        error = cls("")
        InventoryError.__init__(error, f"Order {_name(order_id)} has no reservations.", {"order_id": order_id})
        return error


class InsufficientStock(InventoryError):
    reason = "INSUFFICIENT_STOCK"
    code = StatusCode.FAILED_PRECONDITION
    http_status = 409

    def __init__(self, product_id: str, requested: int, available: int, shortages: Sequence[Shortage] = ()) -> None:
        super().__init__(
            f"Product {_name(product_id)} has {available} units available, {requested} were requested.",
            {"product_id": product_id, "requested": requested, "available": available},
        )
        self.shortages = tuple(shortages)
        self._short = Shortage(product_id, requested, available)

    @property
    def available(self) -> dict[str, int]:
        """How many units there are of each product that is short; none where there is no record."""
        return {short.product_id: short.available or 0 for short in self._all}

    @property
    def lacking(self) -> int:
        """How many units are missing in all."""
        return sum(short.requested - (short.available or 0) for short in self._all)

    @property
    def _all(self) -> Sequence[Shortage]:
        return self.shortages or (self._short,)


class ReservationAlreadyReleased(InventoryError):
    reason = "RESERVATION_ALREADY_RELEASED"
    code = StatusCode.FAILED_PRECONDITION
    http_status = 409

    def __init__(self, reservation_id: str, release_reason: str) -> None:
        how = "by expiry" if release_reason == "EXPIRED" else "by request"
        super().__init__(
            f"Reservation {reservation_id} was already released {how}.",
            {"reservation_id": reservation_id, "release_reason": release_reason},
        )


class ReservationAlreadyDeducted(InventoryError):
    reason = "RESERVATION_ALREADY_DEDUCTED"
    code = StatusCode.FAILED_PRECONDITION
    http_status = 409

    def __init__(self, reservation_id: str) -> None:
        super().__init__(f"Reservation {reservation_id} was already deducted.", {"reservation_id": reservation_id})


class InvalidStockState(InventoryError):
    reason = "INVALID_STOCK_STATE"
    code = StatusCode.FAILED_PRECONDITION
    http_status = 409

    def __init__(self, reservation_id: str, product_id: str, quantity: int, reserved: int) -> None:
        super().__init__(
            f"Product {_name(product_id)} has {reserved} units reserved, fewer than the {quantity}"
            f" of reservation {reservation_id}.",
            {"reservation_id": reservation_id, "product_id": product_id, "quantity": quantity, "reserved": reserved},
        )


class InternalError(InventoryError):
    """Anything unexpected: the caller gets this sentence, the log gets the story."""

    reason = "INTERNAL_ERROR"
    code = StatusCode.INTERNAL
    http_status = 500

    def __init__(self) -> None:
        super().__init__("An unexpected error occurred.")


class RequestIdConflict(InventoryError):
    reason = "REQUEST_ID_CONFLICT"
    code = StatusCode.ALREADY_EXISTS
    http_status = 409

    def __init__(self, request_id: str) -> None:
        super().__init__(f"Another request was made under request id {request_id}.", {"request_id": request_id})


class VersionMismatch(InventoryError):
    reason = "VERSION_MISMATCH"
    code = StatusCode.ABORTED
    http_status = 409

    def __init__(self, product_id: str, expected_version: int, version: int) -> None:
        super().__init__(
            f"Product {_name(product_id)} has version {version}, not the expected {expected_version}.",
            {"product_id": product_id, "expected_version": expected_version, "version": version},
        )


class DatabaseUnavailable(InventoryError):
    reason = "DATABASE_UNAVAILABLE"
    code = StatusCode.UNAVAILABLE
    http_status = 503
    retry_after = 0.2

    def __init__(self) -> None:
        super().__init__("The database cannot be reached; retry with the same request id.")


class Overloaded(InventoryError):
    reason = "OVERLOADED"
    code = StatusCode.RESOURCE_EXHAUSTED
    http_status = 429
    retry_after = 0.1

    def __init__(self, sentence: str = "Too many requests are waiting; retry later with the same request id.") -> None:
        super().__init__(sentence)


class Unauthenticated(InventoryError):
    reason = "UNAUTHENTICATED"
    code = StatusCode.UNAUTHENTICATED
    http_status = 401

    def __init__(self) -> None:
        super().__init__("The call carries no token that this server knows.")


class PermissionDenied(InventoryError):
    reason = "PERMISSION_DENIED"
    code = StatusCode.PERMISSION_DENIED
    http_status = 403

    def __init__(self, method: str) -> None:
        super().__init__(f"The token does not allow {method}.", {"method": method})


class Stopping(Exception):
    """No refusal, so without a reason: the server stops before the request is done, which is for another to do."""


def invalid(violations: Sequence[Violation]) -> ValidationError:
    """One bad field is refused with its own reason, two or more with VALIDATION_ERROR."""
    reasons = {kind.reason: kind for kind in (InvalidProductId, InvalidOrderId, InvalidQuantity, InvalidReservationId)}
    if len(violations) == 1:
        return reasons.get(violations[0].reason, ValidationError)(violations)
    return ValidationError(violations)


def _listed(violations: Sequence[Violation]) -> tuple[Violation, ...]:
    sizes = accumulate(2 * len(each.field) + len(each.description) + len(each.reason) for each in violations)
    return tuple(each for each, size in zip(violations, sizes, strict=True) if size <= _LISTED_BYTES_MAX)


def _name(text: str) -> str:
    """Write an id as a sentence names it: one that is long only begins there, the metadata has all of it."""
    return text if len(text) <= _NAME_LENGTH_MAX else text[: _NAME_LENGTH_MAX - 1] + "…"

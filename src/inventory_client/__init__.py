"""The typed client of the inventory reservation service."""

from inventory_client import errors as _errors
from inventory_client.aio import AsyncHold, AsyncInventoryClient
from inventory_client.client import Hold, InventoryClient
from inventory_client.config import ClientConfig, RetryPolicy, Tls
from inventory_client.errors import (
    Cancelled,
    DatabaseUnavailable,
    DeadlineExceeded,
    FieldViolation,
    InsufficientStock,
    InternalError,
    InvalidOrderId,
    InvalidProductId,
    InvalidQuantity,
    InvalidReservationId,
    InvalidStockState,
    InventoryError,
    Overloaded,
    PermissionDenied,
    ProductNotFound,
    RequestIdConflict,
    ReservationAlreadyDeducted,
    ReservationAlreadyReleased,
    ReservationNotFound,
    ServiceUnavailable,
    Unauthenticated,
    UnexpectedError,
    Unimplemented,
    ValidationError,
    VersionMismatch,
)
from inventory_client.models import InitializeResult, ReleaseReason, Reservation, ReservationStatus, Stock

__all__ = [
    "AsyncHold",
    "AsyncInventoryClient",
    "Cancelled",
    "ClientConfig",
    "DatabaseUnavailable",
    "DeadlineExceeded",
    "FieldViolation",
    "Hold",
    "InitializeResult",
    "InsufficientStock",
    "InternalError",
    "InvalidOrderId",
    "InvalidProductId",
    "InvalidQuantity",
    "InvalidReservationId",
    "InvalidStockState",
    "InventoryClient",
    "InventoryError",
    "Overloaded",
    "PermissionDenied",
    "ProductNotFound",
    "ReleaseReason",
    "RequestIdConflict",
    "Reservation",
    "ReservationAlreadyDeducted",
    "ReservationAlreadyReleased",
    "ReservationNotFound",
    "ReservationStatus",
    "RetryPolicy",
    "ServiceUnavailable",
    "Stock",
    "Tls",
    "Unauthenticated",
    "UnexpectedError",
    "Unimplemented",
    "ValidationError",
    "VersionMismatch",
]

# Tracebacks and logs name an error as its users import it.
for _value in list(vars(_errors).values()):
    if isinstance(_value, type) and issubclass(_value, InventoryError):
        _value.__module__ = __name__
del _value

"""The typed client of the inventory reservation service."""

from inventory_client import errors as _errors
from inventory_client.aio import AsyncInventoryClient
from inventory_client.client import InventoryClient
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
from inventory_client.hold import AsyncHold, Hold
from inventory_client.ledger import HoldSummary, LowStock, Movement, MovementKind, StockEvent, StockExplanation
from inventory_client.listing import AsyncListing, Listing
from inventory_client.models import (
    AdjustmentReason,
    InitializeResult,
    LatePolicy,
    OrderLine,
    Page,
    ReleaseReason,
    Reservation,
    ReservationStatus,
    ReserveItem,
    SettleItem,
    SettlementAction,
    Stock,
    StockShortage,
    new_request_id,
)
from inventory_client.order_hold import AsyncOrderHold, OrderHold
from inventory_client.watch import AsyncStockWatch, StockWatch

__all__ = [
    "AdjustmentReason",
    "AsyncHold",
    "AsyncInventoryClient",
    "AsyncListing",
    "AsyncOrderHold",
    "AsyncStockWatch",
    "Cancelled",
    "ClientConfig",
    "DatabaseUnavailable",
    "DeadlineExceeded",
    "FieldViolation",
    "Hold",
    "HoldSummary",
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
    "LatePolicy",
    "Listing",
    "LowStock",
    "Movement",
    "MovementKind",
    "OrderHold",
    "OrderLine",
    "Overloaded",
    "Page",
    "PermissionDenied",
    "ProductNotFound",
    "ReleaseReason",
    "RequestIdConflict",
    "Reservation",
    "ReservationAlreadyDeducted",
    "ReservationAlreadyReleased",
    "ReservationNotFound",
    "ReservationStatus",
    "ReserveItem",
    "RetryPolicy",
    "ServiceUnavailable",
    "SettleItem",
    "SettlementAction",
    "Stock",
    "StockEvent",
    "StockExplanation",
    "StockShortage",
    "StockWatch",
    "Tls",
    "Unauthenticated",
    "UnexpectedError",
    "Unimplemented",
    "ValidationError",
    "VersionMismatch",
    "new_request_id",
]

# Tracebacks and logs name an error as its users import it.
for _value in list(vars(_errors).values()):
    if isinstance(_value, type) and issubclass(_value, InventoryError):
        _value.__module__ = __name__
del _value

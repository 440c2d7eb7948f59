"""What the service answers, as plain values: times in UTC to the microsecond, quantities in units."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime


class ReservationStatus(StrEnum):
    """Where a hold stands. RELEASED and DEDUCTED are final."""

    RESERVED = "RESERVED"
    RELEASED = "RELEASED"
    DEDUCTED = "DEDUCTED"
    #: A newer server said something that this client does not know.
    UNKNOWN = "UNKNOWN"


class ReleaseReason(StrEnum):
    """Why a hold was released."""

    REQUESTED = "REQUESTED"
    EXPIRED = "EXPIRED"
    #: A newer server said something that this client does not know.
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stock:
    """The balances of one product.

    `available_quantity` can be reserved now, `reserved_quantity` is held by reservations that are RESERVED.
    `version` counts the changes of the record, from 1 for its creation.
    """

    product_id: str
    available_quantity: int
    reserved_quantity: int
    version: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class InitializeResult:
    """The record that exists now, and whether this very request created it."""

    stock: Stock
    created: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """Units of one product held for an order.

    From `expires_at` of the database's clock on, the hold cannot be deducted. `release_reason` is None unless the
    status is RELEASED.
    """

    reservation_id: str
    product_id: str
    order_id: str
    quantity: int
    status: ReservationStatus
    expires_at: datetime
    created_at: datetime
    updated_at: datetime
    release_reason: ReleaseReason | None = None

"""The values of the inventory and the rules that need no database.

Moments and durations are whole microseconds: exact, cheap to compare, and what PostgreSQL itself keeps.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

ID_LENGTH_MAX = 255
QUANTITY_MAX = 1_000_000_000_000
TTL_US_MIN = 1_000_000
TTL_US_MAX = 86_400_000_000
# One record holds at most this much, so that JSON readers with 53-bit numbers read every balance exactly.
STOCK_MAX = 1_000_000_000_000_000


class ReservationStatus(StrEnum):
    """Where a hold stands; RELEASED and DEDUCTED are final."""

    RESERVED = "RESERVED"
    RELEASED = "RELEASED"
    DEDUCTED = "DEDUCTED"


class ReleaseReason(StrEnum):
    """Why a hold was released."""

    REQUESTED = "REQUESTED"
    EXPIRED = "EXPIRED"


class Action(StrEnum):
    """What a settlement does to a hold."""

    RELEASE = "RELEASE"
    DEDUCT = "DEDUCT"


class Stock(NamedTuple):
    """The balances of one product."""

    product_id: str
    available: int
    reserved: int
    version: int
    created_at_us: int
    updated_at_us: int


class Reservation(NamedTuple):
    """Units of one product held for an order."""

    reservation_id: str
    product_id: str
    order_id: str
    quantity: int
    status: str
    release_reason: str | None
    expires_at_us: int
    created_at_us: int
    updated_at_us: int


class Initialize(NamedTuple):
    """A record to create."""

    product_id: str
    quantity: int
    request_id: str


class Initialized(NamedTuple):
    """The record that exists, and whether this request created it."""

    stock: Stock
    created: bool


class Add(NamedTuple):
    """Units to add."""

    product_id: str
    quantity: int
    request_id: str
    reason: str


class Reserve(NamedTuple):
    """A hold to make. `ttl_us` is what it lasts; `ttl_given` tells whether the request said so."""

    reservation_id: str
    product_id: str
    order_id: str
    quantity: int
    ttl_us: int
    ttl_given: bool


class Order(NamedTuple):
    """Holds to make together: all or none."""

    request_id: str
    lines: tuple[Reserve, ...]


class Settle(NamedTuple):
    """A hold to end."""

    reservation_id: str
    action: Action
    request_id: str

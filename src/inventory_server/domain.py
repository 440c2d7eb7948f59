"""The values of the inventory and the rules that need no database.

Moments and durations are whole microseconds: exact, cheap to compare, and what PostgreSQL itself keeps.
"""

from __future__ import annotations

import hashlib
import uuid
from enum import StrEnum
from typing import NamedTuple

ID_LENGTH_MAX = 255
QUANTITY_MAX = 1_000_000_000_000
TTL_US_MIN = 1_000_000
TTL_US_MAX = 86_400_000_000
WAIT_US_MAX = 30_000_000
# Of an order that is ended as one; inventory_settle_orders_v2 and inventory_extend_orders_v1 say it too.
ORDER_HOLDS_MAX = 1000
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
    """What a settlement does to a hold; REACQUIRE deducts one that has expired from the available quantity."""

    RELEASE = "RELEASE"
    DEDUCT = "DEDUCT"
    REACQUIRE = "REACQUIRE"


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


class Replayed(Reservation):
    """A hold as an earlier copy of the request was told of it; it may have changed since."""

    __slots__ = ()


class Movement(NamedTuple):
    """One change of one product's balances, as the ledger tells it."""

    product_id: str
    version: int
    kind: str
    available_delta: int
    reserved_delta: int
    available_after: int
    reserved_after: int
    request_id: str | None
    reservation_id: str | None
    order_id: str | None
    reason: str | None
    occurred_at_us: int


class Position(NamedTuple):
    """A place in the ledger of all products; positions compare as the ledger is ordered."""

    transaction_id: int
    product_id: str
    version: int


class FeedChange(NamedTuple):
    """A movement and its place in the ledger of all products."""

    position: Position
    movement: Movement


class HoldSummary(NamedTuple):
    """The holds of a product that stand alike."""

    status: str
    release_reason: str | None
    holds: int
    quantity: int


class Explanation(NamedTuple):
    """Why a product has its balances: `discrepancies` are as of now, all else as of the moment asked for."""

    stock: Stock
    added: int
    removed: int
    deducted: int
    holds: tuple[HoldSummary, ...]
    movements: tuple[Movement, ...]
    discrepancies: tuple[str, ...]


class Initialize(NamedTuple):
    """A record to create."""

    product_id: str
    quantity: int
    request_id: str


class Initialized(NamedTuple):
    """The record that exists, and whether this request created it."""

    stock: Stock
    created: bool


class Change(NamedTuple):
    """Units to add (kind ADD) or to correct by (kind ADJUST), at an expected version or at any."""

    product_id: str
    kind: str
    delta: int
    reason: str
    expected_version: int | None
    request_id: str


class Reserve(NamedTuple):
    """A hold to make. `ttl_us` is what it lasts; `ttl_given` tells whether the request said so."""

    reservation_id: str
    product_id: str
    order_id: str
    quantity: int
    ttl_us: int
    ttl_given: bool


class Order(NamedTuple):
    """Holds to make together: all or none. `wait` is how many seconds they may wait for units to come back."""

    request_id: str
    lines: tuple[Reserve, ...]
    wait: float = 0.0

    @property
    def wanted(self) -> dict[str, int]:
        """How many units it asks for of each product: lines of one product count together."""
        units: dict[str, int] = {}
        for line in self.lines:
            units[line.product_id] = units.get(line.product_id, 0) + line.quantity
        return units

    @property
    def has_lines(self) -> bool:
        """Whether it was asked for line by line, even if by one: a single hold bears the id of its request."""
        return self.lines[0].reservation_id != self.request_id


class Settle(NamedTuple):
    """A hold to end."""

    reservation_id: str
    action: Action
    request_id: str


class SettleOrder(NamedTuple):
    """An order whose holds are to end; `skip_released`: those released by request do not count as gone."""

    order_id: str
    action: Action
    request_id: str
    skip_released: bool = False


class Extend(NamedTuple):
    """A hold to give more time."""

    reservation_id: str
    ttl_us: int
    request_id: str


class ExtendOrder(NamedTuple):
    """An order whose holds are to get more time, all together."""

    order_id: str
    ttl_us: int
    request_id: str


class Rows(NamedTuple):
    """What the request names whose stock rows it locks: products, or a hold, or an order."""

    product_ids: tuple[str, ...] = ()
    reservation_id: str = ""
    order_id: str = ""

    @property
    def key(self) -> str:
        """What stands for the request itself."""
        return self.reservation_id or self.order_id or self.product_ids[0]


def line_ids(request_id: str, content: str, count: int) -> list[str]:
    """Derive the ids of an order's holds from its request.

    Each begins with the request's first bits, so that those of a UUIDv7 lie together in time. The rest is a digest of
    the request: another request under the same id makes other holds, which its movements in the ledger then betray.
    """
    digest = hashlib.sha256(f"{request_id}\0{content}".encode()).digest()
    bits = uuid.UUID(request_id).int >> 80 << 80 | int.from_bytes(digest[:10])
    return [str(uuid.UUID(int=_as_version_8(bits ^ number))) for number in range(count)]


def _as_version_8(bits: int) -> int:
    """Mark 128 bits as a UUID of version 8, whose content is up to its maker (RFC 9562)."""
    return bits & ~(0xF << 76) & ~(0x3 << 62) | 0x8 << 76 | 0x2 << 62

"""What is asked and answered, as plain values: times in UTC to the microsecond, quantities in units."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar
from uuid import NAMESPACE_OID, UUID, uuid5

import uuid_utils

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime, timedelta

T = TypeVar("T")

# what follows the time in a UUIDv7
_TIMELESS_BITS = 80


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


class LatePolicy(StrEnum):
    """What a deduct does with a hold that has expired."""

    #: Refuse it.
    STRICT = "STRICT"
    #: Take its units again if so many are available, or refuse it as InsufficientStock.
    REACQUIRE = "REACQUIRE"


class SettlementAction(StrEnum):
    """How a hold ends."""

    RELEASE = "RELEASE"
    DEDUCT = "DEDUCT"


class AdjustmentReason(StrEnum):
    """Why stock is corrected."""

    #: Somebody counted.
    COUNT = "COUNT"
    DAMAGE = "DAMAGE"
    #: Units are lost or stolen.
    LOSS = "LOSS"
    #: Sold units came back.
    RETURN = "RETURN"
    #: An earlier entry was wrong.
    CORRECTION = "CORRECTION"
    #: Units moved to or from another place.
    TRANSFER = "TRANSFER"


def new_request_id() -> str:
    """Make a UUIDv7: ids that follow one another in time lie together in the server's indexes."""
    return str(uuid_utils.uuid7())


def derived_request_id(origin: str, purpose: str) -> str:
    """Make the id of a request that follows from another one: whoever repeats the one repeats the other, too.

    It begins as its origin does, with the time, so that both lie together in the server's indexes.
    """
    try:
        base = UUID(origin)
    except ValueError:  # no id that a server of today would take or give
        base = uuid5(NAMESPACE_OID, origin)
    rest = uuid5(base, purpose).int & ((1 << _TIMELESS_BITS) - 1)
    return str(UUID(int=base.int >> _TIMELESS_BITS << _TIMELESS_BITS | rest))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stock:
    """The balances of one product.

    `available_quantity` can be reserved now, `reserved_quantity` is held by reservations that are RESERVED, or have
    expired and are not tidied up yet: who asks for more than is available gets units of those.
    `version` counts the movements of its ledger, from 1 for its creation, also those that give a hold more time;
    `updated_at` is when the last one took place.
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


class OrderLine(NamedTuple):
    """One line of an order; a plain tuple of the two does as well."""

    product_id: str
    quantity: int


class StockShortage(NamedTuple):
    """A product of which all lines of an order together ask for more than there is.

    `available` is None where the product has no inventory record.
    """

    product_id: str
    requested: int
    available: int | None


def _made_up(item: ReserveItem | SettleItem) -> None:
    """Give an item whose request id is empty one of its own, once: the server would make up another at each attempt."""
    if not item.request_id:
        object.__setattr__(item, "request_id", new_request_id())


@dataclass(frozen=True, slots=True)
class ReserveItem:
    """One hold to make in a batch. It is one request: the same item, sent again, is never done twice."""

    product_id: str
    order_id: str
    quantity: int
    ttl: timedelta | None = None
    request_id: str | UUID = field(default_factory=new_request_id)

    def __post_init__(self) -> None:
        _made_up(self)


@dataclass(frozen=True, slots=True)
class SettleItem:
    """One hold to end in a batch. It is one request: the same item, sent again, is never done twice."""

    reservation_id: str
    action: SettlementAction
    late_policy: LatePolicy = LatePolicy.STRICT
    request_id: str | UUID = field(default_factory=new_request_id)

    def __post_init__(self) -> None:
        _made_up(self)


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some of what a listing has. `next_page_token` asks for the next page; empty on the last one."""

    items: tuple[T, ...]
    next_page_token: str

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

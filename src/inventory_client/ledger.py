"""What the ledger tells: movements, the events of the live feed, and why a product has its balances."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from inventory_client.models import ReleaseReason, ReservationStatus, Stock


class MovementKind(StrEnum):
    """What changed a product's balances."""

    INITIALIZE = "INITIALIZE"
    ADD = "ADD"
    RESERVE = "RESERVE"
    RELEASE = "RELEASE"
    EXPIRE = "EXPIRE"
    DEDUCT = "DEDUCT"
    ADJUST = "ADJUST"
    #: A hold got more time; no balance changed.
    EXTEND = "EXTEND"
    #: An expired hold was sold from the available quantity.
    REACQUIRE = "REACQUIRE"
    #: Older movements were removed; the balances after them are carried forward.
    CARRY_FORWARD = "CARRY_FORWARD"
    #: A newer server said something that this client does not know.
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """One change of one product's balances; it made the record's `version`: 1, 2, 3 … for each product.

    `request_id` is None for an expiry, `reservation_id` and `order_id` where no hold was concerned, `reason` where
    nobody gave one.
    """

    product_id: str
    version: int
    kind: MovementKind
    available_delta: int
    reserved_delta: int
    available_after: int
    reserved_after: int
    request_id: str | None
    reservation_id: str | None
    order_id: str | None
    reason: str | None
    occurred_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class LowStock:
    """The available quantity fell from above `threshold` to it or below, with the movement that made `version`."""

    product_id: str
    threshold: int
    available_quantity: int
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StockEvent:
    """One event of the live feed. Keep `resume_token` with what you made of the event, to go on after it later."""

    change: Movement | LowStock
    resume_token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldSummary:
    """The holds of a product that stand alike: how many there are, and the units they hold or held."""

    status: ReservationStatus
    release_reason: ReleaseReason | None
    count: int
    quantity: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StockExplanation:
    """Why a product has, or had, its balances.

    `stock` is rebuilt from the ledger; `on_hand_quantity` is its available and reserved quantity together. Until that
    moment `added_quantity` units came in, `removed_quantity` were corrected away and `deducted_quantity` were sold.
    `movements` are the last ones until then, newest first. `consistent` tells whether ledger, counters and holds agree
    now (of more than half a million movements the totals alone), and `discrepancies` where they do not, as sentences.
    """

    stock: Stock
    on_hand_quantity: int
    added_quantity: int
    removed_quantity: int
    deducted_quantity: int
    holds: tuple[HoldSummary, ...]
    movements: tuple[Movement, ...]
    consistent: bool
    discrepancies: tuple[str, ...]

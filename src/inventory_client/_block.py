"""What the blocks of a hold and of an order share, for threads and for asyncio."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Protocol, TypeVar

from inventory_client._status import DECIDED
from inventory_client.errors import (
    InventoryError,
    ReservationAlreadyDeducted,
    ReservationAlreadyReleased,
    UnexpectedError,
)
from inventory_client.models import ReservationStatus, derived_request_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from datetime import datetime

    from inventory_client.models import Reservation

# how long a block that failed waits for the release of its hold; the hold also ends by itself
ABANDON_TIMEOUT_SECONDS = 2.0

_log = logging.getLogger("inventory_client")


class Held(Protocol):
    """What a failed block gives back."""

    def _abandon(self) -> None: ...


class AsyncHeld(Protocol):
    """What a failed block of asyncio gives back."""

    async def _abandon(self) -> None: ...


H = TypeVar("H", bound=Held)
A = TypeVar("A", bound=AsyncHeld)


@contextmanager
def block(held: H) -> Iterator[H]:
    """Let a block decide about what is held."""
    try:
        yield held
    except BaseException:
        held._abandon()  # noqa: SLF001 - only a failed block may do this
        raise


@asynccontextmanager
async def async_block(held: A) -> AsyncIterator[A]:
    """Let a block of asyncio decide about what is held."""
    try:
        yield held
    except BaseException:
        await held._abandon()  # noqa: SLF001 - only a failed block may do this
        raise


class Deduct:
    """A deduct that may be made again under its one request id; `unknown` tells whether it may have taken place.

    The id derives from the request that made the hold: a process that takes over from one that died in its block
    repeats that one's deduct, and is answered, where another id would be told that the hold is sold.
    """

    def __init__(self, origin: str) -> None:
        self.request_id = derived_request_id(origin, "deduct")
        self.unknown = False

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Take note of how a call ends. One that is cut off, as by cancelling its task, has no known outcome."""
        before, self.unknown = self.unknown, True
        try:
            yield
        except InventoryError as error:
            self.unknown = error.outcome_unknown or (before and error.code not in DECIDED)
            raise
        self.unknown = False


def log_kept(what: str, ends_at: datetime, deduct: Deduct) -> None:
    """Tell that a failed block keeps what it holds, which may be sold, and how to find out."""
    _log.warning(
        "%s is kept after an exception, as nobody knows whether it was deducted; if not, it ends at %s:"
        " repeat the deduct under its request id %s",
        what,
        ends_at.isoformat(),
        deduct.request_id,
    )


def log_not_released(what: str, ends_at: datetime) -> None:
    """Tell that a hold outlives its failed block; to be called where the release failed."""
    _log.warning("could not release %s after an exception; it ends at %s", what, ends_at.isoformat(), exc_info=True)


def still_reserved(held: Reservation) -> Reservation:
    """Refuse a hold that has ended since it was made, as if somebody had tried to end it again."""
    told = {"reservation_id": held.reservation_id, "release_reason": str(held.release_reason or "")}
    match held.status:
        case ReservationStatus.RESERVED:
            return held
        case ReservationStatus.DEDUCTED:
            raise ReservationAlreadyDeducted(f"Reservation {held.reservation_id} was already deducted.", told)
        case ReservationStatus.RELEASED:
            raise ReservationAlreadyReleased(f"Reservation {held.reservation_id} was already released.", told)
        case _:
            raise UnexpectedError(
                f"Reservation {held.reservation_id} has a status that is newer than this client.", told
            )

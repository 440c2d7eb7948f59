"""What the blocks of a hold and of an order share, for threads and for asyncio."""
# ruff: noqa: ASYNC109 - gRPC's own deadlines reach the server, asyncio.timeout would not

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from inventory_client._status import DECIDED
from inventory_client.errors import (
    InventoryError,
    ReservationAlreadyDeducted,
    ReservationAlreadyReleased,
    UnexpectedError,
)
from inventory_client.models import ReservationStatus, derived_request_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterator
    from datetime import datetime

    from inventory_client.models import Reservation

# how long a block that failed waits for the release of its hold; the hold also ends by itself
ABANDON_TIMEOUT_SECONDS = 2.0

_log = logging.getLogger("inventory_client")

_going_on: set[asyncio.Task[None]] = set()


class Held(ABC):
    """What a block decides about: holds, and how they would be sold."""

    _deduct: Deduct

    @abstractmethod
    def _holds(self) -> tuple[Reservation, ...]:
        """The holds as last answered."""

    @abstractmethod
    def _named(self) -> str:
        """What they are together."""

    def _gives_back(self) -> bool:
        """Tell whether a failed block has anything to give back. What may be sold is kept, and the log says so."""
        if all(held.status is not ReservationStatus.RESERVED for held in self._holds()):
            return False
        if self._deduct.unknown:
            log_kept(self._named(), self._ends_at(), self._deduct)
        return not self._deduct.unknown

    @contextmanager
    def _giving_back(self) -> Iterator[None]:
        """Give back as well as may be: whatever goes wrong, the exception of the block matters more."""
        try:
            yield
        except (ReservationAlreadyReleased, ReservationAlreadyDeducted):
            pass  # there is nothing left to give back
        except Exception:  # noqa: BLE001 - see above
            log_not_released(self._named(), self._ends_at())
        except (KeyboardInterrupt, asyncio.CancelledError):
            log_not_released(self._named(), self._ends_at())
            raise

    def _ends_at(self) -> datetime:
        return min(held.expires_at for held in self._holds())


class Releasable(Held):
    """What a failed block gives back."""

    @abstractmethod
    def release(self, *, timeout: float | None = None) -> object:
        """Give all of it back."""


class AsyncReleasable(Held):
    """What a failed block of asyncio gives back."""

    @abstractmethod
    async def release(self, *, timeout: float | None = None) -> object:
        """Give all of it back."""


H = TypeVar("H", bound=Releasable)
A = TypeVar("A", bound=AsyncReleasable)


@contextmanager
def block(held: H) -> Iterator[H]:
    """Let a block decide about what is held."""
    try:
        yield held
    except BaseException:
        if held._gives_back():  # noqa: SLF001 - only a failed block may do this
            with held._giving_back():  # noqa: SLF001
                held.release(timeout=ABANDON_TIMEOUT_SECONDS)
        raise


@asynccontextmanager
async def async_block(held: A) -> AsyncIterator[A]:
    """Let a block of asyncio decide about what is held."""
    try:
        yield held
    except BaseException:
        if held._gives_back():  # noqa: SLF001 - only a failed block may do this
            await finished(_give_back(held))
        raise


async def _give_back(held: AsyncReleasable) -> None:
    with held._giving_back():  # noqa: SLF001 - see above
        await held.release(timeout=ABANDON_TIMEOUT_SECONDS)


async def finished(work: Coroutine[Any, Any, None]) -> None:
    """Wait for what a failed task must still do; cancelled once more, it leaves that to the event loop."""
    task = asyncio.create_task(work)
    _going_on.add(task)  # the event loop itself would let it be collected
    task.add_done_callback(_going_on.discard)
    await asyncio.shield(task)


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


def log_not_undone(request_id: str) -> None:
    """Tell that a reserve of unknown outcome could not be undone; to be called where that failed."""
    _log.warning(
        "could not find out whether the reserve under request id %s took place; what it holds ends by its ttl",
        request_id,
        exc_info=True,
    )


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

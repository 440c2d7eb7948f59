"""Reserves of unknown outcome: what they may have taken is found and given back, for threads and for asyncio."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from inventory_client._block import ABANDON_TIMEOUT_SECONDS, finished, log_not_undone
from inventory_client._status import DECIDED
from inventory_client.errors import InventoryError, ReservationAlreadyReleased
from inventory_client.models import SettleItem, SettlementAction, derived_request_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator

    from inventory_client.aio import AsyncInventoryClient
    from inventory_client.client import InventoryClient
    from inventory_client.models import Reservation


@contextmanager
def undoing(
    client: InventoryClient, again: Callable[[], Iterable[Reservation]], request_id: str, *, made_up: bool
) -> Iterator[None]:
    """Give back what a reserve that fails here took all the same, unless its caller can repeat it.

    `again` repeats it, to learn what it took. It may take that only now; a release alone would not find what a copy
    that is still on its way takes later. Whoever brings an id of his own may share the hold with another process.
    """
    try:
        yield
    except BaseException as failure:
        if made_up and _left_open(failure):
            _undo(client, again, request_id)
        raise


@asynccontextmanager
async def async_undoing(
    client: AsyncInventoryClient,
    again: Callable[[], Awaitable[Iterable[Reservation]]],
    request_id: str,
    *,
    made_up: bool,
) -> AsyncIterator[None]:
    """Do as `undoing`."""
    try:
        yield
    except BaseException as failure:
        if made_up and _left_open(failure):
            await finished(_async_undo(client, again, request_id))
        raise


def _undo(client: InventoryClient, again: Callable[[], Iterable[Reservation]], request_id: str) -> None:
    try:
        _check(client.batch_settle_reservations(_releases(again()), timeout=ABANDON_TIMEOUT_SECONDS))
    except Exception as error:  # noqa: BLE001 - whatever it is, the failure of the reserve matters more
        _tell(error, request_id)
    except BaseException:
        log_not_undone(request_id)
        raise


async def _async_undo(
    client: AsyncInventoryClient, again: Callable[[], Awaitable[Iterable[Reservation]]], request_id: str
) -> None:
    try:
        _check(await client.batch_settle_reservations(_releases(await again()), timeout=ABANDON_TIMEOUT_SECONDS))
    except Exception as error:  # noqa: BLE001 - whatever it is, the failure of the reserve matters more
        _tell(error, request_id)
    except asyncio.CancelledError:
        log_not_undone(request_id)
        raise


def _left_open(failure: BaseException) -> bool:
    """Tell whether a reserve may have taken place; what is no InventoryError, as a TypeError, came before it."""
    if isinstance(failure, InventoryError):
        return failure.outcome_unknown
    return not isinstance(failure, Exception)  # its task was cancelled, or somebody pressed Ctrl-C


def _releases(held: Iterable[Reservation]) -> list[SettleItem]:
    """End these and nothing else: the order may have holds from elsewhere."""
    return [
        SettleItem(
            each.reservation_id,
            SettlementAction.RELEASE,
            request_id=derived_request_id(each.reservation_id, "release"),
        )
        for each in held
    ]


def _check(outcomes: Iterable[Reservation | InventoryError]) -> None:
    for outcome in outcomes:
        if isinstance(outcome, InventoryError) and not isinstance(outcome, ReservationAlreadyReleased):
            raise outcome


def _tell(error: Exception, request_id: str) -> None:
    """Log what failed, unless the service has said that there is nothing to give back."""
    if not (isinstance(error, InventoryError) and error.code in DECIDED):
        log_not_undone(request_id)

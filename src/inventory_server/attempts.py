"""Attempts at a batch: one bad item must not spoil its neighbours, and equal questions share one answer."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeVar

from inventory_server.errors import DatabaseUnavailable, InternalError, InventoryError
from inventory_server.postgres.database import BadItem, RowLocked

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Value = TypeVar("Value")

# How often a batch is tried without the item that PostgreSQL names. Of many bad ones it names one at a time.
_HINTS = 3


async def attempt(
    run: Callable[[Sequence[Item]], Awaitable[Sequence[Value | InventoryError]]],
    items: Sequence[Item],
    refusal: Callable[[Item, BadItem], InventoryError],
    hints: int = _HINTS,
) -> Sequence[Value | InventoryError]:
    """Run a batch; where one item spoils it, set that one aside, so that its neighbours succeed.

    PostgreSQL may say which one it is; after so many hints, or without one, it is found by halves.
    """
    try:
        return await run(items)
    except BadItem as bad:
        if len(items) == 1:
            refused = refusal(items[0], bad)
            if isinstance(refused, InternalError):
                log.exception("PostgreSQL refused %r", items[0])
            return [refused]
        aside = [number for number, item in enumerate(items) if hints > 0 and bad.names(item)]
        if not 0 < len(aside) < len(items):
            aside, hints = list(range(len(items) // 2)), 0
    except RowLocked as error:
        # Alone it was the one that waited. Of several nobody knows which, and the caller may sort them out.
        return [error] * len(items) if len(items) > 1 else [DatabaseUnavailable()]
    except DatabaseUnavailable as error:
        return [error] * len(items)
    except TimeoutError:
        raise  # the caller's own time ended before this began
    except Exception:
        log.exception("a batch of %d failed", len(items))
        return [InternalError()] * len(items)
    return await _in_parts(
        lambda part: attempt(run, part, refusal, hints - 1),
        items,
        [aside, sorted(set(range(len(items))).difference(aside))],
    )


async def attempt_again(
    run: Callable[[Sequence[Item]], Awaitable[Sequence[Value | InventoryError]]],
    items: Sequence[Item],
    numbers: Sequence[int],
    outcomes: list[Value | InventoryError],
) -> None:
    """Run the items of these numbers once more; what comes of each takes its place among the outcomes."""
    for number, outcome in zip(numbers, await run([items[number] for number in numbers]), strict=True):
        outcomes[number] = outcome


async def _in_parts(
    run: Callable[[Sequence[Item]], Awaitable[Sequence[Value | InventoryError]]],
    items: Sequence[Item],
    parts: Sequence[Sequence[int]],
) -> list[Value | InventoryError]:
    """Run the items part after part; each part is the numbers of its items, and each item is in one."""
    outcomes: list[Value | InventoryError] = [InternalError()] * len(items)
    for numbers in parts:
        await attempt_again(run, items, numbers, outcomes)
    return outcomes


def asked_once(
    run: Callable[[Sequence[Item]], Awaitable[Sequence[Value]]],
) -> Callable[[Sequence[Item]], Awaitable[list[Value]]]:
    """Let equal questions of a batch share one answer, however many ask the same."""

    async def ask(items: Sequence[Item]) -> list[Value]:
        distinct = list(dict.fromkeys(items))
        if len(distinct) == len(items):
            return list(await run(items))
        found = dict(zip(distinct, await run(distinct), strict=True))
        return [found[item] for item in items]

    return ask

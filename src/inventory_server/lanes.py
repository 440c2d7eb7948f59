"""The lanes of one operation: products are shared out among them, and one whose row is stuck gets a lane of its own."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Generic, TypeVar

from inventory_server.errors import DatabaseUnavailable, InventoryError
from inventory_server.postgres.database import RowLocked

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from inventory_server.batcher import Lane
    from inventory_server.domain import Rows

Item = TypeVar("Item")
Value = TypeVar("Value")

# Lanes of stuck rows that nobody has asked for in so many seconds are forgotten, and the oldest beyond so many.
_ASIDE_SECONDS = 30.0
_ASIDE_MAX = 1000
_ATTEMPTS = 2


class Lanes(Generic[Item, Value]):
    """Shares out requests among `count` lanes.

    A batch that runs into the lock timeout tells that one of its rows is stuck, not which. So each of its requests asks
    `stuck` for the product whose row somebody keeps, and goes on in the lane aside for that product. Those without one
    try again together; whose second batch is stuck too, as by a locked hold, has a lane aside of its own. While there
    are lanes aside, whoever comes asks first which of its rows are `locked`, a question without a wait, and nobody else
    runs into that lock; once a row is free its lane goes.
    """

    def __init__(
        self,
        new_lane: Callable[[], Lane[Item, Value]],
        new_lane_aside: Callable[[], Lane[Item, Value]],
        rows: Callable[[Item], Rows],
        locked: Callable[[Rows, float | None], Awaitable[Collection[str]]],
        stuck: Callable[[Rows, float | None], Awaitable[str]],
        count: int,
    ) -> None:
        self._new_lane_aside = new_lane_aside
        self._rows = rows
        self._locked = locked
        self._stuck = stuck
        self._lanes = [new_lane() for _ in range(count)]
        self._aside: dict[str, Lane[Item, Value]] = {}
        self._asked: dict[str, float] = {}  # when each lane aside was last asked, in monotonic seconds, oldest first

    async def submit(self, item: Item, deadline: float | None) -> Value:
        """Have a request answered, as Lane.submit does."""
        rows = self._rows(item)
        place = await self._place(rows, deadline) if self._aside else ""
        for _ in range(_ATTEMPTS):
            if place:
                break
            try:
                return await self._lanes[hash(rows.key) % len(self._lanes)].submit(item, deadline)
            except RowLocked:
                place = await self._stuck(rows, deadline)
        place = place or rows.key
        try:
            value = await self._lane_aside(place).submit(item, deadline)
        except DatabaseUnavailable:
            raise  # still stuck, perhaps
        except InventoryError:
            self._is_free(place)
            raise
        self._is_free(place)
        return value

    async def _place(self, rows: Rows, deadline: float | None) -> str:
        """Give the lane aside where a request belongs; empty where it belongs in none."""
        self._forget()
        if rows.key in self._aside:
            return rows.key
        locked = await self._locked(rows, deadline)
        return next((product_id for product_id in locked if product_id in self._aside), "")

    def _lane_aside(self, place: str) -> Lane[Item, Value]:
        self._asked.pop(place, None)
        self._asked[place] = time.monotonic()
        if place not in self._aside:
            self._aside[place] = self._new_lane_aside()
        return self._aside[place]

    def _is_free(self, place: str) -> None:
        self._aside.pop(place, None)
        self._asked.pop(place, None)

    def _forget(self) -> None:
        now = time.monotonic()
        while self._asked:
            place, asked = next(iter(self._asked.items()))
            if asked > now - _ASIDE_SECONDS and len(self._asked) <= _ASIDE_MAX:
                break
            self._is_free(place)

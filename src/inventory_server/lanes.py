"""The lanes of one operation: products are shared out among them, and one whose row is stuck gets a lane of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from inventory_server.errors import DatabaseUnavailable, InventoryError
from inventory_server.postgres.database import RowLocked

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from inventory_server.batcher import Lane

Item = TypeVar("Item")
Value = TypeVar("Value")

# Products whose rows were stuck and that nobody has asked for since are forgotten beyond this many.
_ASIDE_MAX = 1000


class Lanes(Generic[Item, Value]):
    """Shares out products among `count` lanes, so that no two batches wait for one stock row.

    A batch that runs into the lock timeout tells that one of its rows is stuck, not which. Its requests go on in lanes
    by product: all but one are served at once, and that one keeps its lane until its row is free, so that it holds up
    nobody else again.

    `place` tells the product of a request, or whatever stands for it where that is not known, such as the order or the
    hold. It is asked where there is a choice of lanes, since asking may cost a look-up.
    """

    def __init__(
        self,
        new_lane: Callable[[], Lane[Item, Value]],
        place: Callable[[Item, float | None], Awaitable[str]],
        count: int,
    ) -> None:
        self._new_lane = new_lane
        self._place = place
        self._lanes = [new_lane() for _ in range(count)]
        self._aside: dict[str, Lane[Item, Value]] = {}

    async def submit(self, item: Item, deadline: float | None) -> Value:
        """Have a request answered, as Lane.submit does."""
        product_id = ""
        if self._aside or len(self._lanes) > 1:
            product_id = await self._place(item, deadline)
        if product_id not in self._aside:
            try:
                return await self._lanes[hash(product_id) % len(self._lanes)].submit(item, deadline)
            except RowLocked:
                product_id = product_id or await self._place(item, deadline)
                self._set_aside(product_id)
        try:
            value = await self._aside[product_id].submit(item, deadline)
        except DatabaseUnavailable:
            raise  # still stuck, perhaps
        except InventoryError:
            self._aside.pop(product_id, None)
            raise
        self._aside.pop(product_id, None)
        return value

    def _set_aside(self, product_id: str) -> None:
        if product_id not in self._aside:
            while len(self._aside) >= _ASIDE_MAX:
                del self._aside[next(iter(self._aside))]
            self._aside[product_id] = self._new_lane()

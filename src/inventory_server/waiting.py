"""The waiting room: orders that may wait for units to come back, first come first served.

Waiters stand in a queue for each of their products. One that stands first in all of them tries again whenever units
may have come back; nobody behind it is served before it, unless its own time ends and it gets what the first cannot
use. Requests that do not wait stand in no queue, and replicas have a room each.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from inventory_server.errors import InsufficientStock, Overloaded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from inventory_server.domain import Order, Reservation

# Units come back in ways that nobody tells this process of at once: expiry without a worker, a lost notification.
_RETRY_SECONDS = 0.25
# The more products are waited for, the longer that pause: tries in vain take the database's time from everybody else.
_TRIES_PER_SECOND_MAX = 400
# What a last try needs before the caller's own deadline ends the call.
_MARGIN_SECONDS = 0.05


class _Waiter:
    """One order that waits; `stirred` is set when it should look again."""

    def __init__(self, products: frozenset[str]) -> None:
        self.products = products
        self.stirred = asyncio.Event()

    async def rest(self, seconds: float) -> None:
        """Wait until stirred, for so long at most.

        Not by asyncio.wait_for: until Python 3.12 it loses a cancellation that comes together with the event, and the
        waiter would go on to take units for a caller who has left.
        """
        timer = asyncio.get_running_loop().call_later(max(0.0, seconds), self.stirred.set)
        try:
            await self.stirred.wait()
        finally:
            timer.cancel()


class WaitingRoom:
    """Serves orders that wait.

    `reserve` is the operation to try; it raises InsufficientStock while units lack. `is_made` tells whether the order
    has its holds already, so that a copy of a request is answered at once, whoever waits.
    """

    def __init__(
        self,
        reserve: Callable[[Order, float | None], Awaitable[tuple[Reservation, ...]]],
        is_made: Callable[[Order, float | None], Awaitable[bool]],
        waiters_max: int,
    ) -> None:
        self._reserve = reserve
        self._is_made = is_made
        self._waiters_max = waiters_max
        self._queues: dict[str, dict[_Waiter, None]] = {}  # by product, in the order of arrival
        self._waiters = 0
        self._closed = False

    async def reserve(self, order: Order, deadline: float | None) -> tuple[Reservation, ...]:
        """Hold an order, within its wait and before the deadline, or raise what refused it last."""
        loop = asyncio.get_running_loop()
        until = loop.time() + order.wait
        if deadline is not None:
            until = min(until, deadline - _MARGIN_SECONDS)
        with self._queued(order) as waiter:
            made = not self._is_first(waiter) and await self._is_made(order, deadline)
            while True:
                last = made or self._closed or loop.time() >= until
                waiter.stirred.clear()
                if last or self._is_first(waiter):
                    try:
                        return await self._reserve(order, deadline)
                    except InsufficientStock:
                        if last:
                            raise
                retry = max(_RETRY_SECONDS, len(self._queues) / _TRIES_PER_SECOND_MAX)
                pause = min(until - loop.time(), retry if self._is_first(waiter) else order.wait)
                await waiter.rest(pause)

    def stir(self, product_id: str) -> None:
        """Units of a product may have come back: the first in its queue looks again."""
        for waiter in self._queues.get(product_id, ()):
            waiter.stirred.set()
            break

    def close(self) -> None:
        """Have everybody try once more and leave, because the server stops."""
        self._closed = True
        for queue in self._queues.values():
            for waiter in queue:
                waiter.stirred.set()

    @contextlib.contextmanager
    def _queued(self, order: Order) -> Iterator[_Waiter]:
        if self._waiters >= self._waiters_max:
            raise Overloaded
        waiter = _Waiter(frozenset(line.product_id for line in order.lines))
        self._waiters += 1
        for product_id in waiter.products:
            self._queues.setdefault(product_id, {})[waiter] = None
        try:
            yield waiter
        finally:
            self._waiters -= 1
            for product_id in waiter.products:
                queue = self._queues[product_id]
                was_first = next(iter(queue)) is waiter
                del queue[waiter]
                if not queue:
                    del self._queues[product_id]
                elif was_first:
                    self.stir(product_id)

    def _is_first(self, waiter: _Waiter) -> bool:
        return all(next(iter(self._queues[product_id])) is waiter for product_id in waiter.products)

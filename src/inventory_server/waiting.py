"""The waiting room: orders that may wait for units to come back, first come first served.

Waiters stand in a queue for each of their products. One that stands at the front of all of them tries again whenever
units may have come back; nobody behind it is served before it, unless its own time ends and it gets what the first
cannot use. Requests that do not wait stand in no queue, and replicas have a room each.
"""

from __future__ import annotations

import asyncio
import contextlib
from itertools import islice
from typing import TYPE_CHECKING

from inventory_server.errors import InsufficientStock, Overloaded, Stopping

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from inventory_server.domain import Order, Reservation

# Units come back in ways that nobody tells this process of at once: expiry without a worker, a lost notification.
_RETRY_SECONDS = 0.25
# The more products are waited for, the longer that pause: tries in vain take the database's time from everybody else.
_TRIES_PER_SECOND_MAX = 400
# How many may try at once for one product.
_FRONT_MAX = 64
# What a last try needs before the caller's own deadline ends the call.
_MARGIN_SECONDS = 0.05


class _Waiter:
    """One order that waits; `stirred` is set when it should look again."""

    def __init__(self, order: Order) -> None:
        self.products = frozenset(line.product_id for line in order.lines)
        self.alone = len(self.products) == 1
        self.quantity = sum(line.quantity for line in order.lines)
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


class _Queue:
    """Those who wait for one product, in the order of their arrival.

    Served one by one they would get little of a delivery that others are after, too. So while all goes well more and
    more of them try at once: `width` grows by one with each who is served, and falls to one when one is refused.
    """

    def __init__(self) -> None:
        self.waiters: dict[_Waiter, None] = {}
        self.width = 1

    def front(self) -> list[_Waiter]:
        """Give the first, and those behind it who can be had in one batch with it, since they fall short if it does."""
        front: list[_Waiter] = []
        for waiter in islice(self.waiters, min(self.width, _FRONT_MAX)):
            if front and not (front[-1].alone and waiter.alone and front[-1].quantity <= waiter.quantity):
                break
            front.append(waiter)
        return front

    def stir(self) -> None:
        for waiter in self.front():
            waiter.stirred.set()


class WaitingRoom:
    """Serves orders that wait.

    `reserve` is the operation to try; it raises InsufficientStock while units lack, or Overloaded. `is_made` tells
    whether the order has its holds already, so that a copy of a request is answered at once, whoever waits.
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
        self._queues: dict[str, _Queue] = {}  # by product
        self._waiters = 0
        self._closed = False

    @property
    def waiting(self) -> int:
        return self._waiters

    async def reserve(self, order: Order, deadline: float | None) -> tuple[Reservation, ...]:
        """Hold an order, within its wait and before the deadline, or raise what refused it last, or Stopping."""
        loop = asyncio.get_running_loop()
        until = loop.time() + order.wait
        if deadline is not None:
            until = min(until, deadline - _MARGIN_SECONDS)
        with self._queued(order) as waiter:
            made = not self._is_at_front(waiter) and await self._is_made(order, deadline)
            while True:
                last, closed = made or loop.time() >= until, self._closed
                waiter.stirred.clear()
                if last or closed or self._is_at_front(waiter):
                    try:
                        held = await self._reserve(order, deadline)
                    except (InsufficientStock, Overloaded):
                        self._tell(waiter, served=False)
                        if last:
                            raise
                        if closed:
                            raise Stopping from None
                    else:
                        self._tell(waiter, served=True)
                        return held
                retry = max(_RETRY_SECONDS, len(self._queues) / _TRIES_PER_SECOND_MAX)
                await waiter.rest(min(until - loop.time(), retry if self._is_at_front(waiter) else order.wait))

    def stir(self, product_id: str) -> None:
        """Units of a product may have come back: the front of its queue looks again."""
        if product_id in self._queues:
            self._queues[product_id].stir()

    def close(self) -> None:
        """Have everybody try once more and leave, because the server stops: what they lack may come back elsewhere."""
        self._closed = True
        for queue in self._queues.values():
            for waiter in queue.waiters:
                waiter.stirred.set()

    @contextlib.contextmanager
    def _queued(self, order: Order) -> Iterator[_Waiter]:
        if self._waiters >= self._waiters_max:
            raise Overloaded
        waiter = _Waiter(order)
        self._waiters += 1
        for product_id in waiter.products:
            self._queues.setdefault(product_id, _Queue()).waiters[waiter] = None
        try:
            yield waiter
        finally:
            self._waiters -= 1
            for product_id in waiter.products:
                self._leave(product_id, waiter)

    def _leave(self, product_id: str, waiter: _Waiter) -> None:
        queue = self._queues[product_id]
        was_at_front = waiter in queue.front()
        del queue.waiters[waiter]
        if not queue.waiters:
            del self._queues[product_id]
        elif was_at_front:
            queue.stir()

    def _is_at_front(self, waiter: _Waiter) -> bool:
        return all(waiter in self._queues[product_id].front() for product_id in waiter.products)

    def _tell(self, waiter: _Waiter, *, served: bool) -> None:
        for product_id in waiter.products:
            queue = self._queues[product_id]
            queue.width = queue.width + 1 if served else 1

"""The waiting room: orders that may wait for units to come back, first come first served.

Units go to whoever came first among those who can use them, and lie there for nobody: an order for more than there is,
or one that lacks something else, is in nobody's way. A refusal tells how many units there are of what is short. Until
more may have come back, those who want more need not try, and whoever comes behind them does not wait for them.

So a newcomer tries at once, unless too little is known to be there for it or somebody before it is about to try. When
units may have come back, one of those who may do with them tries, and more while all goes well, in the order of
arrival; the first refusal ends that. Of a thousand who wait in vain for a product one tries now and then.

Requests that do not wait stand in no queue, and replicas have a room each. When it is full a newcomer is as one that
does not wait, and may come again.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import math
from operator import attrgetter
from typing import TYPE_CHECKING

from inventory_server.errors import InsufficientStock, Overloaded, Stopping

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from inventory_server.domain import Order, Reservation

# Units come back in ways that nobody tells this process of at once: expiry without a worker, a lost notification.
_RETRY_SECONDS = 0.25
# How many products are looked after each time: tries in vain take the database's time from everybody else.
_RETRIES_MAX = 100
# How many may try at once for one product.
_WIDTH_MAX = 64
# What a last try needs before the caller's own deadline ends the call.
_MARGIN_SECONDS = 0.05


class _Waiter:
    """One order that waits; `stirred` is set when it should try."""

    def __init__(self, order: Order, number: int) -> None:
        self.number = number  # in the order of arrival
        self.wants = order.wanted
        self.trying = False
        self.stirred = asyncio.Event()

    def call(self) -> None:
        self.trying = True
        self.stirred.set()

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
    """Those who wait for one product, in the order of their arrival, each with the units that it wants.

    `most` is how many units there may be: as many as the last refusal told, or any number since `told`, when some may
    have come back. Served one by one the waiters would get little of a delivery that others are after, too. So while
    all goes well more and more of them try at once: `width` grows by one with each who is served.
    """

    def __init__(self) -> None:
        self.waiters: dict[_Waiter, int] = {}
        self.most = math.inf
        self.told = 0
        self.width = 1


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
        self._numbers = itertools.count(1)  # of whatever has an order in time
        self._due: set[str] = set()  # products at which somebody may be next
        self._ticker: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def waiting(self) -> int:
        return self._waiters

    async def reserve(self, order: Order, deadline: float | None) -> tuple[Reservation, ...]:
        """Hold an order, within its wait and before the deadline, or raise what refused it last, or Stopping."""
        if self._waiters >= self._waiters_max:
            return await self._reserve_without_a_place(order, deadline)
        loop = asyncio.get_running_loop()
        until = loop.time() + order.wait
        if deadline is not None:
            until = min(until, deadline - _MARGIN_SECONDS)
        with self._queued(order) as waiter:
            made = not waiter.trying and await self._is_made(order, deadline)
            while True:
                if not made:
                    await waiter.rest(until - loop.time())
                last, closed, begun = made or loop.time() >= until, self._closed, next(self._numbers)
                waiter.stirred.clear()
                try:
                    held = await self._reserve(order, deadline)
                except (InsufficientStock, Overloaded) as refusal:
                    if last:
                        raise
                    if closed:
                        raise Stopping from None
                    self._learn(waiter, refusal, begun)
                else:
                    for product_id in waiter.wants:
                        self._queues[product_id].width += 1
                    return held

    def stir(self, *product_ids: str) -> None:
        """Units of these products may have come back: those who came first look again."""
        waited_for = self._queues.keys() & product_ids
        for product_id in waited_for:
            self._queues[product_id].most = math.inf
            self._queues[product_id].told = next(self._numbers)
        self._look_soon(*waited_for)

    def close(self) -> None:
        """Have everybody try once more and leave, because the server stops: what they lack may come back elsewhere."""
        self._closed = True
        waiters = {waiter for queue in self._queues.values() for waiter in queue.waiters}
        for waiter in sorted(waiters, key=attrgetter("number")):
            waiter.call()

    async def _reserve_without_a_place(self, order: Order, deadline: float | None) -> tuple[Reservation, ...]:
        try:
            return await self._reserve(order, deadline)
        except InsufficientStock:
            raise Overloaded from None

    @contextlib.contextmanager
    def _queued(self, order: Order) -> Iterator[_Waiter]:
        waiter = _Waiter(order, next(self._numbers))
        self._waiters += 1
        for product_id, quantity in waiter.wants.items():
            self._queues.setdefault(product_id, _Queue()).waiters[waiter] = quantity
        if self._closed or self._is_next(waiter):
            waiter.call()
        if self._ticker is None:
            self._ticker = asyncio.get_running_loop().call_later(_RETRY_SECONDS, self._tick)
        try:
            yield waiter
        finally:
            self._waiters -= 1
            for product_id in waiter.wants:
                self._leave(product_id, waiter)

    def _leave(self, product_id: str, waiter: _Waiter) -> None:
        queue = self._queues[product_id]
        del queue.waiters[waiter]
        if not queue.waiters:
            del self._queues[product_id]
        else:
            self._look_soon(product_id)

    def _learn(self, waiter: _Waiter, refusal: InsufficientStock | Overloaded, begun: int) -> None:
        """Keep in mind what a refusal says, unless units may have come back since its try began."""
        waiter.trying = False
        known = refusal.available if isinstance(refusal, InsufficientStock) else dict.fromkeys(waiter.wants, 0)
        make_way = [waiter]
        for product_id, available in known.items():
            queue = self._queues[product_id]
            queue.width = 1
            if queue.told < begun and available < queue.most:
                make_way += (each for each in self._hopeful(product_id) if each.wants[product_id] > available)
                queue.most = available
        self._look_soon(*{product_id for each in make_way for product_id in each.wants})

    def _may(self, waiter: _Waiter) -> bool:
        """Tell whether there may be as many units as somebody wants."""
        return all(quantity <= self._queues[product_id].most for product_id, quantity in waiter.wants.items())

    def _hopeful(self, product_id: str) -> Iterator[_Waiter]:
        queue = self._queues[product_id]
        return (waiter for waiter, quantity in queue.waiters.items() if quantity <= queue.most and self._may(waiter))

    def _is_next(self, newcomer: _Waiter) -> bool:
        """Tell whether a newcomer may be served, and nobody before it who may be, too, has yet to try."""
        return self._may(newcomer) and all(
            waiter.trying or waiter is newcomer for product_id in newcomer.wants for waiter in self._hopeful(product_id)
        )

    def _look_soon(self, *product_ids: str) -> None:
        """Look who is next at these products, once all who tried together have been told what came of it."""
        if product_ids and not self._due:
            asyncio.get_running_loop().call_soon(self._look)
        self._due.update(product_ids)

    def _look(self) -> None:
        """Have those try who are first at each of their products."""
        due, self._due = self._due & self._queues.keys(), set()

        @functools.cache
        def front(product_id: str) -> set[_Waiter]:
            width = min(self._queues[product_id].width, _WIDTH_MAX)
            return set(itertools.islice(self._hopeful(product_id), width))

        waiters = {waiter for product_id in due for waiter in front(product_id) if not waiter.trying}
        for waiter in sorted(waiters, key=attrgetter("number")):
            if all(waiter in front(product_id) for product_id in waiter.wants):
                waiter.call()

    def _tick(self) -> None:
        """Look whether units of some of the products have come back untold, and the next time of others."""
        turn = list(itertools.islice(self._queues, _RETRIES_MAX))
        for product_id in turn:
            self._queues[product_id] = self._queues.pop(product_id)
        self.stir(*turn)
        self._ticker = asyncio.get_running_loop().call_later(_RETRY_SECONDS, self._tick) if turn else None

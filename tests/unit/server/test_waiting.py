"""The waiting room before a shop that does as it is told, in a time that passes only while everybody waits."""

from __future__ import annotations

import asyncio

import pytest
from tests.fixtures.clock import now, play

from inventory_server.domain import Order, Reservation, Reserve
from inventory_server.errors import DatabaseUnavailable, InsufficientStock, InventoryError, Overloaded, Stopping
from inventory_server.waiting import WaitingRoom

# What one try takes.
TRY_SECONDS = 0.002
# A retry that nobody asked for comes within this; one that is stirred long before.
RETRY_SECONDS = 0.3
WAITERS_MAX = 1000


class Shop:
    """Shelves with units, a room before them, and a record of who was served and when somebody tried."""

    def __init__(self, waiters_max: int = WAITERS_MAX, **available: int) -> None:
        self.available = available
        self.served: list[str] = []
        self.tries: list[tuple[str, float]] = []
        self.broken: InventoryError | None = None
        self.room = WaitingRoom(self._reserve, self._is_made, waiters_max)
        self._tasks: dict[str, asyncio.Task[str]] = {}

    async def _is_made(self, order: Order, _: float | None) -> bool:
        await asyncio.sleep(TRY_SECONDS)
        return order.request_id in self.served

    async def _reserve(self, order: Order, _: float | None) -> tuple[Reservation, ...]:
        self.tries.append((order.request_id, asyncio.get_running_loop().time()))
        # What comes first is decided first, as in a lane, and known to all at the end.
        short = [line for line in order.lines if self.available[line.product_id] < line.quantity]
        broken, served = self.broken, order.request_id in self.served
        if not short and broken is None and not served:
            self.served.append(order.request_id)
            for line in order.lines:
                self.available[line.product_id] -= line.quantity
        await asyncio.sleep(TRY_SECONDS)
        if broken is not None:
            raise broken
        if short and not served:
            raise InsufficientStock(short[0].product_id, short[0].quantity, self.available[short[0].product_id])
        return ()

    def enter(self, name: str, wait: float = 30.0, within: float | None = None, **wanted: int) -> asyncio.Task[str]:
        """Have somebody ask for units and wait for them; the task tells how that ended."""
        lines = tuple(Reserve(name, product_id, name, quantity, 1, False) for product_id, quantity in wanted.items())
        task = asyncio.create_task(self._wait(Order(name, lines, wait), within))
        self._tasks[name] = task
        return task

    async def _wait(self, order: Order, within: float | None) -> str:
        deadline = None if within is None else asyncio.get_running_loop().time() + within
        try:
            await self.room.reserve(order, deadline)
        except InventoryError as error:
            return error.reason
        except Stopping:
            return "sent elsewhere"
        return "served"

    def put_back(self, product_id: str, quantity: int = 1) -> None:
        self.available[product_id] += quantity
        self.room.stir(product_id)

    def last_try(self, name: str) -> float:
        return max(moment for who, moment in self.tries if who == name)


async def settled() -> None:
    """Let a stirred waiter try, and those whom it stirs, but let none of them retry by itself."""
    await asyncio.sleep(RETRY_SECONDS / 2)


def test_units_go_to_whoever_came_first() -> None:
    async def scene() -> None:
        shop = Shop(teapot=0)
        names = [f"order-{number}" for number in range(20)]
        for name in names:
            shop.enter(name, teapot=1)
        await settled()
        for served in range(1, 21):
            shop.put_back("teapot")
            await settled()
            assert shop.served == names[:served]

    play(scene)


def test_units_that_come_together_serve_one_after_the_other_at_once() -> None:
    async def scene() -> None:
        shop = Shop(teapot=0)
        names = [f"order-{number}" for number in range(10)]
        for name in names:
            shop.enter(name, teapot=1)
        await settled()
        shop.put_back("teapot", 5)
        await settled()
        assert shop.served == names[:5]

    play(scene)


def test_a_crowd_is_served_in_batches_that_grow_and_in_order() -> None:
    async def scene() -> None:
        shop = Shop(teapot=0)
        names = [f"order-{number}" for number in range(500)]
        tasks = [shop.enter(name, teapot=2 + number // 400) for number, name in enumerate(names)]
        await settled()
        begun, tries = now(), len(shop.tries)
        shop.put_back("teapot", 1100)
        await asyncio.gather(*tasks)
        assert shop.served == names
        assert now() - begun < 30 * TRY_SECONDS
        assert len(shop.tries) - tries == 500

    play(scene)


def test_a_crowd_that_gets_one_unit_at_a_time_tries_a_few_times_for_each() -> None:
    async def scene() -> None:
        shop = Shop(teapot=0)
        for number in range(100):
            shop.enter(f"order-{number}", teapot=1)
        await settled()
        tries = len(shop.tries)
        for _ in range(50):
            shop.put_back("teapot")
            await asyncio.sleep(10 * TRY_SECONDS)
        assert len(shop.served) == 50
        assert len(shop.tries) - tries < 50 * 4.5

    play(scene)


def test_nobody_passes_a_bigger_order_however_well_it_goes_before_it() -> None:
    async def scene() -> None:
        shop = Shop(teapot=0)
        names = [f"order-{number}" for number in range(20)]
        for number, name in enumerate(names):
            shop.enter(name, teapot=10 if number == 15 else 1)
        await settled()
        shop.put_back("teapot", 19)
        await settled()
        assert shop.served == names[:15]
        shop.put_back("teapot", 10)
        await settled()
        assert shop.served == names

    play(scene)


def test_nobody_passes_a_bigger_order_that_came_before() -> None:
    async def scene() -> None:
        shop = Shop(teapot=2)
        shop.enter("big", teapot=3)
        small = shop.enter("small", teapot=1)
        await settled()
        assert not small.done()
        shop.put_back("teapot")
        await settled()
        assert shop.served == ["big"]

    play(scene)


def test_at_the_end_of_its_wait_one_gets_what_those_before_it_cannot_use() -> None:
    async def scene() -> None:
        shop = Shop(teapot=2)
        shop.enter("big", teapot=3)
        start = now()
        assert await shop.enter("small", wait=1.0, teapot=1) == "served"
        assert now() - start == pytest.approx(1.0, abs=2 * TRY_SECONDS)

    play(scene)


@pytest.mark.parametrize(("wait", "within", "end"), [(2.0, None, 2.0), (2.0, 5.0, 2.0), (30.0, 3.0, 3.0)])
def test_nobody_waits_past_the_wait_or_the_deadline(wait: float, within: float | None, end: float) -> None:
    async def scene() -> None:
        shop = Shop(teapot=0)
        start = now()
        assert await shop.enter("late", wait=wait, within=within, teapot=1) == "INSUFFICIENT_STOCK"
        # The last try has begun and its answer is there before the caller's deadline.
        assert end - 0.1 < shop.last_try("late") - start <= end
        if within is not None:
            assert now() - start < within
        shop.put_back("teapot")
        await settled()
        assert (shop.served, shop.available) == ([], {"teapot": 1})

    play(scene)


def test_a_deadline_that_is_too_near_for_a_wait_leaves_one_try() -> None:
    async def scene() -> None:
        shop = Shop(teapot=0)
        assert await shop.enter("hurried", within=0.01, teapot=1) == "INSUFFICIENT_STOCK"
        assert len(shop.tries) == 1

    play(scene)


def test_units_that_nobody_tells_of_are_found_all_the_same() -> None:
    async def scene() -> None:
        shop = Shop(teapot=0)
        task = shop.enter("patient", teapot=1)
        await settled()
        shop.available["teapot"] += 1
        await asyncio.sleep(RETRY_SECONDS)
        assert task.done()

    play(scene)


@pytest.mark.parametrize("products", [1, 50, 300])
def test_tries_in_vain_are_bounded_however_many_products_are_waited_for(products: int) -> None:
    async def scene() -> None:
        shop = Shop(**{f"product-{number}": 0 for number in range(products)})
        tasks = [shop.enter(f"order-{name}", 20.0, None, **{name: 1}) for name in shop.available]
        await asyncio.gather(*tasks)
        assert 20 * min(products * 3.5, 350) < len(shop.tries) < 20 * min(products * 4, 400) + 2 * products

    play(scene)


def test_one_that_leaves_makes_room_for_the_next() -> None:
    async def scene() -> None:
        shop = Shop(teapot=1)
        big = shop.enter("big", teapot=2)
        second = shop.enter("second", teapot=1)
        await settled()
        big.cancel()
        await settled()
        assert (second.done(), shop.served) == (True, ["second"])

    play(scene)


def test_one_that_leaves_while_it_waits_behind_others_disturbs_nobody() -> None:
    async def scene() -> None:
        shop = Shop(teapot=0)
        shop.enter("first", teapot=1)
        behind = [shop.enter(f"order-{number}", teapot=1) for number in range(10)]
        await settled()
        tries = len(shop.tries)
        for task in behind:
            task.cancel()
        await asyncio.sleep(10 * TRY_SECONDS)
        assert len(shop.tries) == tries

    play(scene)


def test_one_that_leaves_at_the_moment_when_units_come_back_takes_none() -> None:
    async def scene() -> None:
        shop = Shop(teapot=0)
        leaving = shop.enter("leaving", teapot=1)
        staying = shop.enter("staying", teapot=1)
        await settled()
        shop.put_back("teapot")
        leaving.cancel()
        await settled()
        assert (leaving.cancelled(), staying.done(), shop.served) == (True, True, ["staying"])

    play(scene)


def test_an_order_waits_for_all_of_its_products_and_nobody_passes_it_at_any() -> None:
    async def scene() -> None:
        shop = Shop(teapot=0, cup=0, spoon=0)
        shop.enter("tea", teapot=1, cup=2)
        shop.enter("cup", cup=1)
        shop.enter("spoon", spoon=1)
        await settled()
        shop.put_back("cup", 2)
        shop.put_back("spoon")
        await settled()
        assert shop.served == ["spoon"]
        shop.put_back("teapot")
        shop.put_back("cup")
        await settled()
        assert shop.served == ["spoon", "tea", "cup"]

    play(scene)


def test_orders_that_want_the_same_products_crosswise_never_wait_for_each_other() -> None:
    async def scene() -> None:
        shop = Shop(a=0, b=0, c=0)
        for number, wanted in enumerate([("a", "b"), ("b", "c"), ("c", "a"), ("b", "a"), ("c", "b")]):
            shop.enter(str(number), 30.0, None, **dict.fromkeys(wanted, 1))
        await settled()
        shop.put_back("b")
        shop.put_back("c")
        await settled()
        assert shop.served == []  # the second could go, but not before the first, which wants b too
        for product_id in "abc":
            shop.put_back(product_id, 4)
        await settled()
        assert shop.served == ["0", "1", "2", "3", "4"]

    play(scene)


def test_when_all_places_are_taken_one_more_is_told_so_until_one_is_free() -> None:
    async def scene() -> None:
        shop = Shop(waiters_max=2, teapot=0, cup=0)
        first = shop.enter("first", teapot=1)
        shop.enter("second", cup=1)
        await settled()
        assert await shop.enter("third", teapot=1) == "OVERLOADED"
        first.cancel()
        await settled()
        third = shop.enter("third", teapot=1)
        shop.put_back("teapot")
        await settled()
        assert third.result() == "served"

    play(scene)


def test_at_the_end_all_try_once_more_in_order_and_are_sent_elsewhere() -> None:
    async def scene() -> None:
        shop = Shop(teapot=0)
        tasks = [shop.enter(f"order-{number}", teapot=1) for number in range(5)]
        await settled()
        shop.available["teapot"] = 2
        start = now()
        shop.room.close()
        assert await asyncio.gather(*tasks) == ["served"] * 2 + ["sent elsewhere"] * 3
        assert await shop.enter("too late", teapot=1) == "sent elsewhere"
        assert shop.served == ["order-0", "order-1"]
        assert now() - start < 10 * TRY_SECONDS
        tries = len(shop.tries)
        shop.put_back("teapot")
        await settled()
        assert len(shop.tries) == tries

    play(scene)


def test_at_the_end_whose_wait_is_over_is_refused_and_whom_the_database_has_no_time_for_goes_elsewhere() -> None:
    async def scene() -> None:
        shop = Shop(teapot=0)
        late, early = shop.enter("late", wait=1.0, teapot=1), shop.enter("early", teapot=1)
        await asyncio.sleep(1.0 - TRY_SECONDS / 2)
        shop.broken = Overloaded()
        await asyncio.sleep(TRY_SECONDS)
        shop.room.close()
        assert (await late, await early) == ("OVERLOADED", "sent elsewhere")

    play(scene)


def test_a_copy_of_a_request_that_was_served_is_answered_whoever_waits() -> None:
    async def scene() -> None:
        shop = Shop(teapot=1)
        assert await shop.enter("order", teapot=1) == "served"
        shop.enter("waiting", teapot=1)
        copy = shop.enter("order", teapot=1)
        await settled()
        assert copy.result() == "served"
        assert shop.available == {"teapot": 0}

    play(scene)


def test_one_that_finds_the_database_overloaded_goes_on_waiting() -> None:
    async def scene() -> None:
        shop = Shop(teapot=1)
        shop.broken = Overloaded()
        patient, hurried = shop.enter("patient", teapot=1), shop.enter("hurried", wait=0.1, teapot=1)
        await settled()
        shop.broken = None
        await asyncio.sleep(RETRY_SECONDS)
        assert (patient.result(), hurried.result()) == ("served", "OVERLOADED")

    play(scene)


def test_a_failure_ends_the_wait_of_one_and_the_next_goes_on() -> None:
    async def scene() -> None:
        shop = Shop(teapot=0)
        shop.broken = DatabaseUnavailable()
        first = shop.enter("first", teapot=1)
        second = shop.enter("second", teapot=1)
        await asyncio.sleep(0.5 * TRY_SECONDS)
        shop.broken = None
        shop.put_back("teapot")
        await settled()
        assert (first.result(), second.result()) == ("DATABASE_UNAVAILABLE", "served")

    play(scene)


def test_nothing_is_kept_of_those_who_have_left() -> None:
    async def scene() -> None:
        shop = Shop(teapot=1, cup=0)
        ways = [shop.enter("served", teapot=1), shop.enter("refused", wait=0.5, cup=1), shop.enter("left", cup=1)]
        await settled()
        ways[2].cancel()
        await asyncio.wait(ways)
        assert (shop.room._queues, shop.room._waiters) == ({}, 0)

    play(scene)

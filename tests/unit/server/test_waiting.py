"""How a wait begins and ends, and what is left of it."""

from __future__ import annotations

import asyncio

import pytest
from tests.fixtures.clock import now, play
from tests.fixtures.room import RETRY_SECONDS, TRY_SECONDS, Shop, settled

from inventory_server.errors import DatabaseUnavailable, Overloaded


def test_at_the_end_of_its_wait_one_gets_what_nobody_has_told_of() -> None:
    async def scene() -> None:
        shop = Shop(teapot=0)
        start = now()
        last = shop.enter("small", wait=0.1, teapot=1)
        await asyncio.sleep(0.05)
        shop.available["teapot"] += 1
        assert await last == "served"
        assert now() - start == pytest.approx(0.1, abs=2 * TRY_SECONDS)

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


def test_units_that_come_back_while_one_tries_in_vain_are_seen_at_once() -> None:
    async def scene() -> None:
        shop = Shop(teapot=0)
        task = shop.enter("patient", teapot=1)
        await asyncio.sleep(TRY_SECONDS / 2)
        shop.put_back("teapot")
        await asyncio.sleep(3 * TRY_SECONDS)
        assert task.done()

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


def test_when_all_places_are_taken_one_more_is_told_so_if_it_would_have_to_wait() -> None:
    async def scene() -> None:
        shop = Shop(waiters_max=2, teapot=0, cup=0, spoon=1)
        first = shop.enter("first", teapot=1)
        shop.enter("second", cup=1)
        await settled()
        assert await shop.enter("spoon", spoon=1) == "served"
        assert await shop.enter("spoon", spoon=1) == "served"  # a copy
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
        assert len(shop.tries) <= 5

    play(scene)


def test_a_failure_ends_the_wait_of_one_and_the_next_goes_on() -> None:
    async def scene() -> None:
        shop = Shop(teapot=0)
        first = shop.enter("first", teapot=1)
        second = shop.enter("second", teapot=1)
        await settled()
        shop.broken = DatabaseUnavailable()
        shop.put_back("teapot")
        await asyncio.sleep(0.5 * TRY_SECONDS)
        shop.broken = None
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

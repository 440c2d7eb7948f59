"""Who is served first of those who wait, and how many try for that."""

from __future__ import annotations

import asyncio
import random

import pytest
from tests.fixtures.clock import now, play
from tests.fixtures.room import RETRY_SECONDS, TRY_SECONDS, Shop, settled


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


def test_a_bigger_order_is_passed_by_those_who_do_with_what_it_cannot_use() -> None:
    async def scene() -> None:
        shop = Shop(teapot=0)
        names = [f"order-{number}" for number in range(20)]
        for number, name in enumerate(names):
            shop.enter(name, teapot=10 if number == 15 else 1)
        await settled()
        shop.put_back("teapot", 19)
        await settled()
        assert shop.served == names[:15] + names[16:]
        shop.put_back("teapot", 10)
        await settled()
        assert shop.served[-1] == names[15]

    play(scene)


def test_nobody_passes_a_bigger_order_with_units_that_it_can_use_however_well_it_goes() -> None:
    async def scene() -> None:
        shop = Shop(teapot=0)
        names = [f"order-{number}" for number in range(20)]
        for number, name in enumerate(names):
            shop.enter(name, teapot=10 if number == 15 else 1)
        await settled()
        shop.put_back("teapot", 25)
        await settled()
        assert shop.served == names[:16]

    play(scene)


def test_one_that_can_be_served_is_served_at_once_whoever_waits_for_more() -> None:
    async def scene() -> None:
        shop = Shop(teapot=10)
        shop.enter("giant", teapot=10**12)
        await settled()
        start = now()
        assert await shop.enter("small", teapot=1) == "served"
        assert await shop.enter("all", teapot=9) == "served"
        assert now() - start < 3 * TRY_SECONDS

    play(scene)


def test_one_that_can_be_served_is_served_at_once_whoever_waits_for_something_else_too() -> None:
    async def scene() -> None:
        shop = Shop(teapot=1, cup=0)
        shop.enter("tea", teapot=1, cup=1)
        await settled()
        start = now()
        assert await shop.enter("teapot", teapot=1) == "served"
        assert now() - start < 2 * TRY_SECONDS

    play(scene)


def test_a_newcomer_never_passes_one_who_waits_for_what_it_wants() -> None:
    async def scene() -> None:
        shop = Shop(teapot=0)
        shop.enter("first", teapot=1)
        shop.enter("second", teapot=1)
        await settled()
        shop.available["teapot"] += 1  # untold
        shop.enter("third", teapot=2)
        shop.enter("fourth", teapot=1)
        await asyncio.sleep(RETRY_SECONDS)
        assert shop.served == ["first"]
        shop.put_back("teapot")
        shop.enter("fifth", teapot=1)
        await settled()
        assert shop.served == ["first", "second"]

    play(scene)


def test_newcomers_try_together_while_units_are_there() -> None:
    async def scene() -> None:
        shop = Shop(teapot=500)
        start = now()
        await asyncio.gather(*[shop.enter(f"order-{number}", teapot=1) for number in range(500)])
        assert now() - start < 2 * TRY_SECONDS
        assert len(shop.tries) == 500

    play(scene)


@pytest.mark.parametrize("seed", range(40))
def test_units_go_to_whoever_came_first_of_those_who_can_use_them(seed: int) -> None:
    draw = random.Random(seed)  # noqa: S311
    products = ["teapot", "cup", "spoon"][: 1 + seed % 3]

    async def scene() -> None:
        shop = Shop(**dict.fromkeys(products, 0))
        available = dict.fromkeys(products, 0)
        waiting: dict[str, dict[str, int]] = {}
        for number in range(60):
            if draw.random() < 0.7:
                wanted = {product_id: draw.choice([1, 1, 2, 5, 30]) for product_id in draw.sample(products, 1)}
                wanted |= {product_id: draw.choice([1, 2]) for product_id in products if draw.random() < 0.3}
                waiting[f"order-{number}"] = wanted
                shop.enter(f"order-{number}", 30.0, None, **wanted)
            else:
                product_id, quantity = draw.choice(products), draw.randint(1, 12)
                available[product_id] += quantity
                shop.put_back(product_id, quantity)
            await asyncio.sleep(RETRY_SECONDS / 3)
            for name, wanted in list(waiting.items()):
                if all(available[product_id] >= quantity for product_id, quantity in wanted.items()):
                    available = {each: units - wanted.get(each, 0) for each, units in available.items()}
                    del waiting[name]
            assert shop.available == available
            assert not waiting.keys() & set(shop.served)

    play(scene)


@pytest.mark.parametrize("lacking", ["the same", "something of its own"])
def test_of_a_thousand_who_wait_in_vain_few_try(lacking: str) -> None:
    async def scene() -> None:
        shop = Shop(hot=0, **{f"own-{number}": int(lacking == "the same") for number in range(1000)})
        for number in range(1000):
            shop.enter(f"order-{number}", 20.0, None, **{"hot": 2, f"own-{number}": 1})
        await asyncio.sleep(15)
        tries = len(shop.tries)
        for _ in range(100):
            shop.put_back("hot", 1 if shop.available["hot"] == 0 else 0)
            await asyncio.sleep(0.01)
        assert len(shop.tries) - tries < 100 * 2 + 400

    play(scene)


def test_an_order_waits_for_all_of_its_products_and_lets_others_have_them_meanwhile() -> None:
    async def scene() -> None:
        shop = Shop(teapot=0, cup=0, spoon=0)
        shop.enter("tea", teapot=1, cup=2)
        shop.enter("cup", cup=1)
        shop.enter("spoon", spoon=1)
        await settled()
        shop.put_back("cup", 2)
        shop.put_back("spoon")
        await settled()
        assert shop.served == ["cup", "spoon"]
        shop.put_back("teapot")
        shop.put_back("cup")
        await settled()
        assert shop.served == ["cup", "spoon", "tea"]

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
        assert shop.served == ["1"]
        for product_id in "abc":
            shop.put_back(product_id, 4)
        await settled()
        assert shop.served == ["1", "0", "2", "3", "4"]

    play(scene)

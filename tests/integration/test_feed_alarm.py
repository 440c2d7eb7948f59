"""Who wakes the reader of the feed, and who is spared."""

from __future__ import annotations

import asyncio

import psycopg
from tests.fixtures.feeding import SECONDS_MAX, sleepers, until, written

from inventory_server.postgres.feed import Alarm
from inventory_server.settings import Settings


def test_a_sleeper_is_woken_by_a_change_and_costs_nobody_anything_while_it_is_awake(database_url: str) -> None:
    async def listen() -> None:
        ear = await psycopg.AsyncConnection.connect(database_url, autocommit=True)
        await ear.execute("LISTEN inventory_movements")

        async def heard() -> str:
            await ear.execute("NOTIFY inventory_movements, 'mark'")
            first, *_ = [notify.payload async for notify in ear.notifies(timeout=SECONDS_MAX, stop_after=1)]
            return first

        async with Alarm(database_url, Settings()) as alarm:
            sleeping = asyncio.create_task(alarm.sleep(SECONDS_MAX))
            await until(lambda: sleepers(database_url) == 1)
            await asyncio.to_thread(written, database_url, "teapot")
            assert await sleeping
            assert await heard() == ""
            assert await heard() == "mark"
            await alarm.stay_awake()
            await asyncio.to_thread(written, database_url, "kettle")
            assert await heard() == "mark"
        await ear.close()

    asyncio.run(listen())


def test_writers_that_look_for_sleepers_at_once_do_not_take_one_another_for_one(database_url: str) -> None:
    with (
        psycopg.connect(database_url, autocommit=True) as ear,
        psycopg.connect(database_url, autocommit=True) as looking,
    ):
        ear.execute("LISTEN inventory_movements")
        looking.execute("SELECT pg_advisory_lock(9142205142015183)")
        written(database_url, "teapot")
        ear.execute("NOTIFY inventory_movements, 'mark'")
        assert [notify.payload for notify in ear.notifies(timeout=SECONDS_MAX, stop_after=1)] == ["mark"]

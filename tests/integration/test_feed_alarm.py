"""Who wakes the reader of the feed, and who is spared."""

from __future__ import annotations

import asyncio
import struct
from contextlib import closing, suppress

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


async def fall_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Welcome a client as PostgreSQL does, and never say a word to it again."""
    negotiation = {80877103, 80877104}  # of TLS, of GSS
    messages = {b"R": bytes(4), b"S": b"client_encoding\0UTF8\0", b"K": bytes(8), b"Z": b"I"}
    with closing(writer), suppress(asyncio.IncompleteReadError):
        while await asked(reader) in negotiation:
            writer.write(b"N")
        for kind, body in messages.items():
            writer.write(kind + struct.pack("!i", 4 + len(body)) + body)
        await reader.read()


async def asked(reader: asyncio.StreamReader) -> int:
    """Read a first message, and give its code."""
    (length,) = struct.unpack("!i", await reader.readexactly(4))
    (code,) = struct.unpack_from("!i", await reader.readexactly(length - 4))
    return int(code)


def test_a_server_that_falls_silent_keeps_the_feed_no_longer_than_a_connection_may_take() -> None:
    async def sleep() -> bool:
        async with await asyncio.start_server(fall_silent, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            url = f"postgresql://inventory@127.0.0.1:{port}/inventory"
            async with asyncio.timeout(30), Alarm(url, Settings(connect_timeout=1)) as alarm:
                return await alarm.sleep(0.1)

    assert asyncio.run(sleep()) is False

"""The feed across crashes of PostgreSQL, which hands out again the transaction ids that it had not written to disk."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import psycopg
import pytest
from tests.fixtures.crashing import UNWRITTEN, crashed, next_id, nothing_written
from tests.fixtures.feeding import begun, fed, following, ledger, opened, until, write, written

from inventory_server import feed as feed_module
from inventory_server.domain import FeedChange, Position
from inventory_server.errors import DatabaseUnavailable, ValidationError
from inventory_server.postgres.feed import UnknownPosition

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from inventory_server.embedded import EmbeddedPostgres
    from inventory_server.feed import Feed

START = Position(0, "", 0)


async def looked(feed: Feed) -> None:
    """Wait for a look at the ledger that begins later than this."""
    for _ in range(2):
        began = time.monotonic()
        while feed.lag >= time.monotonic() - began:  # noqa: ASYNC110 — the feed sets no event
            await asyncio.sleep(0.01)


async def names(changes: AsyncGenerator[FeedChange | Position], last: str) -> list[str]:
    return [position.product_id for position in await following(changes, last)]


def written_without_waiting(database_url: str, *product_ids: str) -> None:
    """Write the first movement of each product with commits that a crash may take back."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        for product_id in product_ids:
            write(connection, product_id, 1)


def used_up(database_url: str, last_id: int) -> None:
    """Use up transaction ids to this one."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        for _ in range(last_id - next_id(database_url) + 1):
            connection.execute("SELECT pg_current_xact_id()")
    assert next_id(database_url) > last_id


@pytest.mark.parametrize("unwritten", UNWRITTEN)
@pytest.mark.parametrize("earlier", [(), ("before",)], ids=["empty ledger", "ledger"])
def test_watchers_hear_all_that_follows_a_crash(
    private_postgres: EmbeddedPostgres, unwritten: str, earlier: tuple[str, ...]
) -> None:
    url = private_postgres.url

    async def watch() -> None:
        await asyncio.to_thread(written, url, *earlier)
        async with fed(url) as feed:
            early = asyncio.create_task(names(await begun(feed), "end"))
            await until(lambda: feed.watchers == 1)
            with crashed(private_postgres, unwritten):
                await looked(feed)
                late = asyncio.create_task(names(await begun(feed), "end"))
                await until(lambda: feed.watchers == 2)
            await asyncio.to_thread(written, url, "after", "end")
            assert await early == await late == ["after", "end"]

    asyncio.run(watch())


@pytest.mark.parametrize("unwritten", UNWRITTEN)
@pytest.mark.parametrize("caught_up", [False, True], ids=["at once", "when the ids have caught up"])
def test_a_mark_from_before_a_crash_is_gone_on_from(
    private_postgres: EmbeddedPostgres, unwritten: str, *, caught_up: bool
) -> None:
    url = private_postgres.url

    async def watch() -> None:
        await asyncio.to_thread(written, url, "before")
        with crashed(private_postgres, unwritten):
            ahead = next_id(url)
            async with fed(url) as feed:
                mark = await anext(await feed.watch())
        await asyncio.to_thread(written, url, "after", "end")
        if caught_up:
            await asyncio.to_thread(used_up, url, ahead)
        assert isinstance(mark, Position)
        async with fed(url) as feed:
            assert await names(await feed.watch(after=mark), "end") == ["after", "end"]

    asyncio.run(watch())


def test_a_stream_from_a_horizon_that_an_earlier_server_told_as_a_mark_hears_all_that_follows_a_crash(
    private_postgres: EmbeddedPostgres,
) -> None:
    url = private_postgres.url

    async def watch() -> None:
        await asyncio.to_thread(written, url, "before")
        async with fed(url) as feed:
            with crashed(private_postgres, "aborted"):
                mark = Position(next_id(url), "", 0)
                watching = asyncio.create_task(names(await feed.watch(after=mark), "end"))
                await until(lambda: feed.watchers == 1)
            await asyncio.to_thread(written, url, "after", "end")
            assert await watching == ["after", "end"]
            # What was written since then may lie below it or not: nobody can tell.
            with pytest.raises(ValidationError, match="resume_token is not of this database"):
                await feed.watch(after=mark)

    asyncio.run(watch())


def test_a_horizon_that_an_earlier_server_told_as_a_mark_is_gone_on_from(database_url: str) -> None:
    written(database_url, "before")
    mark = Position(next_id(database_url), "", 0)

    async def watch() -> None:
        async with fed(database_url) as feed:
            early = await feed.watch(after=mark)  # nothing has happened yet
            await asyncio.to_thread(written, database_url, "after", "end")
            assert await names(early, "end") == ["after", "end"]
            assert await names(await feed.watch(after=mark), "end") == ["after", "end"]

    asyncio.run(watch())


def test_watchers_are_cut_off_when_a_crash_takes_back_what_they_heard_and_go_on_from_what_is_left(
    private_postgres: EmbeddedPostgres,
) -> None:
    url = private_postgres.url

    async def watch() -> None:
        async with fed(url) as feed:
            changes = await begun(feed)
            await asyncio.to_thread(written, url, "kept")
            (kept,) = await heard(changes, 1)
            with nothing_written(private_postgres):
                await asyncio.to_thread(written_without_waiting, url, "lost", "lost too")
                lost = await heard(changes, 2)
            private_postgres.start()
            with pytest.raises(DatabaseUnavailable):
                await heard(changes, 1)
            await asyncio.to_thread(written, url, "lost too", "end")
            for position in lost:
                with pytest.raises(ValidationError, match="resume_token is not of this database"):
                    await feed.watch(after=position)
            assert await names(await feed.watch(after=kept), "end") == ["lost too", "end"]

    asyncio.run(watch())


async def heard(changes: AsyncGenerator[FeedChange | Position], count: int) -> list[Position]:
    positions = []
    async with asyncio.timeout(30):
        for _ in range(count):
            change = await anext(changes)
            assert isinstance(change, FeedChange)
            positions.append(change.position)
    return positions


def test_a_watcher_whose_backlog_a_crash_takes_back_is_cut_off(
    private_postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "_PAGE_CHANGES_MAX", 1)
    url = private_postgres.url

    async def watch() -> None:
        async with fed(url) as feed:
            with nothing_written(private_postgres):
                await asyncio.to_thread(written_without_waiting, url, "lost", "lost too")
                changes = await feed.watch(after=START)
                await heard(changes, 1)
            private_postgres.start()
            with pytest.raises(DatabaseUnavailable):
                await heard(changes, 1)

    asyncio.run(watch())


def test_a_position_that_a_crash_took_back_is_unknown_also_when_its_version_is_written_anew(
    private_postgres: EmbeddedPostgres,
) -> None:
    url = private_postgres.url
    with nothing_written(private_postgres):
        written_without_waiting(url, "other", "teapot")
        lost = ledger(url)[-1]
    private_postgres.start()

    async def read() -> None:
        async with opened(url) as repository:
            for product_ids in [], ["teapot"], ["kettle"]:
                await asyncio.to_thread(written, url, *product_ids)
                with pytest.raises(UnknownPosition):
                    await repository.page(lost, 10)

    asyncio.run(read())

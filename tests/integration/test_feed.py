"""The feed of the ledger against a real database: order, hand-over, slow watchers, outages."""

from __future__ import annotations

import asyncio
import random
import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from tests.fixtures.feeding import (
    SECONDS_MAX,
    begun,
    fed,
    following,
    ledger,
    listeners,
    opened,
    sleepers,
    until,
    write,
    written,
)

from inventory_server import feed as feed_module
from inventory_server.domain import FeedChange, Position
from inventory_server.errors import Overloaded, ValidationError
from inventory_server.postgres.feed import Alarm
from inventory_server.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine

    from inventory_server.embedded import EmbeddedPostgres

START = Position(0, "", 0)


async def taking(changes: AsyncGenerator[FeedChange | Position], seen: list[str]) -> None:
    """Take changes up to an error; `seen` has those before it."""
    async with asyncio.timeout(SECONDS_MAX):
        async for change in changes:
            assert isinstance(change, FeedChange)
            seen.append(change.position.product_id)


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


NAIVE = {
    "by a sequence": "SELECT sequence, product_id FROM inventory_movements WHERE sequence > %s ORDER BY sequence",
    "by time": """
        SELECT inventory_micros_v1(occurred_at), product_id FROM inventory_movements
        WHERE inventory_micros_v1(occurred_at) > %s ORDER BY occurred_at
    """,
    "by transaction without a bound": """
        SELECT transaction_id::text::bigint, product_id FROM inventory_movements
        WHERE transaction_id::text::bigint > %s ORDER BY transaction_id
    """,
}


@pytest.fixture
def late(database_url: str) -> Callable[[], None]:
    """Write a movement of `late`, then one of `early` that commits first. Calling it commits `late`."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("ALTER TABLE inventory_movements ADD COLUMN sequence bigserial")
    slow = psycopg.connect(database_url)
    write(slow, "late", 1)
    written(database_url, "early")

    def commit() -> None:
        slow.commit()
        slow.close()

    return commit


@pytest.mark.parametrize("naive", NAIVE)
def test_a_naive_reader_misses_a_transaction_that_commits_late(
    database_url: str, late: Callable[[], None], naive: str
) -> None:
    query = NAIVE[naive].encode()
    with psycopg.connect(database_url, autocommit=True) as connection:
        first = connection.execute(query, (0,)).fetchall()
        late()
        second = connection.execute(query, (first[-1][0],)).fetchall()
    assert [product_id for _, product_id in first + second] == ["early"]


def test_the_feed_does_not_miss_a_transaction_that_commits_late(database_url: str, late: Callable[[], None]) -> None:
    async def read() -> None:
        async with opened(database_url) as repository:
            first = await repository.page(START, 10)
            assert first.changes == []
            await asyncio.to_thread(late)
            second = await repository.page(first.end, 10)
            assert [change.movement.product_id for change in second.changes] == ["late", "early"]
            assert (await repository.page(second.end, 10)).changes == []

    run(read())


def test_an_older_transaction_that_waited_for_a_product_comes_after_the_younger_one_it_waited_for(
    database_url: str,
) -> None:
    with psycopg.connect(database_url) as elder:
        elder.execute("SELECT pg_current_xact_id()")
        written(database_url, "teapot")
        write(elder, "teapot", 2)

    async def read() -> None:
        async with opened(database_url) as repository:
            page = await repository.page(START, 10)
            assert [change.movement.version for change in page.changes] == [1, 2]

    run(read())


def _write_at_random(database_url: str, seed: int, transactions: int) -> None:
    """Change some products in a transaction, in their order and under their locks, and now and then take it back."""
    dice = random.Random(seed)  # noqa: S311 — no secret
    with psycopg.connect(database_url) as connection:
        for _ in range(transactions):
            for product_id in sorted(dice.sample("abcdefgh", dice.randint(1, 4))):
                row = connection.execute(
                    "UPDATE inventory_stock SET version = version + 1 WHERE product_id = %s RETURNING version - 1",
                    (product_id,),
                ).fetchone()
                assert row is not None
                write(connection, product_id, row[0])
            if dice.random() < 0.2:
                connection.rollback()
            else:
                connection.commit()


def _writers(database_url: str, transactions: int) -> list[threading.Thread]:
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "INSERT INTO inventory_stock (product_id, available_quantity, reserved_quantity, version, created_at,"
            " updated_at) SELECT unnest(string_to_array('a b c d e f g h', ' ')), 0, 0, 1, now(), now()"
        )
    writers = [threading.Thread(target=_write_at_random, args=(database_url, seed, transactions)) for seed in range(5)]
    for writer in writers:
        writer.start()
    return writers


def test_pages_read_while_many_write_hold_each_movement_once_and_each_product_in_order(database_url: str) -> None:
    writers = _writers(database_url, transactions=60)

    async def read() -> None:
        seen: list[Position] = []
        async with opened(database_url) as repository:
            end, alive = START, True
            while alive:
                alive = any(writer.is_alive() for writer in writers)
                page = await repository.page(end, 7)
                while page.full:
                    seen += [change.position for change in page.changes]
                    page = await repository.page(page.end, 7)
                seen += [change.position for change in page.changes]
                end = page.end
        assert seen == ledger(database_url)
        for product_id in "abcdefgh":
            versions = [position.version for position in seen if position.product_id == product_id]
            assert versions == list(range(1, len(versions) + 1))

    run(read())


def test_a_page_of_some_products_leaves_out_the_others_and_still_ends_where_it_has_looked(database_url: str) -> None:
    written(database_url, "ant", "bee", "cat", "dog", "eel")

    async def read() -> None:
        async with opened(database_url) as repository:
            first = await repository.page(START, 4, ["bee"])
            # The last one is not wanted: it tells where the next page starts.
            assert [change.movement.product_id for change in first.changes] == ["bee", "dog"]
            second = await repository.page(first.end, 4, ["bee"])
            assert ([change.movement.product_id for change in second.changes], second.full) == (["eel"], False)
            assert second.end == await repository.now() == ledger(database_url)[-1]

    run(read())


def test_watchers_that_come_back_during_changes_see_each_of_them_once(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "_PAGE_CHANGES_MAX", 5)
    dice = random.Random(7)  # noqa: S311 — no secret
    wanted = [None if dice.random() < 0.5 else frozenset({*dice.sample("abcdefgh", 2), "end"}) for _ in range(24)]

    async def watch() -> None:
        writers = _writers(database_url, transactions=40)
        await until(lambda: len(ledger(database_url)) > 50)
        async with fed(database_url) as feed:
            starts = [START, *dice.choices(ledger(database_url)[:50], k=len(wanted) - 1)]
            watching = []
            for product_ids, start in zip(wanted, starts, strict=True):
                changes = await feed.watch(product_ids, start)
                watching.append(asyncio.create_task(following(changes, "end")))
            for writer in writers:
                await asyncio.to_thread(writer.join)
            await asyncio.to_thread(written, database_url, "end")
            told = await asyncio.gather(*watching)
            assert feed.watchers == 0
        everything = ledger(database_url)
        for product_ids, start, seen in zip(wanted, starts, told, strict=True):
            assert seen == [
                position
                for position in everything
                if position > start and (product_ids is None or position.product_id in product_ids)
            ]

    run(watch())


def test_a_new_watcher_hears_what_commits_from_now_on_and_nothing_older(database_url: str) -> None:
    written(database_url, "before")

    async def watch() -> None:
        async with fed(database_url) as feed:
            changes = await begun(feed)
            await asyncio.to_thread(written, database_url, "after")
            assert [position.product_id for position in await following(changes, "after")] == ["after"]

    run(watch())


def test_a_new_watcher_is_ahead_of_a_reader_that_rests_and_hears_nothing_older_from_it(database_url: str) -> None:
    async def watch() -> None:
        async with fed(database_url, prepared_statements=False) as feed:
            resident = asyncio.create_task(following(await begun(feed), "end"))
            for number in range(20):
                await asyncio.to_thread(written, database_url, f"before-{number}")
                changes = await begun(feed)
                await asyncio.to_thread(written, database_url, f"after-{number}")
                assert [each.product_id for each in await following(changes, f"after-{number}")] == [f"after-{number}"]
            await asyncio.to_thread(written, database_url, "end")
            assert len(await resident) == 41

    run(watch())


def test_whoever_goes_on_from_the_beginning_of_a_stream_misses_nothing(database_url: str) -> None:
    async def watch() -> None:
        async with fed(database_url) as feed:
            first = await feed.watch()
            mark = await anext(first)
            await first.aclose()
            assert isinstance(mark, Position)
            again = await feed.watch(after=mark)  # nothing has happened yet
            await asyncio.to_thread(written, database_url, "teapot")
            assert len(await following(again, "teapot")) == 1
            assert len(await following(await feed.watch(after=mark), "teapot")) == 1

    run(watch())


def test_who_hears_nothing_for_long_is_told_how_far_the_others_have_come(database_url: str) -> None:
    async def watch() -> None:
        async with fed(database_url, mark_interval=0.1) as feed:
            changes = await begun(feed, frozenset({"kettle"}))
            waiting = asyncio.create_task(anext(changes))
            await until(lambda: feed.watchers == 1)
            await asyncio.to_thread(written, database_url, "teapot")
            mark = await waiting
            assert isinstance(mark, Position)
            assert mark == ledger(database_url)[-1]
            await changes.aclose()
            await asyncio.to_thread(written, database_url, "kettle")
            assert len(await following(await feed.watch(after=mark), "kettle")) == 1

    run(watch())


@pytest.mark.parametrize(
    "position",
    [
        pytest.param(Position(2**60, "kettle", 1), id="of a product that it does not have"),
        pytest.param(Position(2**60, "teapot", 2), id="of a version that it does not have yet"),
        pytest.param(Position(3, "teapot", 1), id="of another transaction, as in the cluster of a restored dump"),
        pytest.param(Position(2**60, "", 0), id="of a horizon ahead of its own"),
    ],
)
def test_a_position_that_the_database_never_had_is_refused(database_url: str, position: Position) -> None:
    written(database_url, "teapot")

    async def watch() -> None:
        async with fed(database_url) as feed:
            with pytest.raises(ValidationError, match="resume_token is not of this database"):
                await feed.watch(after=position)

    run(watch())


def test_a_position_that_retention_has_removed_is_gone_on_from(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        for version in 1, 2, 3, 4:
            write(connection, "teapot", version)
        removed = ledger(database_url)[1]
        connection.execute("DELETE FROM inventory_movements WHERE version < 4")

    async def read() -> None:
        async with opened(database_url) as repository:
            assert [change.movement.version for change in (await repository.page(removed, 10)).changes] == [4]

    run(read())


def test_a_watcher_that_does_not_read_is_cut_off_and_its_neighbour_is_not(database_url: str) -> None:
    products = [f"p{number}" for number in range(40)]

    async def watch() -> None:
        async with fed(database_url, queue_size=20) as feed:
            slow, quick = await begun(feed), await begun(feed)
            neighbour = asyncio.create_task(following(quick, "end"))
            first = asyncio.create_task(anext(slow))
            await until(lambda: feed.watchers == 2)
            # Ten at a time, so that who reads keeps up.
            for start in range(0, 40, 10):
                await asyncio.to_thread(written, database_url, *products[start : start + 10])
                await until(lambda: feed._position == ledger(database_url)[-1])
            # What waited for it, without a gap, and no more than that.
            head = await first
            assert isinstance(head, FeedChange)
            seen = [head.position.product_id]
            with pytest.raises(Overloaded):
                await taking(slow, seen)
            assert seen == products[:21]
            assert feed.watchers == 1
            await asyncio.to_thread(written, database_url, "end")
            assert [position.product_id for position in await neighbour] == [*products, "end"]

    run(watch())


def test_any_number_of_watchers_share_one_listener_that_leaves_with_the_last_of_them(database_url: str) -> None:
    async def watch() -> None:
        async with fed(database_url) as feed:
            streams = [await begun(feed, frozenset({f"p{number}"})) for number in range(50)]
            waiting = [asyncio.create_task(anext(stream)) for stream in streams]
            await until(lambda: feed.watchers == 50)
            await until(lambda: sleepers(database_url) == 1)
            assert listeners(database_url) == 1
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            assert feed.watchers == 0
            assert feed._audience._by_product == {}
            await until(lambda: listeners(database_url) == 0)
            # And the next one is served as the first was.
            changes = await begun(feed)
            await asyncio.to_thread(written, database_url, "again")
            await following(changes, "again")

    run(watch())


def test_watchers_outlast_the_database_and_miss_nothing(private_postgres: EmbeddedPostgres) -> None:
    async def watch() -> None:
        async with fed(private_postgres.url, pool_timeout=0.2) as feed:
            watching = asyncio.create_task(following(await begun(feed), "end"))
            await asyncio.to_thread(written, private_postgres.url, "before")
            await until(lambda: sleepers(private_postgres.url) == 1)
            await asyncio.to_thread(private_postgres.kill)
            await asyncio.to_thread(private_postgres.start)
            await asyncio.to_thread(written, private_postgres.url, "after", "end")
            assert [position.product_id for position in await watching] == ["before", "after", "end"]

    run(watch())


def test_a_feed_that_cannot_listen_looks_by_itself(database_url: str) -> None:
    async def watch() -> None:
        async with fed(database_url, prepared_statements=False) as feed:
            changes = await begun(feed)
            await asyncio.to_thread(written, database_url, "teapot")
            await following(changes, "teapot")
        async with Alarm(database_url, Settings(prepared_statements=False)) as alarm:
            assert not await alarm.sleep(0.01)
            assert listeners(database_url) == 0

    run(watch())

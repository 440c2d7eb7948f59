"""A lane with a scripted database behind it: who shares a batch, who is dropped, who is told what."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from tests.fixtures.clock import now, work
from tests.fixtures.scripted import Database, alone

from inventory_server.attempts import asked_once
from inventory_server.errors import (
    DatabaseUnavailable,
    Overloaded,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence
    from typing import Any

    from inventory_server.batcher import Lane


def ask(lane: Lane[str, str], *items: str, deadline: float | None = None) -> list[asyncio.Task[str]]:
    return [asyncio.create_task(lane.submit(item, deadline)) for item in items]


async def turn() -> None:
    """Let everything happen that can happen now."""
    for _ in range(20):
        await asyncio.sleep(0)


async def told(calls: Sequence[Awaitable[str]]) -> list[str]:
    """Give the answers, and the names of errors in their place."""
    answers = await asyncio.gather(*calls, return_exceptions=True)
    return [answer if isinstance(answer, str) else type(answer).__name__ for answer in answers]


@alone
async def test_a_request_that_finds_the_lane_idle_starts_at_once(database: Database) -> None:
    lane = database.lane(gather_pause=60, gather_max=60)
    (call,) = ask(lane, "a")
    await turn()
    assert database.batches == [["a"]]
    database.open.set()
    assert await call == "A"
    # A lane with one caller never waits for more.
    assert await lane.submit("b") == "B"


@alone
async def test_what_arrives_while_a_batch_is_under_way_forms_the_next_one(database: Database) -> None:
    lane = database.lane(batch_size=3)
    calls = ask(lane, "a")
    await turn()
    calls += ask(lane, "b", "c", "d", "e")
    await turn()
    database.open.set()
    assert await told(calls) == ["A", "B", "C", "D", "E"]
    assert database.batches == [["a"], ["b", "c", "d"], ["e"]]


@alone
async def test_a_batch_takes_no_more_once_it_weighs_enough(database: Database) -> None:
    lane = database.lane(batch_size=5, weight=len)
    calls = ask(lane, "a")
    await turn()
    calls += ask(lane, "bb", "cc", "dddd", "e", "ffffffffff", "gg")
    await turn()
    database.open.set()
    assert len(await told(calls)) == 7
    assert database.batches == [["a"], ["bb", "cc", "dddd"], ["e", "ffffffffff"], ["gg"]]


@alone
async def test_each_gets_its_own_answer_or_error(database: Database) -> None:
    lane = database.lane()
    database.open.set()
    assert await told(ask(lane, "a", "unknown", "b")) == ["A", "ProductNotFound", "B"]


@alone
async def test_requests_with_one_key_never_share_a_batch_and_keep_their_order(database: Database) -> None:
    lane = database.lane(key=lambda item: item[0])
    calls = ask(lane, "x")
    await turn()
    calls += ask(lane, "a1", "b1", "a2", "a3", "b2", "c1")
    await turn()
    database.open.set()
    assert await told(calls) == ["X", "A1", "B1", "A2", "A3", "B2", "C1"]
    assert database.batches == [["x"], ["a1", "b1", "c1"], ["a2", "b2"], ["a3"]]


@alone
async def test_equal_questions_share_a_batch_and_are_asked_once(database: Database) -> None:
    lane = database.lane(key=None)
    lane._run = asked_once(database.run)
    calls = ask(lane, "first")
    await turn()
    calls += ask(lane, *["a", "b", "unknown"] * 5)
    await turn()
    database.open.set()
    assert await told(calls) == ["FIRST", *["A", "B", "ProductNotFound"] * 5]
    assert database.batches == [["first"], ["a", "b", "unknown"]]


@alone
async def test_a_caller_who_has_left_takes_no_place(database: Database) -> None:
    lane = database.lane(batch_size=2)
    calls = ask(lane, "a")
    await turn()
    gone, *stay = ask(lane, "gone", "b", "c")
    await turn()
    gone.cancel()
    database.open.set()
    assert await told([*calls, *stay]) == ["A", "B", "C"]
    assert database.batches == [["a"], ["b", "c"]]


@alone
async def test_a_caller_who_leaves_while_its_batch_is_under_way_hurts_nobody(database: Database) -> None:
    lane = database.lane()
    calls = ask(lane, "a")
    await turn()
    calls += ask(lane, "b", "c")
    await turn()
    calls[0].cancel()
    database.open.set()
    assert await told(calls) == ["CancelledError", "B", "C"]


@alone
async def test_a_deadline_that_has_passed_drops_the_request_before_its_batch(database: Database) -> None:
    lane = database.lane()
    calls = ask(lane, "a")
    await turn()
    calls += ask(lane, "late", deadline=now() + 1) + ask(lane, "b", deadline=now() + 3)
    await asyncio.sleep(2)
    database.open.set()
    assert await told(calls) == ["A", "TimeoutError", "B"]
    assert database.batches == [["a"], ["b"]]


@alone
async def test_a_lane_goes_on_after_everybody_in_it_has_left(database: Database) -> None:
    lane = database.lane()
    calls = ask(lane, "a")
    await turn()
    gone = ask(lane, "b", "c")
    await turn()
    for each in gone:
        each.cancel()
    database.open.set()
    assert await told(calls) == ["A"]
    await turn()
    assert await lane.submit("d") == "D"
    assert database.batches == [["a"], ["d"]]


@alone
async def test_too_many_that_wait_are_refused_and_those_before_them_are_not(database: Database) -> None:
    lane = database.lane(queue_size=2)
    calls = ask(lane, "a")
    await turn()
    calls += ask(lane, "b", "c", "d")
    await turn()
    with pytest.raises(Overloaded):
        await calls[3]
    database.open.set()
    assert await told(calls) == ["A", "B", "C", "Overloaded"]


@alone
async def test_everybody_in_the_batch_is_told_that_the_database_is_away_and_the_lane_goes_on(
    database: Database,
) -> None:
    lane = database.lane()
    database.failure = DatabaseUnavailable()
    database.open.set()
    assert await told(ask(lane, "a", "b")) == ["DatabaseUnavailable"] * 2
    assert len(database.batches) == 1, "to ask again by halves would only take longer"
    database.failure = None
    assert await lane.submit("c") == "C"


@alone
async def test_what_follows_a_batch_sees_the_values_of_those_that_succeeded(database: Database) -> None:
    seen: list[list[str]] = []
    lane = database.lane(after=lambda values: seen.append(list(values)))
    database.open.set()
    assert await told(ask(lane, "a", "unknown")) == ["A", "ProductNotFound"]
    assert await told(ask(lane, "b")) == ["B"]
    assert seen == [["A"], ["B"]]


@alone
async def test_a_failure_of_what_follows_changes_no_answer(database: Database) -> None:
    def after(_: Sequence[str]) -> None:
        raise RuntimeError("Redis, for example")

    lane = database.lane(after=after)
    database.open.set()
    assert await told(ask(lane, "a")) == ["A"]
    assert await told(ask(lane, "b")) == ["B"]


async def busy(database: Database, lane: Lane[str, str], seconds: float = 0.1, callers: int = 80) -> None:
    """Have the lane end a batch of so many that took so long, after which it gathers."""
    calls = ask(lane, "x")
    await turn()
    calls += ask(lane, *(f"caller {number}" for number in range(callers)))
    await turn()
    database.seconds = seconds
    database.open.set()
    await told(calls)


@alone
async def test_after_a_batch_a_lane_gathers_for_as_long_as_each_pause_brings_a_request(database: Database) -> None:
    lane = database.lane(gather_pause=0.001, gather_max=0.020)
    await busy(database, lane)
    calls = []
    for item in ("c", "d", "e", "f"):
        calls += ask(lane, item)
        await asyncio.sleep(0.0008)
    await asyncio.sleep(0.005)
    calls += ask(lane, "late")
    assert await told(calls) == ["C", "D", "E", "F", "LATE"]
    assert database.batches[2:] == [["c", "d", "e", "f"], ["late"]]


@alone
async def test_a_lane_gathers_on_while_the_loop_is_too_busy_to_bring_requests(database: Database) -> None:
    lane = database.lane(gather_pause=0.001, gather_max=0.020)
    await busy(database, lane)
    calls = ask(lane, "c")
    for _ in range(3):
        await asyncio.sleep(0.0005)
        work(0.004)
    calls += ask(lane, "d")
    assert await told(calls) == ["C", "D"]
    assert database.batches[2:] == [["c", "d"]]


@alone
async def test_without_a_pause_a_lane_sends_what_is_there_however_busy_the_loop_is(database: Database) -> None:
    async def load() -> None:
        for _ in range(1000):
            work(0.001)
            await asyncio.sleep(0)

    lane = database.lane(gather_pause=0, gather_max=60)
    loading = asyncio.create_task(load())
    began = now()
    await busy(database, lane)
    assert await told(ask(lane, "c")) == ["C"]
    assert now() - began < 0.5
    await loading


@alone
async def test_a_lane_gathers_after_a_batch_of_one_that_others_waited_for(database: Database) -> None:
    lane = database.lane(gather_pause=0.001, gather_max=0.020)
    calls = ask(lane, "a")
    await turn()
    calls += ask(lane, "b", "c")
    await turn()
    await asyncio.sleep(0.010)
    database.open.set()
    await turn()
    calls += ask(lane, "d")
    assert await told(calls) == ["A", "B", "C", "D"]
    assert database.batches == [["a"], ["b", "c"], ["d"]]


@alone
async def test_a_batch_starts_once_half_of_the_callers_are_back(database: Database) -> None:
    lane = database.lane(gather_pause=0.001, gather_max=60)
    await busy(database, lane, seconds=1, callers=8)
    began, calls = now(), []
    for item in "abcdef":
        calls += ask(lane, item)
        await asyncio.sleep(0.0008)
    await told(calls)
    assert database.batches[2] in (["a", "b", "c", "d"], ["a", "b", "c", "d", "e"])
    assert now() - began == pytest.approx(2, abs=0.1)


@alone
async def test_two_callers_take_turns_without_waiting_for_each_other(database: Database) -> None:
    lane = database.lane(gather_pause=1, gather_max=60)
    calls = ask(lane, "a")
    await turn()
    calls += ask(lane, "b")
    await turn()
    database.seconds = 0.1
    began = now()
    database.open.set()
    await told(calls)
    assert now() - began == pytest.approx(0.2)


@alone
async def test_a_lane_gathers_no_longer_than_it_may_or_than_the_last_batch_took(
    database: Database,
) -> None:
    limited: list[tuple[float, dict[str, Any], int]] = [
        (0.1, {"gather_max": 0.020}, 20),
        (0.010, {"gather_max": 60}, 10),
    ]
    for seconds, limits, expected in limited:
        lane = database.lane(gather_pause=0.001, **limits)
        await busy(database, lane, seconds)
        began = len(database.batches)
        calls = []
        for number in range(50):
            calls += ask(lane, f"{number}")
            await asyncio.sleep(0.001)
        await told(calls)
        assert expected - 3 <= len(database.batches[began]) <= expected + 1
        database.open.clear()
        database.seconds = 0.0

"""Turns of bulk calls: who comes after whom, and who is turned away."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest
from tests.fixtures.clock import now
from tests.fixtures.scripted import Database, alone, refusal

from inventory_server.attempts import attempt
from inventory_server.errors import Overloaded
from inventory_server.turns import Turns


@alone
async def test_a_call_of_many_statements_lets_others_by_between_them(database: Database) -> None:
    turns = Turns()
    database.bad = {"bad"}

    async def call(*items: str) -> None:
        await attempt(turns.taking(database.run, None), items, refusal)

    calls = [asyncio.create_task(call("bad", name, "c", "d")) for name in ("long", "longer")]
    calls.append(asyncio.create_task(call("short")))
    await asyncio.sleep(1)
    assert [batch[1] for batch in database.batches] == ["long", "longer"]
    database.open.set()
    await asyncio.gather(*calls)
    assert database.batches[2] == ["short"]
    assert len(database.batches) > 8


@alone
async def test_a_call_whose_time_is_over_takes_no_turn_and_nobody_calls_that_a_failure(database: Database) -> None:
    turns = Turns()
    takes = turns.taking(database.run, now() + 1)
    early = [asyncio.ensure_future(takes([name])) for name in "ab"]
    late = asyncio.create_task(attempt(takes, ["c"], refusal))
    await asyncio.sleep(2)
    database.open.set()
    assert await asyncio.gather(*early) == [["A"], ["B"]]
    with pytest.raises(TimeoutError):
        await late
    assert database.batches == [["a"], ["b"]]


def test_the_sixty_fifth_call_is_turned_away_until_one_has_ended() -> None:
    turns = Turns()
    with ExitStack() as calls:
        for _ in range(64):
            calls.enter_context(turns.call())
        with pytest.raises(Overloaded), turns.call():
            pass
        assert turns.calls == 64
    with turns.call():
        assert turns.calls == 1

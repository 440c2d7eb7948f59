"""Attempts at a batch: which items are set aside, and what their neighbours come to."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING

import psycopg
import pytest
from tests.fixtures.clock import play
from tests.fixtures.scripted import Database, alone, refusal

from inventory_server.attempts import attempt
from inventory_server.errors import InternalError, RequestIdConflict
from inventory_server.postgres.database import BadItem

if TYPE_CHECKING:
    from collections.abc import Sequence


@pytest.mark.parametrize("bad", [{"b"}, {"a", "h"}, {"a", "b", "c", "d", "e", "f", "g", "h"}, set()])
def test_what_spoils_a_batch_is_found_by_halves_and_its_neighbours_succeed(bad: set[str]) -> None:
    async def test() -> None:
        database = Database()
        database.open.set()
        database.bad = bad
        items = list("abcdefgh")
        answers = await attempt(database.run, items, refusal)
        assert [type(answer).__name__ for answer in answers] == [
            "RequestIdConflict" if item in bad else "str" for item in items
        ]
        # One bad item of eight costs two statements for each halving, not one for each neighbour.
        assert len(database.batches) <= 1 + 6 * len(bad)

    play(test)


@pytest.mark.parametrize(("bad", "most"), [(1, 3), (2, 5), (3, 7), (64, 127)])
def test_what_postgresql_names_is_set_aside_at_once(bad: int, most: int) -> None:
    ids = [str(uuid.uuid4()) for _ in range(64)]
    batches: list[Sequence[str]] = []

    async def run(items: Sequence[str]) -> Sequence[str]:
        batches.append(items)
        for item in items:
            if item in ids[:bad]:
                spoilt = BadItem(psycopg.errors.UniqueViolation())
                spoilt._ids = [item]
                raise spoilt
        return items

    answers = asyncio.run(attempt(run, ids, refusal))
    assert [isinstance(answer, RequestIdConflict) for answer in answers] == [True] * bad + [False] * (64 - bad)
    assert len(batches) <= most


@alone
async def test_a_failure_that_nobody_can_explain_is_logged_and_told_as_such(database: Database) -> None:
    database.open.set()
    database.bad = {"mystery"}
    answers = await attempt(database.run, ["a", "mystery"], refusal)
    assert [type(answer) for answer in answers] == [str, InternalError]
    database.failure = RuntimeError("no idea")
    assert [type(answer) for answer in await attempt(database.run, ["a", "b"], refusal)] == [InternalError] * 2

"""Request ids that were used before, or that a batch repeats: each function answers those items and does the others."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import psycopg
import pytest
from tests.fixtures.ledger import audit
from tests.fixtures.ledgers import HOUR_US, Ledgers

from inventory_server.postgres.queries import query

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def ledgers(database_url: str) -> Iterator[Ledgers]:
    with Ledgers(database_url) as ledgers:
        yield ledgers
    audit(database_url)


def test_records_are_created_beside_those_whose_request_id_is_used(ledgers: Ledgers) -> None:
    ledgers.initialize("old", 1)
    used, same, other = UUID(ledgers.reserve("old", 1)), uuid4(), uuid4()
    products = ["old", "a", "b", "c", "d", "e"]
    requests = [same, used, same, same, other, other]
    rows = ledgers.run(query("initialize"), (products, [5] * 6, requests))
    # The first of those that share an id is about a record that exists: it left the id to the second.
    assert [row[0] for row in rows] == ["CONFLICT", "CONFLICT", "CREATED", "CONFLICT", "CREATED", "CONFLICT"]
    again = ledgers.run(query("initialize"), (products, [5] * 6, requests))
    assert [row[0] for row in again] == ["CONFLICT", "CONFLICT", "CREATED", "CONFLICT", "CREATED", "CONFLICT"]
    assert ledgers.count("stock") == 3


def test_a_batch_that_looks_at_none_of_its_request_ids_fails_whole_and_does_nothing(ledgers: Ledgers) -> None:
    ledgers.initialize("teapot", 9)
    hold, fresh, used = UUID(ledgers.reserve("teapot", 1)), uuid4(), uuid4()
    ledgers.run(query("change"), (["teapot"], [1], ["ADD"], [1], [None], [None], [used], 10**15))

    def reserve(*, careful: bool) -> list[str]:
        ids = [fresh, used, hold, fresh]
        values = (["teapot"], [1, 2, 3, 4], [1] * 4, ["order"] * 4, [1] * 4, [HOUR_US] * 4, [True] * 4, ids, ids)
        return [row[0] for row in ledgers.run(query("reserve"), (*values, [0] * 4, careful))]

    with pytest.raises(psycopg.errors.UniqueViolation):
        reserve(careful=False)
    assert ledgers.count("reservations") == 1
    assert reserve(careful=True) == ["RESERVED", "CONFLICT", "REPLAYED", "CONFLICT"]
    assert ledgers.count("reservations") == 2

"""Array literals: whatever a text is made of, PostgreSQL reads back the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inventory_server.postgres.arrays import booleans, numbered, plain, texts

if TYPE_CHECKING:
    from collections.abc import Iterator

# PostgreSQL stores neither NUL nor lone surrogates, and the wire lets neither through.
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
LITTLE = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def connection(postgres_server: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        yield connection


def read_back(connection: psycopg.Connection[tuple[object, ...]], literal: str, kind: str) -> object:
    row = connection.execute(f"SELECT %s::{kind}[]".encode(), (literal,)).fetchone()
    assert row is not None
    return row[0]


@LITTLE
@given(values=st.lists(st.none() | TEXTS | st.sampled_from(["NULL", "", '"', "\\", "{", "}", ",", " a "])))
def test_texts_come_back_as_they_went(
    connection: psycopg.Connection[tuple[object, ...]], values: list[str | None]
) -> None:
    assert read_back(connection, texts(values), "text") == values


@LITTLE
@given(values=st.lists(st.none() | st.integers(-(2**63), 2**63 - 1)))
def test_numbers_come_back_as_they_went(
    connection: psycopg.Connection[tuple[object, ...]], values: list[int | None]
) -> None:
    assert read_back(connection, plain(values), "bigint") == values


@LITTLE
@given(values=st.lists(st.booleans()))
def test_truth_comes_back_as_it_went(connection: psycopg.Connection[tuple[object, ...]], values: list[bool]) -> None:
    assert read_back(connection, booleans(values), "boolean") == values


@LITTLE
@given(st.lists(st.text(max_size=2)))
def test_distinct_values_are_numbered_from_one_in_the_order_of_their_first_appearance(values: list[str]) -> None:
    numbers = numbered(values)
    assert list(numbers.values()) == list(range(1, len(set(values)) + 1))
    assert list(numbers) == list(dict.fromkeys(values))

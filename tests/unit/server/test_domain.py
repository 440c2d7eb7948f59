"""Rules that need no database: the ids that an order's holds get."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inventory_server.domain import line_ids
from inventory_server.rpc.wire.orders import LINES_MAX

unhurried = settings(deadline=None)  # however busy the machine is
REQUESTS = st.uuids().map(str)


@unhurried
@given(REQUESTS, st.text(), st.integers(1, LINES_MAX))
def test_an_orders_holds_have_ids_of_their_own_which_a_copy_of_the_request_gets_too(
    request_id: str, content: str, count: int
) -> None:
    ids = line_ids(request_id, content, count)
    assert len(set(ids)) == count
    assert line_ids(request_id, content, count) == ids
    assert request_id not in ids
    for text in ids:
        parsed = uuid.UUID(text)
        assert (str(parsed), parsed.version, parsed.variant) == (text, 8, uuid.RFC_4122)


@unhurried
@given(REQUESTS, st.lists(st.text(), min_size=2, max_size=5, unique=True))
def test_another_request_under_the_same_id_makes_other_holds(request_id: str, contents: list[str]) -> None:
    every = [each for content in contents for each in line_ids(request_id, content, LINES_MAX)]
    assert len(set(every)) == LINES_MAX * len(contents)


@unhurried
@given(st.lists(REQUESTS, min_size=2, max_size=5, unique=True))
def test_the_same_order_under_another_id_makes_other_holds(request_ids: list[str]) -> None:
    every = [each for request_id in request_ids for each in line_ids(request_id, "order", LINES_MAX)]
    assert len(set(every)) == LINES_MAX * len(request_ids)


@pytest.mark.parametrize("count", [1, LINES_MAX])
def test_the_ids_lie_where_their_request_lies_in_time(count: int) -> None:
    request_id = "01980c6e-7f4c-7c3e-9d2a-5b8f6a1e0c47"
    assert {each[:13] for each in line_ids(request_id, "order", count)} == {"01980c6e-7f4c"}

"""The auditor itself: it accepts a history that is right, and complains about each way in which one may be wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.soak.books import Books, Movement
from tests.soak.history import Call
from tests.soak.linearize import Verdict, check
from tests.soak.model import Record, histories
from tests.soak.promises import check_expiry, check_promises
from tests.soak.versions import check_versions

if TYPE_CHECKING:
    from collections.abc import Sequence

LATE = 50.0


def row(version: int, kind: str, available: int, reserved: int, request_id: str | None, **other: Any) -> Movement:
    """Write a row that ends with these balances; one unit moves."""
    deltas = {"INITIALIZE": (5, 0), "ADD": (1, 0), "RESERVE": (-1, 1), "DEDUCT": (0, -1), "EXPIRE": (1, -1)}
    at = other.pop("at", float(version))
    hold = "hold" if kind in {"RESERVE", "DEDUCT", "EXPIRE"} else None
    return Movement("teapot", version, kind, *deltas[kind], available, reserved, request_id, hold, at, None)


def call(kind: str, request_id: str, start: float, end: float, **other: Any) -> Call:
    asked = {"product": "teapot", "quantity": 1} if kind in {"add", "reserve"} else {"hold": "hold"}
    return Call("0.0", kind, request_id, other.pop("asked", asked), start, end, **other)


def stock(available: int, reserved: int, version: int) -> dict[str, Any]:
    return {"stocks": [{"product": "teapot", "available": available, "reserved": reserved, "version": version}]}


def hold(status: str) -> dict[str, Any]:
    return {"holds": [{"hold": "hold", "product": "teapot", "order": "o", "quantity": 1, "status": status}]}


CREATE = call(
    "initialize", "i", 0, 1, answer=stock(5, 0, 1) | {"created": True}, asked={"product": "teapot", "quantity": 5}
)
ADD = call("add", "a", 1, 3, answer=stock(6, 0, 2))
RESERVE = call("reserve", "r", 2, 4, answer=hold("RESERVED"))
DEDUCT = call("deduct", "d", 3, 5, answer=hold("DEDUCTED"))
READ = call("get_stock", "g", 6, 7, answer=stock(5, 0, 4))
CALLS = [CREATE, ADD, RESERVE, DEDUCT, READ]
ROWS = [
    row(1, "INITIALIZE", 5, 0, "i"),
    row(2, "ADD", 6, 0, "a"),
    row(3, "RESERVE", 5, 1, "r"),
    row(4, "DEDUCT", 5, 0, "d"),
]


def complaints(calls: Sequence[Call], rows: Sequence[Movement]) -> set[str]:
    """Name the checks that complain. Monotonic time is real time here, and the hold ends at LATE."""
    books = Books(list(rows), {"hold": LATE}, 0.0)
    found = [*check_promises(calls, books), *check_expiry(calls, books), *check_versions(calls, books)]
    wrong = [check(each, Record()).verdict is not Verdict.RIGHT for each in histories(calls, books).values()]
    return {violation.check for violation in found} | ({"linearizable"} if any(wrong) else set())


def test_a_history_that_is_right_is_accepted() -> None:
    assert complaints(CALLS, ROWS) == set()


def test_a_request_whose_answer_was_lost_may_be_done_at_any_later_time() -> None:
    lost = call("add", "a", 1, 1.5, reason="UNAVAILABLE")
    assert complaints([CREATE, lost, RESERVE, DEDUCT, READ], ROWS) == set()
    assert (
        complaints(
            [CREATE, lost, RESERVE, DEDUCT], [ROWS[0], row(2, "RESERVE", 4, 1, "r"), row(3, "DEDUCT", 4, 0, "d")]
        )
        == set()
    )


@pytest.mark.parametrize(
    ("calls", "rows", "expected"),
    [
        pytest.param(CALLS, ROWS[:3], "once", id="acknowledged, but not there"),
        pytest.param(
            [*CALLS[:4], call("get_stock", "g", 6, 7, answer=stock(6, 0, 5))],
            [*ROWS, row(5, "ADD", 6, 0, "a")],
            "once",
            id="acknowledged, and there twice",
        ),
        pytest.param(
            [CREATE, call("add", "a", 1, 3, reason="UNAVAILABLE")],
            [*ROWS[:2], row(3, "ADD", 7, 0, "a")],
            "twice",
            id="not acknowledged, and there twice",
        ),
        pytest.param([CREATE, call("add", "a", 1, 3, reason="PRODUCT_NOT_FOUND")], ROWS[:2], "refused", id="refused"),
        pytest.param([CREATE], ROWS[:2], "known", id="of nobody"),
        pytest.param(
            [*CALLS, call("add", "a", 8, 9, answer=stock(7, 0, 5))], ROWS, "replay", id="answered in two ways"
        ),
        pytest.param(
            [*CALLS[:3], call("deduct", "d", LATE + 1, LATE + 2, answer=hold("DEDUCTED"))],
            ROWS,
            "expiry",
            id="asked for after its expiry, and sold",
        ),
        pytest.param(
            [*CALLS[:3]],
            [*ROWS[:3], row(4, "EXPIRE", 6, 0, None, at=LATE - 1)],
            "expiry",
            id="taken back before its expiry",
        ),
        pytest.param(
            [*CALLS[:3], call("deduct", "d", 3, LATE + 2, answer=hold("DEDUCTED"))],
            [*ROWS[:3], row(4, "DEDUCT", 5, 0, "d", at=LATE + 1)],
            "expiry",
            id="sold after its expiry",
        ),
        pytest.param([*CALLS, call("get_stock", "h", 8, 9, answer=stock(5, 1, 3))], ROWS, "order", id="a stale read"),
        pytest.param([*CALLS, call("get_stock", "h", 8, 9, answer=stock(4, 0, 4))], ROWS, "balance", id="a wrong read"),
        pytest.param(
            [*CALLS, call("get_reservation", "h", 8, 9, answer=hold("RESERVED"))],
            ROWS,
            "linearizable",
            id="a stale read of a hold",
        ),
        pytest.param(
            [
                *CALLS,
                call(
                    "reserve", "s", 8, 9, reason="INSUFFICIENT_STOCK", told={"product_id": "teapot", "available": "0"}
                ),
            ],
            ROWS,
            "linearizable",
            id="short, though there is enough",
        ),
        pytest.param([*CALLS, call("add", "b", 8, 9, reason="INTERNAL_ERROR")], ROWS, "reason", id="an internal error"),
        pytest.param(
            [*CALLS, call("conflict", "a", 8, 9, answer=stock(6, 0, 5))], ROWS, "conflict", id="another under its id"
        ),
    ],
)
def test_what_is_wrong_is_seen(calls: list[Call], rows: list[Movement], expected: str) -> None:
    assert expected in complaints(calls, rows)

"""Checks of each request on its own: done once if acknowledged, never twice, never after a refusal, never too late."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.soak.books import Violation
from tests.soak.history import UNKNOWN, by_request

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

    from tests.soak.books import Books, Movement
    from tests.soak.history import Call

# A call that started later than this after the expiry of a hold must not sell it. Clocks are one and the same.
LATE_SECONDS = 0.005

_KINDS = {
    "initialize": {"INITIALIZE"},
    "add": {"ADD"},
    "adjust": {"ADJUST"},
    "reserve": {"RESERVE"},
    "reserve_order": {"RESERVE"},
    "release": {"RELEASE"},
    "release_order": {"RELEASE"},
    "deduct": {"DEDUCT"},
    "deduct_order": {"DEDUCT"},
    "late_deduct": {"DEDUCT", "REACQUIRE"},
    "late_deduct_order": {"DEDUCT", "REACQUIRE"},
    "extend": {"EXTEND"},
    "extend_order": {"EXTEND"},
}
_LATE = {"late_deduct", "late_deduct_order"}
# All of an order in one transaction: several movements of one request.
_WHOLE = {"reserve_order", "release_order", "deduct_order", "late_deduct_order", "extend_order"}
_EXPECTED = UNKNOWN | {
    "INSUFFICIENT_STOCK",
    "PRODUCT_NOT_FOUND",
    "RESERVATION_ALREADY_RELEASED",
    "RESERVATION_ALREADY_DEDUCTED",
    "VERSION_MISMATCH",
}


def check_promises(calls: Sequence[Call], books: Books) -> Iterator[Violation]:
    """Compare every mutation with the ledger."""
    requests = by_request(calls)
    for request_id, attempts in requests.items():
        rows = books.by_request.get(request_id, [])
        answers = [call.answer for call in attempts if call.answer is not None]
        if answers:
            yield from _check_acknowledged(attempts[0], answers, rows)
        else:
            yield from _check_unacknowledged(attempts, rows)
    for request_id in books.by_request.keys() - requests.keys():
        yield Violation("known", "the ledger has a request that nobody sent", request_id)
    yield from _check_reasons(calls)


def check_expiry(calls: Sequence[Call], books: Books) -> Iterator[Violation]:
    """No hold is sold or given more time after it has expired, nor taken back before."""
    lenient = {call.request_id for call in calls if call.kind in _LATE}
    expiries = dict(books.expiries)
    starts = {request_id: attempts[0].start for request_id, attempts in by_request(calls).items()}
    for row in books.movements:
        if row.hold is None:
            continue
        late = row.occurred_at - expiries[row.hold]
        if row.kind == "EXPIRE" and late < 0:
            yield Violation("expiry", f"hold {row.hold} was taken back {-late:.6f} s early", None, row.product)
        if row.kind in {"DEDUCT", "EXTEND"} and row.request_id is not None and row.request_id not in lenient:
            asked_late = starts.get(row.request_id, 0.0) + books.realtime_offset - expiries[row.hold]
            if late >= 0 or asked_late > LATE_SECONDS:
                sentence = f"{row.kind} of hold {row.hold} {max(late, asked_late):.6f} s after its expiry"
                yield Violation("expiry", sentence, row.request_id, row.product)
        if row.expires_at is not None:
            expiries[row.hold] = row.expires_at


def _check_acknowledged(call: Call, answers: Sequence[dict[str, Any]], rows: Sequence[Movement]) -> Iterator[Violation]:
    if call.kind != "initialize" and any(answer != answers[0] for answer in answers):
        yield Violation("replay", "one request was answered in different ways", call.request_id)
    if call.kind == "initialize" and not any(answer["created"] for answer in answers):
        if rows:
            yield Violation("once", "it said that the record existed, but created it", call.request_id)
        return
    wanted = sorted(_wanted(call, answers[0]))
    there = sorted((row.product, row.hold or "", _units(row)) for row in rows)
    if wanted != there or _kinds(rows) - _KINDS[call.kind]:
        yield Violation("once", f"it was acknowledged, so {wanted} belong in the ledger", call.request_id)


def _wanted(call: Call, answer: dict[str, Any]) -> Iterator[tuple[str, str, int]]:
    """Name product, hold and units of every row that an acknowledged request has in the ledger."""
    if "holds" not in answer:
        yield call.asked["product"], "", abs(call.asked.get("quantity", call.asked.get("delta", 0)))
        return
    for hold in answer["holds"]:
        units = 0 if call.kind in {"extend", "extend_order"} else call.asked.get("quantity", hold["quantity"])
        if call.kind != "release_order" or hold["status"] != "EXPIRED":
            yield hold["product"], hold["hold"], units


def _units(row: Movement) -> int:
    return max(abs(row.available_delta), abs(row.reserved_delta))


def _check_unacknowledged(attempts: Sequence[Call], rows: Sequence[Movement]) -> Iterator[Violation]:
    call = attempts[0]
    places = [(row.product, row.hold) for row in rows]
    if len(set(places)) != len(places) or _kinds(rows) - _KINDS[call.kind]:
        yield Violation("twice", "it was not acknowledged, and is in the ledger more than once", call.request_id)
    if call.kind == "reserve_order" and len(rows) not in {0, len(call.asked["lines"])}:
        yield Violation("atomic", f"only {len(rows)} of its lines are in the ledger", call.request_id)
    elif call.kind not in _WHOLE and len(rows) > 1:
        yield Violation("twice", f"it is in the ledger {len(rows)} times", call.request_id)
    if rows and all(each.refused for each in attempts):
        yield Violation("refused", "every attempt was refused, but it was done", call.request_id)


def _kinds(rows: Iterable[Movement]) -> set[str]:
    return {row.kind for row in rows}


def _check_reasons(calls: Iterable[Call]) -> Iterator[Violation]:
    """What goes wrong is an error of the contract that fits the request."""
    for call in calls:
        expected = UNKNOWN | {"REQUEST_ID_CONFLICT"} if call.kind == "conflict" else _EXPECTED
        if call.reason is None and call.kind == "conflict":
            yield Violation("conflict", "another request under the same id was done", call.request_id)
        elif call.reason is not None and call.reason not in expected:
            yield Violation("reason", f"it was refused as {call.reason}", call.request_id)

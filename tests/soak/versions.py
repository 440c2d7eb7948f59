"""Linearizability in the order of the ledger: the versions of a record must agree with real time.

Cheap and complete, but it believes the ledger's order. `linearize.py` looks for an order by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tests.soak.books import Violation
from tests.soak.history import by_request

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.soak.books import Books
    from tests.soak.history import Call


class _Seen(NamedTuple):
    """A version that a call made or read, within the time of the call."""

    version: int
    start: float
    end: float
    wrote: bool
    request_id: str


def check_versions(calls: Sequence[Call], books: Books) -> Iterator[Violation]:
    """Balances that were told are those of the ledger, and no call sees less than one that ended before it began."""
    yield from _check_balances(calls, books)
    seen = _seen(calls, books)
    for product, observations in seen.items():
        yield from _check_order(product, observations)


def _check_balances(calls: Sequence[Call], books: Books) -> Iterator[Violation]:
    for call in calls:
        for stock in (call.answer or {}).get("stocks", ()):
            rows = books.by_product.get(stock["product"], [])
            row = rows[stock["version"] - 1] if 0 < stock["version"] <= len(rows) else None
            told = (stock["available"], stock["reserved"])
            if row is None or (row.available, row.reserved) != told:
                sentence = f"it was told {stock}, but the ledger has {row}"
                yield Violation("balance", sentence, call.request_id, stock["product"])


def _seen(calls: Sequence[Call], books: Books) -> dict[str, list[_Seen]]:
    seen: dict[str, list[_Seen]] = {}
    for request_id, attempts in by_request(calls).items():
        ends = [call.end for call in attempts if call.answer is not None]
        for row in books.by_request.get(request_id, ()):
            # Without an answer it may have taken place at any time after it was sent.
            end = min(ends, default=float("inf"))
            seen.setdefault(row.product, []).append(_Seen(row.version, attempts[0].start, end, True, request_id))
    for call in calls:
        for stock in (call.answer or {}).get("stocks", ()):
            if not _wrote(call, stock, books):
                read = _Seen(stock["version"], call.start, call.end, False, call.request_id)
                seen.setdefault(stock["product"], []).append(read)
    return seen


def _wrote(call: Call, stock: dict[str, int], books: Books) -> bool:
    """Tell whether the balances of an answer are those that the request itself made, be it long ago."""
    return any(row.version == stock["version"] for row in books.by_request.get(call.request_id, ()))


def _check_order(product: str, observations: Sequence[_Seen]) -> Iterator[Violation]:
    """Walk through time: what begins must not be older than what had ended by then."""
    ends = sorted(observations, key=lambda each: each.end)
    newest: _Seen | None = None
    at = 0
    for each in sorted(observations, key=lambda each: each.start):
        while at < len(ends) and ends[at].end < each.start:
            if newest is None or ends[at].version > newest.version:
                newest = ends[at]
            at += 1
        if newest is None:
            continue
        if each.version < newest.version or (each.wrote and each.version == newest.version):
            sentence = f"it saw version {each.version} after {newest.request_id} had seen {newest.version}"
            yield Violation("order", sentence, each.request_id, product)

"""The auditor: reads what the clients wrote down and what the database has, and compares them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.fixtures.ledger import AuditFailed, audit
from tests.soak.books import Violation, products_of, read_books
from tests.soak.linearize import Verdict, check
from tests.soak.model import Record, histories
from tests.soak.promises import check_expiry, check_promises
from tests.soak.versions import check_versions

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.soak.books import Books
    from tests.soak.history import Call
    from tests.soak.schedule import Injected

STORY_LINES_MAX = 30


@dataclass
class Findings:
    """What came of all checks. `undecided` histories took the checker too long."""

    violations: list[Violation]
    histories: int
    undecided: int
    books: Books


def inspect(calls: Sequence[Call], database_url: str) -> Findings:
    """Run every check."""
    books = read_books(database_url, time.time() - time.monotonic())
    violations = [
        *_check_conservation(database_url),
        *check_promises(calls, books),
        *check_expiry(calls, books),
        *check_versions(calls, books),
    ]
    products = histories(calls, books)
    undecided = 0
    for product, operations in products.items():
        result = check(operations, Record())
        undecided += result.verdict is Verdict.UNDECIDED
        if result.verdict is Verdict.WRONG:
            order = [*result.done[-8:], "and none of these can follow:", *result.stuck[:12]]
            violations.append(
                Violation(
                    "linearizable",
                    "no order of its history is right; the best ends\n  " + "\n  ".join(order),
                    product=product,
                )
            )
    return Findings(violations, len(products), undecided, books)


def story(violation: Violation, calls: Sequence[Call], books: Books, injected: Sequence[Injected]) -> str:
    """Tell a violation with the attempts of its request, the faults, and the ledger of its products around them."""
    lines = [f"{violation.check}: {violation.sentence}", f"  request {violation.request_id}, {violation.product}"]
    attempts = [call for call in calls if call.request_id == violation.request_id] if violation.request_id else []
    lines += [f"  attempt {call}" for call in attempts]
    if attempts:
        begin, end = attempts[0].start - 1, attempts[-1].end
        around = [fault for fault in injected if fault.begin < end and fault.end > begin]
        lines += [f"  fault   {fault.begin:.4f}..{fault.end:.4f} {fault.name}" for fault in around]
    products = {violation.product} if violation.product else set()
    for call in attempts:
        products |= products_of(call, books)
    for product in sorted(filter(None, products)):
        rows = books.by_product.get(product, [])
        own = [row.version for row in rows if row.request_id == violation.request_id]
        if own:
            near = rows[max(0, min(own) - 4) : max(own) + 3]
        else:
            begin = min((call.start for call in attempts), default=0.0) + books.realtime_offset
            near = [row for row in rows if row.occurred_at > begin - 1][:8]
        lines += [f"  ledger  {row}" for row in near]
    return "\n".join(lines[:STORY_LINES_MAX])


def _check_conservation(database_url: str) -> Iterator[Violation]:
    try:
        audit(database_url)
    except AuditFailed as failure:
        for line in str(failure).splitlines():
            yield Violation("conservation", line)

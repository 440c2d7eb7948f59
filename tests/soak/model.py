"""The contract of one product as a sequential machine, and the history of a product as operations on it.

From the ledger come which requests without an answer were done and which holds expired, and when at the earliest; not
in what order anything happened. Everything else is what the clients were told.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.soak.history import by_request
from tests.soak.linearize import Operation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.soak.books import Books, Movement
    from tests.soak.history import Call

# The database reads its clock before it commits; how far two readings of one clock may be apart beside that.
CLOCK_SECONDS = 0.05


@dataclass(frozen=True)
class Record:
    """The state: balances, version, how each hold stands, and the requests that were done."""

    available: int = 0
    reserved: int = 0
    version: int = 0
    holds: frozenset[tuple[str, str]] = frozenset()
    done: frozenset[str] = frozenset()

    def status(self, hold: str) -> str | None:
        for status in ("RESERVED", "REQUESTED", "EXPIRED", "DEDUCTED"):
            if (hold, status) in self.holds:
                return status
        return None


_BECOMES = {
    "RESERVE": (None, "RESERVED"),
    "EXTEND": ("RESERVED", "RESERVED"),
    "RELEASE": ("RESERVED", "REQUESTED"),
    "EXPIRE": ("RESERVED", "EXPIRED"),
    "DEDUCT": ("RESERVED", "DEDUCTED"),
    "REACQUIRE": ("EXPIRED", "DEDUCTED"),
}


def change(row: Movement, told: dict[str, int] | None, record: Record) -> Record | None:
    """Do what a row of the ledger did, if it can be done now and ends with the balances that a client was told."""
    if (row.kind == "INITIALIZE") != (record.version == 0):
        return None
    available, reserved = record.available + row.available_delta, record.reserved + row.reserved_delta
    if available < 0 or reserved < 0:
        return None
    version = record.version + 1
    if told and (told["available"], told["reserved"], told["version"]) != (available, reserved, version):
        return None
    holds = record.holds
    if row.hold is not None:
        before, after = _BECOMES[row.kind]
        if record.status(row.hold) != before:
            return None
        holds = (holds - {(row.hold, before or "")}) | {(row.hold, after)}
    done = record.done if row.request_id is None else record.done | {row.request_id}
    return replace(record, available=available, reserved=reserved, version=version, holds=holds, done=done)


def told_balances(stock: dict[str, int], record: Record) -> bool:
    return (stock["available"], stock["reserved"], stock["version"]) == (
        record.available,
        record.reserved,
        record.version,
    )


def told_available(available: int, request_id: str, record: Record) -> bool:
    return record.version > 0 and record.available == available and request_id not in record.done


def told_version(version: int, request_id: str, record: Record) -> bool:
    return record.version == version and request_id not in record.done


def told_status(hold: str, status: str, request_id: str | None, record: Record) -> bool:
    return record.status(hold) == status and request_id not in record.done


def told_expired(hold: str, record: Record) -> bool:
    """A hold past its time reads as expired before anybody has tidied it up."""
    return record.status(hold) in {"RESERVED", "EXPIRED"}


def histories(calls: Sequence[Call], books: Books) -> dict[str, list[Operation[Record]]]:
    """Write what happened to each product as operations."""
    found: dict[str, list[Operation[Record]]] = {product: [] for product in books.by_product}
    owners = {row.hold: row.product for row in books.movements if row.hold is not None}
    requests = by_request(calls)
    for product, rows in books.by_product.items():
        found[product] += [_change(row, requests.get(row.request_id or "", ()), books) for row in rows]
    for call in calls:
        for product, fits in _observations(call, owners, books):
            if product in found:
                found[product].append(_observation(call, fits))
    return found


def _change(row: Movement, attempts: Sequence[Call], books: Books) -> Operation[Record]:
    answered = [call for call in attempts if call.answer is not None]
    start = attempts[0].start if attempts else row.occurred_at - books.realtime_offset - CLOCK_SECONDS
    end = min((call.end for call in answered), default=float("inf"))
    stocks = [stock for call in answered for stock in (call.answer or {}).get("stocks", ())]
    told = stocks[0] if stocks and row.kind in {"INITIALIZE", "ADD", "ADJUST"} else None
    label = f"{row.kind} {row.available_delta:+} {row.reserved_delta:+} hold {row.hold} request {row.request_id}"
    return Operation(start, end, partial(change, row, told), True, f"{start:.4f}..{end:.4f} {label}", row.version)


def _observation(call: Call, fits: Callable[[Record], bool]) -> Operation[Record]:
    def apply(record: Record) -> Record | None:
        return record if fits(record) else None

    return Operation(call.start, call.end, apply, False, str(call))


def _observations(call: Call, owners: dict[str, str], books: Books) -> Iterator[tuple[str, Callable[[Record], bool]]]:
    """Give what an answer says about each product at one moment of the call."""
    if call.answer is not None:
        done = call.request_id in books.by_request
        for stock in call.answer.get("stocks", ()):
            if not done or (call.kind == "initialize" and not call.answer["created"]):
                yield stock["product"], partial(told_balances, stock)
        if call.kind == "get_reservation":
            (hold,) = call.answer["holds"]
            yield hold["product"], _reads_as(hold["hold"], hold["status"])
    elif call.refused and call.kind != "conflict":
        yield from _refusal(call, call.told, owners)


def _reads_as(hold: str, status: str) -> Callable[[Record], bool]:
    return partial(told_expired, hold) if status == "EXPIRED" else partial(told_status, hold, status, None)


def _refusal(
    call: Call, told: dict[str, Any], owners: dict[str, str]
) -> Iterator[tuple[str, Callable[[Record], bool]]]:
    hold = told.get("reservation_id", "")
    match call.reason:
        case "INSUFFICIENT_STOCK":
            for product, _, available in told.get("lines", [(told["product_id"], 0, int(told["available"]))]):
                if available is not None:
                    yield product, partial(told_available, available, call.request_id)
        case "VERSION_MISMATCH":
            yield told["product_id"], partial(told_version, int(told["version"]), call.request_id)
        case "RESERVATION_ALREADY_DEDUCTED" if hold in owners:
            yield owners[hold], partial(told_status, hold, "DEDUCTED", call.request_id)
        case "RESERVATION_ALREADY_RELEASED" if hold in owners:
            status = told["release_reason"]
            if call.kind in {"deduct_order", "extend", "extend_order"} and status == "EXPIRED":
                yield owners[hold], partial(told_expired, hold)
            else:
                yield owners[hold], partial(told_status, hold, status, call.request_id)

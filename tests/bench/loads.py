"""What is asked: a load is one generator per request in flight that yields calls and is sent their replies.

A reply is the message's bytes, or None where the call failed. A load that asks in steps (reserve, then deduct what was
reserved) is a generator that remembers; one that ends, ends the run.
"""

from __future__ import annotations

import functools
import itertools
import random
from typing import TYPE_CHECKING

from uuid_utils import uuid7

from inventory_client.proto.inventory.v1 import inventory_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    Call = tuple[str, bytes]
    Outcomes = Sequence[pb.ReservationOutcome]
    Load = Generator[Call, bytes | None, None]

SERVICE = "/inventory.v1.InventoryService/"
RESERVE = SERVICE + "ReserveStock"
HOT = "hot"
SPREAD = [f"product-{number:05}" for number in range(10_000)]
# Enough that no run sells out, little enough that bulk additions stay far from int64.
QUANTITY = 1_000_000_000
# Items of one bulk call.
BULK = 500
# Random choices are made before the run and used in turn.
CHOICES = 65_536
# The protobuf keys of ReserveStockRequest.order_id and .request_id, each with the length of a UUID: fields may come
# in any order, so a request is a constant and two of these.
ORDER_ID, REQUEST_ID = b"\x12\x24", b"\x2a\x24"
# The same of Settlement: its action and reservation_id, and its request_id.
SETTLEMENT = pb.Settlement(action=pb.SETTLEMENT_ACTION_DEDUCT).SerializeToString() + b"\x0a\x24"
SETTLEMENT_REQUEST_ID = b"\x1a\x24"


def reserve(products: Iterator[str]) -> Load:
    """Reserve one unit of each product in turn, for an order and under a request id of its own."""
    for product in products:
        yield _reserve(product)


def _reserve(product: str) -> Call:
    identity = str(uuid7()).encode()
    return RESERVE, _head(product) + ORDER_ID + identity + REQUEST_ID + identity


@functools.cache
def _head(product: str) -> bytes:
    return pb.ReserveStockRequest(product_id=product, quantity=1).SerializeToString()


def cycle(products: Iterator[str]) -> Load:
    """Reserve one unit, and deduct that hold in the next call."""
    for product in products:
        held = _hold((yield _reserve(product)))
        if held is not None:
            request = pb.DeductReservationRequest(reservation_id=held, request_id=str(uuid7()))
            yield SERVICE + "DeductReservation", request.SerializeToString()


def mixed(products: Iterator[str]) -> Load:
    """Of ten calls, reserve in two and read in eight: four balances and four holds."""
    held = ""
    for product in products:
        stock = SERVICE + "GetStock", pb.GetStockRequest(product_id=product).SerializeToString()
        held = _hold((yield _reserve(product))) or held
        hold = SERVICE + "GetReservation", pb.GetReservationRequest(reservation_id=held).SerializeToString()
        for _ in range(2):
            yield stock
            yield hold


def _hold(reply: bytes | None) -> str | None:
    return None if reply is None else pb.ReserveStockResponse.FromString(reply).reservation.reservation_id


def initialize(products: Iterator[str]) -> Load:
    """Create the stock of every product."""
    for product in products:
        request = pb.InitializeStockRequest(product_id=product, quantity=QUANTITY, request_id=str(uuid7()))
        yield SERVICE + "InitializeStock", request.SerializeToString()


def bulk_reserve(products: Iterator[str]) -> Load:
    """Reserve one unit of BULK products a call."""
    while True:
        reply = yield _bulk_reserve(products)
        _succeeded(pb.BatchReserveStockResponse.FromString(reply or b"").outcomes)


def bulk_cycle(products: Iterator[str]) -> Load:
    """Reserve one unit of BULK products in a call, and deduct those holds in the next."""
    while True:
        reply = yield _bulk_reserve(products)
        held = _succeeded(pb.BatchReserveStockResponse.FromString(reply or b"").outcomes)
        items = [
            SETTLEMENT + outcome.reservation.reservation_id.encode() + SETTLEMENT_REQUEST_ID + str(uuid7()).encode()
            for outcome in held
        ]
        reply = yield SERVICE + "BatchSettleReservations", _repeated(items)
        _succeeded(pb.BatchSettleReservationsResponse.FromString(reply or b"").outcomes)


def _bulk_reserve(products: Iterator[str]) -> Call:
    items = [_reserve(product)[1] for product in itertools.islice(products, BULK)]
    return SERVICE + "BatchReserveStock", _repeated(items)


def _repeated(items: list[bytes]) -> bytes:
    """Write items as field 1 of a message; a length below 128 is one byte."""
    return b"".join([b"\x0a%c%b" % (len(item), item) for item in items])


def _succeeded(outcomes: Outcomes) -> Outcomes:
    if not outcomes or any(outcome.HasField("error") for outcome in outcomes):
        raise RuntimeError("an item of a bulk call failed")
    return outcomes


def _at_random(weights: list[float] | None = None) -> Iterator[str]:
    # seeded, so that every target gets the same products
    return itertools.cycle(random.Random(7).choices(SPREAD, weights, k=CHOICES))  # noqa: S311


def _zipf() -> Iterator[str]:
    return _at_random([1 / rank for rank in range(1, len(SPREAD) + 1)])


def _shared(make: Callable[[Iterator[str]], Load], products: Iterator[str]) -> Callable[[], Load]:
    return lambda: make(products)


LOADS: dict[str, Callable[[], Callable[[], Load]]] = {
    "initialize": lambda: _shared(initialize, iter([HOT, *SPREAD])),
    "hot": lambda: _shared(reserve, itertools.repeat(HOT)),
    "spread": lambda: _shared(reserve, _at_random()),
    "bulk-hot": lambda: _shared(bulk_reserve, itertools.repeat(HOT)),
    "bulk-spread": lambda: _shared(bulk_reserve, _at_random()),
    "bulk-cycle": lambda: _shared(bulk_cycle, _at_random()),
    "bulk-cycle-hot": lambda: _shared(bulk_cycle, itertools.repeat(HOT)),
    "zipf": lambda: _shared(reserve, _zipf()),
    "cycle-hot": lambda: _shared(cycle, itertools.repeat(HOT)),
    "cycle-spread": lambda: _shared(cycle, _at_random()),
    "cycle-zipf": lambda: _shared(cycle, _zipf()),
    "mixed-hot": lambda: _shared(mixed, itertools.repeat(HOT)),
    "mixed-spread": lambda: _shared(mixed, _at_random()),
    "mixed-zipf": lambda: _shared(mixed, _zipf()),
}
"""By name: a function that begins a run and returns the maker of each request in flight."""

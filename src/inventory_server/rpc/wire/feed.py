"""Requests to watch, resume tokens, and changes as messages of the proto."""

from __future__ import annotations

import base64
import binascii
import struct
from typing import TYPE_CHECKING, NamedTuple

from inventory_client.proto.inventory.v1 import inventory_pb2 as pb
from inventory_server.domain import ID_LENGTH_MAX, STOCK_MAX, Position
from inventory_server.rpc.wire.checks import Checks
from inventory_server.rpc.wire.movements import render_movement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inventory_server.domain import FeedChange, Movement

PRODUCTS_MAX = 1000

# A resume token: this version, whether all events of the change were told, its transaction and version; then the
# product's id.
_TOKEN = struct.Struct(">BBQQ")
_VERSION = 1
_BIGINT_MAX = 2**63 - 1


class Watch(NamedTuple):
    """What to stream. Of a change at `after` that is `half_told`, the movement was told and the low stock was not."""

    product_ids: frozenset[str] | None
    after: Position | None
    half_told: bool
    low_stock: int | None


def parse_watch(request: pb.WatchStockRequest) -> Watch:
    checks = Checks()
    if request.product_ids:
        checks.count("product_ids", len(request.product_ids), PRODUCTS_MAX)
    for number, product_id in enumerate(request.product_ids[:PRODUCTS_MAX]):
        checks.identifier(f"product_ids[{number}]", product_id, "INVALID_PRODUCT_ID")
    low_stock = request.low_stock if request.HasField("low_stock") else None
    if low_stock is not None and not 0 <= low_stock <= STOCK_MAX:
        checks.bad("low_stock", f"must be 0 to {STOCK_MAX}, not {low_stock}")
    after, half_told = None, False
    if request.resume_token:
        try:
            after, half_told = _read_token(request.resume_token)
        except ValueError:
            checks.bad("resume_token", "is not one that a change came with")
    checks.finish()
    return Watch(frozenset(request.product_ids) or None, after, half_told, low_stock)


def render_change(change: FeedChange, watch: Watch) -> Iterator[pb.WatchStockResponse]:
    """Tell a change, and then that the product has run low where this change is the one that made it so."""
    position, movement = change
    crossed = _crossed(movement, watch.low_stock)
    if position != watch.after:
        token = _token(position, whole=crossed is None)
        yield pb.WatchStockResponse(movement=render_movement(movement), resume_token=token)
    if crossed is not None:
        yield pb.WatchStockResponse(low_stock=crossed, resume_token=_token(position, whole=True))


def render_mark(position: Position) -> pb.WatchStockResponse:
    """Tell where the stream stands, and no change."""
    return pb.WatchStockResponse(resume_token=_token(position, whole=True))


def _crossed(movement: Movement, threshold: int | None) -> pb.LowStock | None:
    available = movement.available_after
    if threshold is None or not available <= threshold < available - movement.available_delta:
        return None
    return pb.LowStock(
        product_id=movement.product_id, threshold=threshold, available_quantity=available, version=movement.version
    )


def _token(position: Position, *, whole: bool) -> str:
    head = _TOKEN.pack(_VERSION, whole, position.transaction_id, position.version)
    return base64.urlsafe_b64encode(head + position.product_id.encode()).decode()


def _read_token(token: str) -> tuple[Position, bool]:
    """Give the position to go on after, and whether only the movement of the change there was told."""
    try:
        packed = base64.b64decode(token, altchars=b"-_", validate=True)
        version, whole, transaction_id, number = _TOKEN.unpack_from(packed)
    except (struct.error, binascii.Error) as error:
        raise ValueError("not a token") from error
    product_id = packed[_TOKEN.size :].decode()
    position = Position(transaction_id, product_id, number)
    if version != _VERSION or whole > 1 or "\0" in product_id:
        raise ValueError("not a token")
    of_a_movement = 1 <= number <= _BIGINT_MAX and 1 <= len(product_id) <= ID_LENGTH_MAX
    if not of_a_movement and not (whole and (product_id, number) == ("", 0)):
        raise ValueError("not a token")
    return position, not whole

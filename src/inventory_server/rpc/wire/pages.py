"""Requests for pages and for explanations, and their answers.

A page token is opaque: a digest of the query that it belongs to, and the key after which the next page starts. It names
a row rather than a number of rows, so that rows which come and go meanwhile make no page skip or repeat another.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import uuid
from typing import TYPE_CHECKING, NamedTuple

from inventory_client.proto.inventory.v1 import inventory_pb2 as pb
from inventory_server.domain import ReservationStatus
from inventory_server.rpc.wire.answers import RELEASE_REASONS, STATUSES, render_reservation, render_stock
from inventory_server.rpc.wire.checks import Checks
from inventory_server.rpc.wire.movements import render_movement

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.timestamp_pb2 import Timestamp

    from inventory_server.domain import Explanation, HoldSummary, Movement, Reservation, Stock
    from inventory_server.queries import Page

PAGE_SIZE_DEFAULT = 100
PAGE_SIZE_MAX = 1000
MOVEMENTS_DEFAULT = 20

_VERSION = b"\x01"
_DIGEST_BYTES = 8
_TOKEN_LENGTH_MAX = 2048
# The years 1 to 9999, as the proto has them.
_SECONDS_MIN = -62_135_596_800
_SECONDS_MAX = 253_402_300_799

_BY_STATUS = {STATUSES[status]: status for status in ReservationStatus}


class ListStock(NamedTuple):
    """Which balances to list: at most so many units available, after which product, how many."""

    available_max: int | None
    after: str | None
    size: int
    query: str


class ListReservations(NamedTuple):
    """Which holds to list: those of an order or else of a product, after which id, how many."""

    order_id: str
    product_id: str
    status: ReservationStatus | None
    after: str | None
    size: int
    query: str


class ListMovements(NamedTuple):
    """Which ledger to list: before which version, how much."""

    product_id: str
    before: str | None
    size: int
    query: str


class Explain(NamedTuple):
    """Which product to explain: at which moment, with how many movements."""

    product_id: str
    at_us: int | None
    movements_max: int


def parse_list_stock(request: pb.ListStockRequest) -> ListStock:
    checks = Checks()
    available_max = request.max_available if request.HasField("max_available") else None
    if available_max is not None and available_max < 0:
        checks.bad("max_available", f"must not be negative, not {available_max}")
    size = _size(checks, "page_size", request.page_size, PAGE_SIZE_DEFAULT)
    query = ascii(("stock", available_max))
    after = _key(checks, query, request.page_token, _text)
    checks.finish()
    return ListStock(available_max, after, size, query)


def parse_list_reservations(request: pb.ListReservationsRequest) -> ListReservations:
    checks = Checks()
    if bool(request.order_id) == bool(request.product_id):
        checks.bad("order_id", "or product_id must be given, and not both")
    elif request.order_id:
        checks.identifier("order_id", request.order_id, "INVALID_ORDER_ID")
    else:
        checks.identifier("product_id", request.product_id, "INVALID_PRODUCT_ID")
    if request.status and request.status not in _BY_STATUS:
        checks.bad("status", "must be " + ", ".join(ReservationStatus) + " or missing")
    size = _size(checks, "page_size", request.page_size, PAGE_SIZE_DEFAULT)
    query = ascii(("reservations", request.order_id, request.product_id, request.status))
    after = _key(checks, query, request.page_token, lambda text: str(uuid.UUID(text)))
    checks.finish()
    status = _BY_STATUS.get(request.status)
    return ListReservations(request.order_id, request.product_id, status, after, size, query)


def parse_list_movements(request: pb.ListMovementsRequest) -> ListMovements:
    checks = Checks()
    checks.identifier("product_id", request.product_id, "INVALID_PRODUCT_ID")
    size = _size(checks, "page_size", request.page_size, PAGE_SIZE_DEFAULT)
    query = ascii(("movements", request.product_id))
    before = _key(checks, query, request.page_token, lambda text: str(int(text) % 2**63))
    checks.finish()
    return ListMovements(request.product_id, before, size, query)


def parse_explain(request: pb.ExplainStockRequest) -> Explain:
    checks = Checks()
    checks.identifier("product_id", request.product_id, "INVALID_PRODUCT_ID")
    at_us = _moment_us(checks, "at", request.at) if request.HasField("at") else None
    movements_max = _size(checks, "movements_max", request.movements_max, MOVEMENTS_DEFAULT)
    checks.finish()
    return Explain(request.product_id, at_us, movements_max)


def render_stock_page(page: Page[Stock], query: str) -> pb.ListStockResponse:
    return pb.ListStockResponse(
        stock=[render_stock(row) for row in page.rows], next_page_token=page_token(query, page.next_key)
    )


def render_reservations_page(page: Page[Reservation], query: str) -> pb.ListReservationsResponse:
    return pb.ListReservationsResponse(
        reservations=[render_reservation(row) for row in page.rows], next_page_token=page_token(query, page.next_key)
    )


def render_movements_page(page: Page[Movement], query: str) -> pb.ListMovementsResponse:
    return pb.ListMovementsResponse(
        movements=[render_movement(row) for row in page.rows], next_page_token=page_token(query, page.next_key)
    )


def render_explanation(explanation: Explanation) -> pb.ExplainStockResponse:
    return pb.ExplainStockResponse(
        stock=render_stock(explanation.stock),
        on_hand_quantity=explanation.stock.available + explanation.stock.reserved,
        added_quantity=explanation.added,
        removed_quantity=explanation.removed,
        deducted_quantity=explanation.deducted,
        holds=[_render_summary(summary) for summary in explanation.holds],
        movements=[render_movement(movement) for movement in explanation.movements],
        consistent=not explanation.discrepancies,
        discrepancies=explanation.discrepancies,
    )


def page_token(query: str, key: str | None) -> str:
    """Write the token of the page after a key; empty where there is none."""
    if key is None:
        return ""
    text = key.encode()
    return base64.urlsafe_b64encode(_VERSION + _digest(query, text) + text).decode().rstrip("=")


def _key(checks: Checks, query: str, token: str, read: Callable[[str], str]) -> str | None:
    if not token:
        return None
    try:
        return read(_opened(query, token))
    except ValueError:
        checks.bad("page_token", "is not the next_page_token of a page of this very query")
        return None


def _opened(query: str, token: str) -> str:
    """Read the key of a token; ValueError is raised for one that is not of this query, or of none."""
    if len(token) > _TOKEN_LENGTH_MAX:
        raise ValueError
    try:
        content = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        raise ValueError from None
    prefix, text = content[: 1 + _DIGEST_BYTES], content[1 + _DIGEST_BYTES :]
    if prefix != _VERSION + _digest(query, text):
        raise ValueError
    return text.decode()


def _digest(query: str, key: bytes) -> bytes:
    return hashlib.blake2s(query.encode() + b"\0" + key, digest_size=_DIGEST_BYTES).digest()


def _text(text: str) -> str:
    if "\0" in text:
        raise ValueError
    return text


def _size(checks: Checks, field: str, size: int, default: int) -> int:
    if not 0 <= size <= PAGE_SIZE_MAX:
        checks.bad(field, f"must be 0 to {PAGE_SIZE_MAX}, not {size}")
    return size or default


def _moment_us(checks: Checks, field: str, moment: Timestamp) -> int:
    if not _SECONDS_MIN <= moment.seconds <= _SECONDS_MAX or not 0 <= moment.nanos < 1_000_000_000:
        checks.bad(field, "must be a moment between the years 1 and 9999")
    return moment.seconds * 1_000_000 + moment.nanos // 1000


def _render_summary(summary: HoldSummary) -> pb.HoldSummary:
    return pb.HoldSummary(
        status=STATUSES[summary.status],
        release_reason=RELEASE_REASONS[summary.release_reason or "UNSPECIFIED"],
        count=summary.holds,
        quantity=summary.quantity,
    )

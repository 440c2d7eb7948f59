"""Between the proto and the domain: requests are parsed and checked here, answers are rendered."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import uuid_utils
from google.protobuf.timestamp_pb2 import Timestamp

from inventory_client.proto.inventory.v1 import inventory_pb2 as pb
from inventory_server.domain import (
    ID_LENGTH_MAX,
    QUANTITY_MAX,
    TTL_US_MAX,
    TTL_US_MIN,
    Action,
    Add,
    Initialize,
    Order,
    Reservation,
    Reserve,
    Settle,
    Stock,
)
from inventory_server.errors import Violation, invalid

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)

_STATUSES = {name.removeprefix("RESERVATION_STATUS_"): value for name, value in pb.ReservationStatus.items()}
_RELEASE_REASONS = {name.removeprefix("RELEASE_REASON_"): value for name, value in pb.ReleaseReason.items()}


class Checks:
    """Collects what is wrong with one request, so that all of it is told at once."""

    __slots__ = ("_violations",)

    def __init__(self) -> None:
        self._violations: list[Violation] = []

    def finish(self) -> None:
        """Refuse the request if anything was wrong."""
        if self._violations:
            raise invalid(self._violations)

    def bad(self, field: str, description: str, reason: str = "VALIDATION_ERROR") -> None:
        self._violations.append(Violation(field, description, reason))

    def identifier(self, field: str, text: str, reason: str) -> None:
        if not text or text.isspace():
            self.bad(field, "must not be blank" if text else "is missing", reason)
        else:
            self.text(field, text)

    def text(self, field: str, text: str) -> None:
        if len(text) > ID_LENGTH_MAX:
            self.bad(field, f"must have at most {ID_LENGTH_MAX} characters, not {len(text)}")
        elif not text.isprintable() and _CONTROL.search(text):
            self.bad(field, "must not contain control characters")

    def quantity(self, quantity: int, least: int = 1) -> None:
        if not least <= quantity <= QUANTITY_MAX:
            self.bad("quantity", f"must be {least} to {QUANTITY_MAX}, not {quantity}", "INVALID_QUANTITY")

    def request_id(self, text: str) -> str:
        """Check a request id, or make one up."""
        if not text:
            return str(uuid_utils.uuid7())
        return self.uuid("request_id", text)

    def uuid(self, field: str, text: str) -> str:
        if not _UUID.fullmatch(text):
            self.bad(field, "must be a UUID such as 01980c6e-7f4c-7c3e-9d2a-5b8f6a1e0c47")
        return text.lower()

    def reservation_id(self, text: str) -> str:
        if not text:
            self.bad("reservation_id", "is missing", "INVALID_RESERVATION_ID")
            return ""
        return self.uuid("reservation_id", text)

    def ttl(self, duration: Duration) -> int:
        # A Duration may hold any int64 of seconds and any int32 of nanoseconds: whole numbers cannot overflow here.
        ttl_us = duration.seconds * 1_000_000 + duration.nanos // 1000
        if not TTL_US_MIN <= ttl_us <= TTL_US_MAX:
            self.bad("ttl", "must be 1 s to 24 h")
        return ttl_us


def parse_initialize(request: pb.InitializeStockRequest) -> Initialize:
    checks = Checks()
    checks.identifier("product_id", request.product_id, "INVALID_PRODUCT_ID")
    if request.HasField("quantity"):
        checks.quantity(request.quantity, least=0)
    else:
        checks.bad("quantity", "is missing", "INVALID_QUANTITY")
    request_id = checks.request_id(request.request_id)
    checks.finish()
    return Initialize(request.product_id, request.quantity, request_id)


def parse_product(request: pb.GetStockRequest) -> str:
    checks = Checks()
    checks.identifier("product_id", request.product_id, "INVALID_PRODUCT_ID")
    checks.finish()
    return request.product_id


def parse_add(request: pb.AddStockRequest) -> Add:
    checks = Checks()
    checks.identifier("product_id", request.product_id, "INVALID_PRODUCT_ID")
    checks.quantity(request.quantity)
    checks.text("reason", request.reason)
    request_id = checks.request_id(request.request_id)
    checks.finish()
    return Add(request.product_id, request.quantity, request_id, request.reason)


def parse_reserve(request: pb.ReserveStockRequest, ttl_us_default: int) -> Order:
    """Read a hold as an order of one line, whose reservation bears the id of its request."""
    checks = Checks()
    product_id, order_id, quantity = request.product_id, request.order_id, request.quantity
    checks.identifier("product_id", product_id, "INVALID_PRODUCT_ID")
    checks.identifier("order_id", order_id, "INVALID_ORDER_ID")
    checks.quantity(quantity)
    ttl_given = request.HasField("ttl")
    ttl_us = checks.ttl(request.ttl) if ttl_given else ttl_us_default
    request_id = checks.request_id(request.request_id)
    checks.finish()
    return Order(request_id, (Reserve(request_id, product_id, order_id, quantity, ttl_us, ttl_given),))


def parse_reservation(request: pb.GetReservationRequest) -> str:
    checks = Checks()
    reservation_id = checks.reservation_id(request.reservation_id)
    checks.finish()
    return reservation_id


def parse_settle(request: pb.ReleaseReservationRequest | pb.DeductReservationRequest, action: Action) -> Settle:
    checks = Checks()
    reservation_id = checks.reservation_id(request.reservation_id)
    request_id = checks.request_id(request.request_id)
    checks.finish()
    return Settle(reservation_id, action, request_id)


def render_stock(stock: Stock) -> pb.Stock:
    return pb.Stock(
        product_id=stock.product_id,
        available_quantity=stock.available,
        reserved_quantity=stock.reserved,
        version=stock.version,
        created_at=_moment(stock.created_at_us),
        updated_at=_moment(stock.updated_at_us),
    )


def render_reservation(reservation: Reservation) -> pb.Reservation:
    return pb.Reservation(
        reservation_id=reservation.reservation_id,
        product_id=reservation.product_id,
        order_id=reservation.order_id,
        quantity=reservation.quantity,
        status=_STATUSES[reservation.status],
        release_reason=_RELEASE_REASONS[reservation.release_reason or "UNSPECIFIED"],
        expires_at=_moment(reservation.expires_at_us),
        created_at=_moment(reservation.created_at_us),
        updated_at=_moment(reservation.updated_at_us),
    )


def _moment(moment_us: int) -> Timestamp:
    seconds, micros = divmod(moment_us, 1_000_000)
    return Timestamp(seconds=seconds, nanos=micros * 1000)

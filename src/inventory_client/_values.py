"""From the messages of the proto to plain values, and back for what is sent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from inventory_client.ledger import HoldSummary, LowStock, Movement, MovementKind, StockExplanation
from inventory_client.models import ReleaseReason, Reservation, ReservationStatus, Stock
from inventory_client.proto.inventory.v1 import inventory_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_STATUSES = {
    pb.RESERVATION_STATUS_RESERVED: ReservationStatus.RESERVED,
    pb.RESERVATION_STATUS_RELEASED: ReservationStatus.RELEASED,
    pb.RESERVATION_STATUS_DEDUCTED: ReservationStatus.DEDUCTED,
}
_RELEASE_REASONS = {
    pb.RELEASE_REASON_UNSPECIFIED: None,
    pb.RELEASE_REASON_REQUESTED: ReleaseReason.REQUESTED,
    pb.RELEASE_REASON_EXPIRED: ReleaseReason.EXPIRED,
}
_MOVEMENT_KINDS: Mapping[int, MovementKind] = {
    pb.MovementKind.Value(f"MOVEMENT_KIND_{kind}"): kind for kind in MovementKind if kind is not MovementKind.UNKNOWN
}


def stock(message: pb.Stock) -> Stock:
    return Stock(
        product_id=message.product_id,
        available_quantity=message.available_quantity,
        reserved_quantity=message.reserved_quantity,
        version=message.version,
        created_at=message.created_at.ToDatetime(UTC),
        updated_at=message.updated_at.ToDatetime(UTC),
    )


def reservation(message: pb.Reservation) -> Reservation:
    return Reservation(
        reservation_id=message.reservation_id,
        product_id=message.product_id,
        order_id=message.order_id,
        quantity=message.quantity,
        status=_STATUSES.get(message.status, ReservationStatus.UNKNOWN),
        expires_at=message.expires_at.ToDatetime(UTC),
        created_at=message.created_at.ToDatetime(UTC),
        updated_at=message.updated_at.ToDatetime(UTC),
        release_reason=_RELEASE_REASONS.get(message.release_reason, ReleaseReason.UNKNOWN),
    )


def movement(message: pb.Movement) -> Movement:
    return Movement(
        product_id=message.product_id,
        version=message.version,
        kind=_MOVEMENT_KINDS.get(message.kind, MovementKind.UNKNOWN),
        available_delta=message.available_delta,
        reserved_delta=message.reserved_delta,
        available_after=message.available_after,
        reserved_after=message.reserved_after,
        request_id=message.request_id or None,
        reservation_id=message.reservation_id or None,
        order_id=message.order_id or None,
        reason=message.reason or None,
        occurred_at=message.occurred_at.ToDatetime(UTC),
    )


def low_stock(message: pb.LowStock) -> LowStock:
    return LowStock(
        product_id=message.product_id,
        threshold=message.threshold,
        available_quantity=message.available_quantity,
        version=message.version,
    )


def explanation(message: pb.ExplainStockResponse) -> StockExplanation:
    return StockExplanation(
        stock=stock(message.stock),
        on_hand_quantity=message.on_hand_quantity,
        added_quantity=message.added_quantity,
        removed_quantity=message.removed_quantity,
        deducted_quantity=message.deducted_quantity,
        holds=tuple(_hold_summary(each) for each in message.holds),
        movements=tuple(movement(each) for each in message.movements),
        consistent=message.consistent,
        discrepancies=tuple(message.discrepancies),
    )


def product_ids(given: Iterable[str]) -> tuple[str, ...]:
    """Write a list of products; a single one would pass as a list of its characters, and is refused."""
    if isinstance(given, str):
        raise TypeError(f"product_ids must be a list of product ids, not one of them: [{given!r}]")
    return tuple(given)


def duration(value: timedelta | None) -> Duration | None:
    if value is None:
        return None
    message = Duration()
    message.FromTimedelta(value)
    return message


def timestamp(value: datetime | None) -> Timestamp | None:
    """Write a moment; one without a time zone could be any of two dozen, and is refused."""
    if value is None:
        return None
    if value.tzinfo is None:
        raise ValueError("a moment needs a time zone, such as datetime.now(UTC)")
    message = Timestamp()
    message.FromDatetime(value)
    return message


def _hold_summary(message: pb.HoldSummary) -> HoldSummary:
    return HoldSummary(
        status=_STATUSES.get(message.status, ReservationStatus.UNKNOWN),
        release_reason=_RELEASE_REASONS.get(message.release_reason, ReleaseReason.UNKNOWN),
        count=message.count,
        quantity=message.quantity,
    )

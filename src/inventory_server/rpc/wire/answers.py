"""Values of the domain as messages of the proto."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.timestamp_pb2 import Timestamp

from inventory_client.proto.inventory.v1 import inventory_pb2 as pb

if TYPE_CHECKING:
    from inventory_server.domain import Reservation, Stock

_STATUSES = {name.removeprefix("RESERVATION_STATUS_"): value for name, value in pb.ReservationStatus.items()}
_RELEASE_REASONS = {name.removeprefix("RELEASE_REASON_"): value for name, value in pb.ReleaseReason.items()}


def render_stock(stock: Stock) -> pb.Stock:
    return pb.Stock(
        product_id=stock.product_id,
        available_quantity=stock.available,
        reserved_quantity=stock.reserved,
        version=stock.version,
        created_at=moment(stock.created_at_us),
        updated_at=moment(stock.updated_at_us),
    )


def render_reservation(reservation: Reservation) -> pb.Reservation:
    return pb.Reservation(
        reservation_id=reservation.reservation_id,
        product_id=reservation.product_id,
        order_id=reservation.order_id,
        quantity=reservation.quantity,
        status=_STATUSES[reservation.status],
        release_reason=_RELEASE_REASONS[reservation.release_reason or "UNSPECIFIED"],
        expires_at=moment(reservation.expires_at_us),
        created_at=moment(reservation.created_at_us),
        updated_at=moment(reservation.updated_at_us),
    )


def moment(moment_us: int) -> Timestamp:
    seconds, micros = divmod(moment_us, 1_000_000)
    return Timestamp(seconds=seconds, nanos=micros * 1000)

"""Values of the domain as messages of the proto."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from google.protobuf.timestamp_pb2 import Timestamp

from inventory_client.proto.inventory.v1 import inventory_pb2 as pb

if TYPE_CHECKING:
    from inventory_server.domain import Reservation, Stock

STATUSES = {name.removeprefix("RESERVATION_STATUS_"): value for name, value in pb.ReservationStatus.items()}
RELEASE_REASONS = {name.removeprefix("RELEASE_REASON_"): value for name, value in pb.ReleaseReason.items()}


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
    message = pb.Reservation()
    fill_reservation(message, reservation)
    return message


def fill_reservation(message: pb.Reservation, reservation: Reservation) -> None:
    """Write a hold into a message that lies in its answer already, which spares a copy of it."""
    message.CopyFrom(_template(*reservation[4:]))
    reservation_id, product_id, order_id, quantity = reservation[:4]
    message.reservation_id = reservation_id
    message.product_id = product_id
    message.order_id = order_id
    message.quantity = quantity


# The holds of one batch share all of this, and to copy it takes a third of the time of writing it.
@lru_cache(maxsize=256)
def _template(
    status: str, release_reason: str | None, expires_at_us: int, created_at_us: int, updated_at_us: int
) -> pb.Reservation:
    message = pb.Reservation(status=STATUSES[status])
    _write(message.expires_at, expires_at_us)
    _write(message.created_at, created_at_us)
    _write(message.updated_at, updated_at_us)
    if release_reason is not None:
        message.release_reason = RELEASE_REASONS[release_reason]
    return message


def moment(moment_us: int) -> Timestamp:
    message = Timestamp()
    _write(message, moment_us)
    return message


def _write(message: Timestamp, moment_us: int) -> None:
    message.seconds, micros = divmod(moment_us, 1_000_000)
    message.nanos = micros * 1000

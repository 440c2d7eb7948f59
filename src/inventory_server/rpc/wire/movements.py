"""Rows of the ledger as messages of the proto."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inventory_client.proto.inventory.v1 import inventory_pb2 as pb
from inventory_server.rpc.wire.answers import moment

if TYPE_CHECKING:
    from inventory_server.domain import Movement

_KINDS = {name.removeprefix("MOVEMENT_KIND_"): value for name, value in pb.MovementKind.items()}


def render_movement(movement: Movement) -> pb.Movement:
    return pb.Movement(
        product_id=movement.product_id,
        version=movement.version,
        kind=_KINDS[movement.kind],
        available_delta=movement.available_delta,
        reserved_delta=movement.reserved_delta,
        available_after=movement.available_after,
        reserved_after=movement.reserved_after,
        request_id=movement.request_id or "",
        reservation_id=movement.reservation_id or "",
        order_id=movement.order_id or "",
        reason=movement.reason or "",
        occurred_at=moment(movement.occurred_at_us),
    )

"""The core without I/O: what is sent, and how its answer is read.

An operation is one function here that makes a Call, one row in `_channel.RULES`, and one method in each of the two
clients. `_values` reads the answers, `_status` the errors, and `_attempts` decides on what is sent again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from inventory_client import _values
from inventory_client.models import AdjustmentReason, InitializeResult, LatePolicy, new_request_id
from inventory_client.proto.inventory.v1 import inventory_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime, timedelta
    from uuid import UUID

    from google.protobuf.message import Message

    from inventory_client.ledger import StockExplanation
    from inventory_client.models import OrderLine, Reservation, Stock

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One operation, ready to be sent as often as it takes: the request id is part of the request.

    `wait_seconds` is how long the server may take on top of what the operation usually gets.
    """

    rpc: str
    request: Message
    read: Callable[[Any], T]
    wait_seconds: float = 0.0

    @property
    def request_id(self) -> str | None:
        return getattr(self.request, "request_id", None)


def initialize_stock(product_id: str, quantity: int, request_id: str | UUID | None) -> Call[InitializeResult]:
    def read(answer: pb.InitializeStockResponse) -> InitializeResult:
        return InitializeResult(stock=_values.stock(answer.stock), created=answer.created)

    request = pb.InitializeStockRequest(product_id=product_id, quantity=quantity, request_id=_id(request_id))
    return Call("InitializeStock", request, read)


def get_stock(product_id: str) -> Call[Stock]:
    return Call("GetStock", pb.GetStockRequest(product_id=product_id), _stock)


def add_stock(product_id: str, quantity: int, reason: str, request_id: str | UUID | None) -> Call[Stock]:
    request = pb.AddStockRequest(product_id=product_id, quantity=quantity, reason=reason, request_id=_id(request_id))
    return Call("AddStock", request, _stock)


def adjust_stock(
    product_id: str, delta: int, reason: AdjustmentReason, expected_version: int | None, request_id: str | UUID | None
) -> Call[Stock]:
    request = pb.AdjustStockRequest(
        product_id=product_id,
        delta=delta,
        reason=pb.AdjustmentReason.Value(f"ADJUSTMENT_REASON_{AdjustmentReason(reason)}"),
        expected_version=expected_version,
        request_id=_id(request_id),
    )
    return Call("AdjustStock", request, _stock)


def explain_stock(product_id: str, at: datetime | None, movements_max: int | None) -> Call[StockExplanation]:
    request = pb.ExplainStockRequest(product_id=product_id, at=_values.timestamp(at), movements_max=movements_max or 0)
    return Call("ExplainStock", request, _values.explanation)


def reserve_stock(
    product_id: str,
    order_id: str,
    quantity: int,
    ttl: timedelta | None,
    wait: timedelta | None,
    request_id: str | UUID | None,
) -> Call[Reservation]:
    request = pb.ReserveStockRequest(
        product_id=product_id,
        order_id=order_id,
        quantity=quantity,
        ttl=_values.duration(ttl),
        wait=_values.duration(wait),
        request_id=_id(request_id),
    )
    return Call("ReserveStock", request, _reservation, _seconds(wait))


def get_reservation(reservation_id: str) -> Call[Reservation]:
    return Call("GetReservation", pb.GetReservationRequest(reservation_id=reservation_id), _reservation)


def release_reservation(reservation_id: str, request_id: str | UUID | None) -> Call[Reservation]:
    request = pb.ReleaseReservationRequest(reservation_id=reservation_id, request_id=_id(request_id))
    return Call("ReleaseReservation", request, _reservation)


def deduct_reservation(
    reservation_id: str, late_policy: LatePolicy, request_id: str | UUID | None
) -> Call[Reservation]:
    request = pb.DeductReservationRequest(
        reservation_id=reservation_id, late_policy=late_policy_value(late_policy), request_id=_id(request_id)
    )
    return Call("DeductReservation", request, _reservation)


def extend_reservation(reservation_id: str, ttl: timedelta, request_id: str | UUID | None) -> Call[Reservation]:
    request = pb.ExtendReservationRequest(
        reservation_id=reservation_id, ttl=_values.duration(ttl), request_id=_id(request_id)
    )
    return Call("ExtendReservation", request, _reservation)


def reserve_order(
    order_id: str,
    lines: Iterable[OrderLine | tuple[str, int]],
    ttl: timedelta | None,
    wait: timedelta | None,
    request_id: str | UUID | None,
) -> Call[tuple[Reservation, ...]]:
    request = pb.ReserveOrderRequest(
        order_id=order_id,
        lines=[pb.OrderLine(product_id=product_id, quantity=quantity) for product_id, quantity in lines],
        ttl=_values.duration(ttl),
        wait=_values.duration(wait),
        request_id=_id(request_id),
    )
    return Call("ReserveOrder", request, _reservations, _seconds(wait))


def release_order(order_id: str, request_id: str | UUID | None) -> Call[tuple[Reservation, ...]]:
    request = pb.ReleaseOrderRequest(order_id=order_id, request_id=_id(request_id))
    return Call("ReleaseOrder", request, _reservations)


def deduct_order(
    order_id: str, late_policy: LatePolicy, skip_released: bool, request_id: str | UUID | None
) -> Call[tuple[Reservation, ...]]:
    request = pb.DeductOrderRequest(
        order_id=order_id,
        late_policy=late_policy_value(late_policy),
        skip_released=skip_released,
        request_id=_id(request_id),
    )
    return Call("DeductOrder", request, _reservations)


def extend_order(order_id: str, ttl: timedelta, request_id: str | UUID | None) -> Call[tuple[Reservation, ...]]:
    request = pb.ExtendOrderRequest(order_id=order_id, ttl=_values.duration(ttl), request_id=_id(request_id))
    return Call("ExtendOrder", request, _reservations)


def late_policy_value(policy: LatePolicy) -> pb.LatePolicy.ValueType:
    return pb.LatePolicy.Value(f"LATE_POLICY_{LatePolicy(policy)}")


class _WithStock(Protocol):
    @property
    def stock(self) -> pb.Stock: ...


class _WithReservation(Protocol):
    @property
    def reservation(self) -> pb.Reservation: ...


class _WithReservations(Protocol):
    @property
    def reservations(self) -> Iterable[pb.Reservation]: ...


def _stock(answer: _WithStock) -> Stock:
    return _values.stock(answer.stock)


def _reservation(answer: _WithReservation) -> Reservation:
    return _values.reservation(answer.reservation)


def _reservations(answer: _WithReservations) -> tuple[Reservation, ...]:
    return tuple(_values.reservation(each) for each in answer.reservations)


def _id(request_id: str | UUID | None) -> str:
    return str(request_id) if request_id else new_request_id()


def _seconds(wait: timedelta | None) -> float:
    return 0.0 if wait is None else max(wait.total_seconds(), 0.0)

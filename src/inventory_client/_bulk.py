"""Calls that carry many items, or give a page of many."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inventory_client import _values
from inventory_client._calls import Call, late_policy_value
from inventory_client._status import error_of_status
from inventory_client.models import Page, ReservationStatus, SettlementAction
from inventory_client.proto.inventory.v1 import inventory_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from google.rpc.status_pb2 import Status

    from inventory_client.errors import InventoryError
    from inventory_client.ledger import Movement
    from inventory_client.models import Reservation, ReserveItem, SettleItem, Stock


def batch_reserve_stock(items: Iterable[ReserveItem]) -> Call[tuple[Reservation | InventoryError, ...]]:
    requests = [
        pb.ReserveStockRequest(
            product_id=item.product_id,
            order_id=item.order_id,
            quantity=item.quantity,
            ttl=_values.duration(item.ttl),
            request_id=str(item.request_id),
        )
        for item in items
    ]

    def read(answer: pb.BatchReserveStockResponse) -> tuple[Reservation | InventoryError, ...]:
        return _reservation_outcomes([request.request_id for request in requests], answer.outcomes)

    return Call("BatchReserveStock", pb.BatchReserveStockRequest(items=requests), read)


def batch_settle_reservations(items: Iterable[SettleItem]) -> Call[tuple[Reservation | InventoryError, ...]]:
    settlements = [
        pb.Settlement(
            reservation_id=item.reservation_id,
            action=pb.SettlementAction.Value(f"SETTLEMENT_ACTION_{SettlementAction(item.action)}"),
            late_policy=late_policy_value(item.late_policy),
            request_id=str(item.request_id),
        )
        for item in items
    ]

    def read(answer: pb.BatchSettleReservationsResponse) -> tuple[Reservation | InventoryError, ...]:
        return _reservation_outcomes([settlement.request_id for settlement in settlements], answer.outcomes)

    return Call("BatchSettleReservations", pb.BatchSettleReservationsRequest(items=settlements), read)


def batch_get_stock(product_ids: Iterable[str]) -> Call[tuple[Stock | InventoryError, ...]]:
    def read(answer: pb.BatchGetStockResponse) -> tuple[Stock | InventoryError, ...]:
        return tuple(
            _values.stock(outcome.stock) if outcome.HasField("stock") else error_of_status(outcome.error)
            for outcome in answer.outcomes
        )

    return Call("BatchGetStock", pb.BatchGetStockRequest(product_ids=_values.product_ids(product_ids)), read)


def list_stock(max_available: int | None, page_size: int | None, page_token: str) -> Call[Page[Stock]]:
    def read(answer: pb.ListStockResponse) -> Page[Stock]:
        return Page(tuple(_values.stock(each) for each in answer.stock), answer.next_page_token)

    request = pb.ListStockRequest(max_available=max_available, page_size=page_size or 0, page_token=page_token)
    return Call("ListStock", request, read)


def list_reservations(
    order_id: str | None,
    product_id: str | None,
    status: ReservationStatus | None,
    page_size: int | None,
    page_token: str,
) -> Call[Page[Reservation]]:
    def read(answer: pb.ListReservationsResponse) -> Page[Reservation]:
        return Page(tuple(_values.reservation(each) for each in answer.reservations), answer.next_page_token)

    name = "UNSPECIFIED" if status is None else ReservationStatus(status)
    request = pb.ListReservationsRequest(
        order_id=order_id or "",
        product_id=product_id or "",
        status=pb.ReservationStatus.Value(f"RESERVATION_STATUS_{name}"),
        page_size=page_size or 0,
        page_token=page_token,
    )
    return Call("ListReservations", request, read)


def list_movements(product_id: str, page_size: int | None, page_token: str) -> Call[Page[Movement]]:
    def read(answer: pb.ListMovementsResponse) -> Page[Movement]:
        return Page(tuple(_values.movement(each) for each in answer.movements), answer.next_page_token)

    request = pb.ListMovementsRequest(product_id=product_id, page_size=page_size or 0, page_token=page_token)
    return Call("ListMovements", request, read)


def _reservation_outcomes(
    request_ids: Sequence[str], outcomes: Sequence[pb.ReservationOutcome]
) -> tuple[Reservation | InventoryError, ...]:
    return tuple(
        _values.reservation(outcome.reservation)
        if outcome.HasField("reservation")
        else _refused(outcome.error, request_id)
        for request_id, outcome in zip(request_ids, outcomes, strict=True)
    )


def _refused(status: Status, request_id: str) -> InventoryError:
    error = error_of_status(status)
    error.request_id = request_id
    return error

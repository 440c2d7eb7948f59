"""Requests about whole orders and many items at once, and their answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inventory_client.proto.inventory.v1 import inventory_pb2 as pb
from inventory_server.domain import Action, ExtendOrder, Order, Reserve, Settle, SettleOrder, line_ids
from inventory_server.errors import InventoryError
from inventory_server.rpc.status import status_of
from inventory_server.rpc.wire.answers import fill_reservation, render_reservation, render_stock
from inventory_server.rpc.wire.checks import Checks
from inventory_server.rpc.wire.requests import deduct_action

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from inventory_server.domain import Reservation, Stock

LINES_MAX = 100
ITEMS_MAX = 1000


def parse_order(request: pb.ReserveOrderRequest, ttl_us_default: int) -> Order:
    checks = Checks()
    checks.identifier("order_id", request.order_id, "INVALID_ORDER_ID")
    checks.count("lines", len(request.lines), LINES_MAX)
    for number, line in enumerate(request.lines[:LINES_MAX]):
        checks.identifier(f"lines[{number}].product_id", line.product_id, "INVALID_PRODUCT_ID")
        checks.quantity(line.quantity, field=f"lines[{number}].quantity")
    ttl_given = request.HasField("ttl")
    ttl_us = checks.ttl(request.ttl) if ttl_given else ttl_us_default
    wait = checks.wait(request.wait) if request.HasField("wait") else 0.0
    request_id = checks.request_id(request.request_id)
    checks.finish()
    lines = [(line.product_id, line.quantity) for line in request.lines]
    # ascii, not repr: which characters repr escapes differs from one Python to the next, and the ids must not.
    ids = line_ids(request_id, ascii((request.order_id, ttl_us if ttl_given else None, lines)), len(lines))
    return Order(
        request_id,
        tuple(
            Reserve(reservation_id, product_id, request.order_id, quantity, ttl_us, ttl_given)
            for reservation_id, (product_id, quantity) in zip(ids, lines, strict=True)
        ),
        wait,
    )


def parse_release_order(request: pb.ReleaseOrderRequest) -> SettleOrder:
    checks = Checks()
    checks.identifier("order_id", request.order_id, "INVALID_ORDER_ID")
    request_id = checks.request_id(request.request_id)
    checks.finish()
    return SettleOrder(request.order_id, Action.RELEASE, request_id)


def parse_deduct_order(request: pb.DeductOrderRequest) -> SettleOrder:
    checks = Checks()
    checks.identifier("order_id", request.order_id, "INVALID_ORDER_ID")
    action = deduct_action(checks, request.late_policy)
    request_id = checks.request_id(request.request_id)
    checks.finish()
    return SettleOrder(request.order_id, action, request_id, request.skip_released)


def parse_extend_order(request: pb.ExtendOrderRequest) -> ExtendOrder:
    checks = Checks()
    checks.identifier("order_id", request.order_id, "INVALID_ORDER_ID")
    ttl_us = checks.given_ttl(request)
    request_id = checks.request_id(request.request_id)
    checks.finish()
    return ExtendOrder(request.order_id, ttl_us, request_id)


def parse_settlement(item: pb.Settlement) -> Settle:
    checks = Checks()
    reservation_id = checks.reservation_id(item.reservation_id)
    action = Action.RELEASE
    if item.action == pb.SETTLEMENT_ACTION_DEDUCT:
        action = deduct_action(checks, item.late_policy)
    elif item.action != pb.SETTLEMENT_ACTION_RELEASE:
        checks.bad("action", "must be RELEASE or DEDUCT")
    request_id = checks.request_id(item.request_id)
    checks.finish()
    return Settle(reservation_id, action, request_id)


def check_count(field: str, count: int) -> None:
    """Refuse a bulk call that is empty or too large."""
    checks = Checks()
    checks.count(field, count, ITEMS_MAX)
    checks.finish()


def parse_product_id(product_id: str) -> str:
    checks = Checks()
    checks.identifier("product_id", product_id, "INVALID_PRODUCT_ID")
    checks.finish()
    return product_id


def render_reservations(reservations: Sequence[Reservation]) -> list[pb.Reservation]:
    return [render_reservation(reservation) for reservation in reservations]


def fill_outcomes(
    answer: pb.BatchReserveStockResponse | pb.BatchSettleReservationsResponse,
    outcomes: Iterable[Reservation | InventoryError],
) -> None:
    add = answer.outcomes.add
    for outcome in outcomes:
        if isinstance(outcome, InventoryError):
            add(error=status_of(outcome))
        else:
            fill_reservation(add().reservation, outcome)


def render_stock_outcome(outcome: Stock | InventoryError) -> pb.StockOutcome:
    if isinstance(outcome, InventoryError):
        return pb.StockOutcome(error=status_of(outcome))
    return pb.StockOutcome(stock=render_stock(outcome))

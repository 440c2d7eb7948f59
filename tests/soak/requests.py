"""One request under one id, sent as often as it takes: how it is made, sent and answered."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from inventory_client import (
    AdjustmentReason,
    InitializeResult,
    InventoryError,
    LatePolicy,
    Reservation,
    ReserveItem,
    SettleItem,
    SettlementAction,
    Stock,
)
from inventory_client.models import new_request_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inventory_client import AsyncInventoryClient


@dataclass(frozen=True)
class Request:
    kind: str
    asked: dict[str, Any]
    request_id: str = field(default_factory=new_request_id)


async def send(client: AsyncInventoryClient, request: Request) -> dict[str, Any]:
    """Send a request on its own; raises InventoryError."""
    asked, request_id = request.asked, request.request_id
    match request.kind:
        case "initialize":
            return _told(await client.initialize_stock(asked["product"], asked["quantity"], request_id=request_id))
        case "add":
            return _told(await client.add_stock(asked["product"], asked["quantity"], request_id=request_id))
        case "adjust":
            return _told(
                await client.adjust_stock(
                    asked["product"],
                    asked["delta"],
                    AdjustmentReason.COUNT,
                    expected_version=asked.get("version"),
                    request_id=request_id,
                )
            )
        case "get_stock":
            return _told(await client.get_stock(asked["product"]))
        case "conflict":
            return await send(client, Request(asked["kind"], asked, request_id))
        case "batch_get":
            return _told(*[_raised(each) for each in await client.batch_get_stock(asked["products"])])
        case _:
            return await _send_about_holds(client, request)


async def _send_about_holds(client: AsyncInventoryClient, request: Request) -> dict[str, Any]:
    asked, request_id = request.asked, request.request_id
    match request.kind:
        case "reserve":
            return _told(
                await client.reserve_stock(
                    asked["product"],
                    asked["order"],
                    asked["quantity"],
                    ttl=timedelta(seconds=asked["ttl"]),
                    wait=timedelta(seconds=asked["wait"]) if "wait" in asked else None,
                    request_id=request_id,
                )
            )
        case "reserve_order":
            lines = [(product, quantity) for product, quantity in asked["lines"]]
            ttl = timedelta(seconds=asked["ttl"])
            return _told(*await client.reserve_order(asked["order"], lines, ttl=ttl, request_id=request_id))
        case "release":
            return _told(await client.release_reservation(asked["hold"], request_id=request_id))
        case "deduct" | "late_deduct":
            policy = LatePolicy.STRICT if request.kind == "deduct" else LatePolicy.REACQUIRE
            return _told(await client.deduct_reservation(asked["hold"], late_policy=policy, request_id=request_id))
        case "extend":
            ttl = timedelta(seconds=asked["ttl"])
            return _told(await client.extend_reservation(asked["hold"], ttl, request_id=request_id))
        case "release_order":
            return _told(*await client.release_order(asked["order"], request_id=request_id))
        case "deduct_order" | "late_deduct_order":
            policy = LatePolicy.STRICT if request.kind == "deduct_order" else LatePolicy.REACQUIRE
            return _told(*await client.deduct_order(asked["order"], late_policy=policy, request_id=request_id))
        case "extend_order":
            ttl = timedelta(seconds=asked["ttl"])
            return _told(*await client.extend_order(asked["order"], ttl, request_id=request_id))
        case "get_reservation":
            return _told(await client.get_reservation(asked["hold"]))
        case _:
            raise ValueError(request.kind)


async def send_bulk(client: AsyncInventoryClient, requests: Sequence[Request]) -> list[dict[str, Any] | InventoryError]:
    """Send reserves, or else settlements, as one call; what refused an item stands in its place."""
    outcomes: Sequence[Reservation | InventoryError]
    if requests[0].kind == "reserve":
        outcomes = await client.batch_reserve_stock([_reserve_item(request) for request in requests])
    else:
        outcomes = await client.batch_settle_reservations([_settle_item(request) for request in requests])
    return [outcome if isinstance(outcome, InventoryError) else _told(outcome) for outcome in outcomes]


def _reserve_item(request: Request) -> ReserveItem:
    asked = request.asked
    ttl = timedelta(seconds=asked["ttl"])
    return ReserveItem(asked["product"], asked["order"], asked["quantity"], ttl, request.request_id)


def _settle_item(request: Request) -> SettleItem:
    action = SettlementAction.RELEASE if request.kind == "release" else SettlementAction.DEDUCT
    policy = LatePolicy.REACQUIRE if request.kind == "late_deduct" else LatePolicy.STRICT
    return SettleItem(request.asked["hold"], action, policy, request.request_id)


def _raised(outcome: Stock | InventoryError) -> Stock:
    if isinstance(outcome, InventoryError):
        raise outcome
    return outcome


def _told(*values: InitializeResult | Stock | Reservation) -> dict[str, Any]:
    """Write an answer as plain values: balances, holds, and whether a record was created."""
    answer: dict[str, Any] = {}
    for value in values:
        if isinstance(value, InitializeResult):
            answer |= {"stocks": [_stock(value.stock)], "created": value.created}
        elif isinstance(value, Stock):
            answer.setdefault("stocks", []).append(_stock(value))
        else:
            answer.setdefault("holds", []).append(_hold(value))
    return answer


def _stock(stock: Stock) -> dict[str, Any]:
    return {
        "product": stock.product_id,
        "available": stock.available_quantity,
        "reserved": stock.reserved_quantity,
        "version": stock.version,
    }


def _hold(hold: Reservation) -> dict[str, Any]:
    return {
        "hold": hold.reservation_id,
        "product": hold.product_id,
        "order": hold.order_id,
        "quantity": hold.quantity,
        "status": hold.release_reason or hold.status,  # RESERVED, REQUESTED, EXPIRED or DEDUCTED
        "expires_at": hold.expires_at.timestamp(),
    }

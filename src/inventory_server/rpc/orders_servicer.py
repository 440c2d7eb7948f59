"""The RPCs about whole orders and about many items at once: parse, call, render."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeVar

from inventory_client.proto.inventory.v1 import inventory_pb2 as pb
from inventory_server.errors import InventoryError
from inventory_server.rpc.wire import orders
from inventory_server.rpc.wire.requests import parse_reserve

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from inventory_server.inventory import Inventory
    from inventory_server.settings import Settings

Message = TypeVar("Message")
Item = TypeVar("Item")
Value = TypeVar("Value")


class OrdersServicer:
    """One method per RPC, each from a request and a deadline (in the event loop's time, or None) to a response."""

    def __init__(self, inventory: Inventory, settings: Settings) -> None:
        self._inventory = inventory
        self._ttl_us = round(settings.reservation_ttl * 1_000_000)

    async def ReserveOrder(self, request: pb.ReserveOrderRequest, deadline: float | None) -> pb.ReserveOrderResponse:
        held = await self._inventory.reserve(orders.parse_order(request, self._ttl_us), deadline)
        return pb.ReserveOrderResponse(reservations=orders.render_reservations(held))

    async def ReleaseOrder(self, request: pb.ReleaseOrderRequest, deadline: float | None) -> pb.ReleaseOrderResponse:
        ended = await self._inventory.settle_order(orders.parse_release_order(request), deadline)
        return pb.ReleaseOrderResponse(reservations=orders.render_reservations(ended))

    async def DeductOrder(self, request: pb.DeductOrderRequest, deadline: float | None) -> pb.DeductOrderResponse:
        ended = await self._inventory.settle_order(orders.parse_deduct_order(request), deadline)
        return pb.DeductOrderResponse(reservations=orders.render_reservations(ended))

    async def ExtendOrder(self, request: pb.ExtendOrderRequest, deadline: float | None) -> pb.ExtendOrderResponse:
        extended = await self._inventory.extend_order(orders.parse_extend_order(request), deadline)
        return pb.ExtendOrderResponse(reservations=orders.render_reservations(extended))

    async def BatchReserveStock(
        self, request: pb.BatchReserveStockRequest, deadline: float | None
    ) -> pb.BatchReserveStockResponse:
        orders.check_count("items", len(request.items))
        outcomes = await _each(
            request.items,
            partial(parse_reserve, ttl_us_default=self._ttl_us),
            lambda items: self._inventory.reserve_many(items, deadline),
        )
        answer = pb.BatchReserveStockResponse()
        orders.fill_outcomes(answer, [each if isinstance(each, InventoryError) else each[0] for each in outcomes])
        return answer

    async def BatchSettleReservations(
        self, request: pb.BatchSettleReservationsRequest, deadline: float | None
    ) -> pb.BatchSettleReservationsResponse:
        orders.check_count("items", len(request.items))
        outcomes = await _each(
            request.items, orders.parse_settlement, lambda items: self._inventory.settle_many(items, deadline)
        )
        answer = pb.BatchSettleReservationsResponse()
        orders.fill_outcomes(answer, outcomes)
        return answer

    async def BatchGetStock(self, request: pb.BatchGetStockRequest, deadline: float | None) -> pb.BatchGetStockResponse:
        orders.check_count("product_ids", len(request.product_ids))
        outcomes = await _each(
            request.product_ids, orders.parse_product_id, lambda ids: self._inventory.stock_of_many(ids, deadline)
        )
        return pb.BatchGetStockResponse(outcomes=[orders.render_stock_outcome(outcome) for outcome in outcomes])


async def _each(
    messages: Iterable[Message],
    parse: Callable[[Message], Item],
    call: Callable[[Sequence[Item]], Awaitable[Sequence[Value | InventoryError]]],
) -> list[Value | InventoryError]:
    """Parse each item, call with those that are valid, and put the outcomes of all in order."""
    valid: list[Item] = []
    refused: dict[int, InventoryError] = {}
    for number, message in enumerate(messages):
        try:
            valid.append(parse(message))
        except InventoryError as error:
            refused[number] = error
    outcomes: list[Value | InventoryError] = list(await call(valid)) if valid else []
    for number, refusal in refused.items():  # in order: those before it stand already
        outcomes.insert(number, refusal)
    return outcomes

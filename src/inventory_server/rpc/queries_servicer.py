"""The RPCs that list and explain: parse, call, render."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inventory_server.rpc.wire import pages

if TYPE_CHECKING:
    from inventory_client.proto.inventory.v1 import inventory_pb2 as pb
    from inventory_server.queries import Queries


class QueriesServicer:
    """One method per RPC, each from a request and a deadline (in the event loop's time, or None) to a response."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    async def ListStock(self, request: pb.ListStockRequest, deadline: float | None) -> pb.ListStockResponse:
        asked = pages.parse_list_stock(request)
        page = await self._queries.stock(asked.available_max, asked.after, asked.size, deadline)
        return pages.render_stock_page(page, asked.query)

    async def ListReservations(
        self, request: pb.ListReservationsRequest, deadline: float | None
    ) -> pb.ListReservationsResponse:
        asked = pages.parse_list_reservations(request)
        listing = self._queries.reservations_of_order if asked.order_id else self._queries.reservations_of_product
        page = await listing(asked.order_id or asked.product_id, asked.status, asked.after, asked.size, deadline)
        return pages.render_reservations_page(page, asked.query)

    async def ListMovements(self, request: pb.ListMovementsRequest, deadline: float | None) -> pb.ListMovementsResponse:
        asked = pages.parse_list_movements(request)
        page = await self._queries.movements(asked.product_id, asked.before, asked.size, deadline)
        return pages.render_movements_page(page, asked.query)

    async def ExplainStock(self, request: pb.ExplainStockRequest, deadline: float | None) -> pb.ExplainStockResponse:
        asked = pages.parse_explain(request)
        explanation = await self._queries.explain(asked.product_id, asked.at_us, asked.movements_max, deadline)
        return pages.render_explanation(explanation)

"""The RPCs: parse, call, render. What goes wrong is answered in one place for all of them, `boundary`."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from inventory_client.proto.inventory.v1 import inventory_pb2 as pb
from inventory_server.rpc.wire import answers, requests

if TYPE_CHECKING:
    from inventory_server.domain import Reservation
    from inventory_server.inventory import Inventory
    from inventory_server.settings import Settings

Response = TypeVar(
    "Response",
    pb.ReserveStockResponse,
    pb.GetReservationResponse,
    pb.ReleaseReservationResponse,
    pb.DeductReservationResponse,
    pb.ExtendReservationResponse,
)


class InventoryServicer:
    """One method per RPC, each from a request and a deadline (in the event loop's time, or None) to a response."""

    def __init__(self, inventory: Inventory, settings: Settings) -> None:
        self._inventory = inventory
        self._ttl_us = round(settings.reservation_ttl * 1_000_000)

    async def InitializeStock(
        self, request: pb.InitializeStockRequest, deadline: float | None
    ) -> pb.InitializeStockResponse:
        done = await self._inventory.initialize(requests.parse_initialize(request), deadline)
        return pb.InitializeStockResponse(stock=answers.render_stock(done.stock), created=done.created)

    async def GetStock(self, request: pb.GetStockRequest, deadline: float | None) -> pb.GetStockResponse:
        stock = await self._inventory.stock(requests.parse_product(request), deadline)
        return pb.GetStockResponse(stock=answers.render_stock(stock))

    async def AddStock(self, request: pb.AddStockRequest, deadline: float | None) -> pb.AddStockResponse:
        stock = await self._inventory.change(requests.parse_add(request), deadline)
        return pb.AddStockResponse(stock=answers.render_stock(stock))

    async def ReserveStock(self, request: pb.ReserveStockRequest, deadline: float | None) -> pb.ReserveStockResponse:
        (reservation,) = await self._inventory.reserve(requests.parse_reserve(request, self._ttl_us), deadline)
        return _with(pb.ReserveStockResponse(), reservation)

    async def GetReservation(
        self, request: pb.GetReservationRequest, deadline: float | None
    ) -> pb.GetReservationResponse:
        reservation = await self._inventory.reservation(requests.parse_reservation(request), deadline)
        return _with(pb.GetReservationResponse(), reservation)

    async def ReleaseReservation(
        self, request: pb.ReleaseReservationRequest, deadline: float | None
    ) -> pb.ReleaseReservationResponse:
        reservation = await self._inventory.settle(requests.parse_release(request), deadline)
        return _with(pb.ReleaseReservationResponse(), reservation)

    async def DeductReservation(
        self, request: pb.DeductReservationRequest, deadline: float | None
    ) -> pb.DeductReservationResponse:
        reservation = await self._inventory.settle(requests.parse_deduct(request), deadline)
        return _with(pb.DeductReservationResponse(), reservation)

    async def AdjustStock(self, request: pb.AdjustStockRequest, deadline: float | None) -> pb.AdjustStockResponse:
        stock = await self._inventory.change(requests.parse_adjust(request), deadline)
        return pb.AdjustStockResponse(stock=answers.render_stock(stock))

    async def ExtendReservation(
        self, request: pb.ExtendReservationRequest, deadline: float | None
    ) -> pb.ExtendReservationResponse:
        reservation = await self._inventory.extend(requests.parse_extend(request), deadline)
        return _with(pb.ExtendReservationResponse(), reservation)


def _with(response: Response, reservation: Reservation) -> Response:
    answers.fill_reservation(response.reservation, reservation)
    return response

"""What a type checker knows about both clients. Nothing runs here: `make types` reads it."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, assert_type

from inventory_client import (
    AdjustmentReason,
    AsyncHold,
    AsyncInventoryClient,
    AsyncListing,
    AsyncOrderHold,
    AsyncStockWatch,
    ClientConfig,
    FieldViolation,
    Hold,
    InitializeResult,
    InsufficientStock,
    InvalidStockState,
    InventoryClient,
    InventoryError,
    LatePolicy,
    Listing,
    LowStock,
    Movement,
    MovementKind,
    OrderHold,
    OrderLine,
    Page,
    ReleaseReason,
    Reservation,
    ReservationAlreadyReleased,
    ReservationStatus,
    ReserveItem,
    SettleItem,
    SettlementAction,
    Stock,
    StockEvent,
    StockExplanation,
    StockShortage,
    StockWatch,
    ValidationError,
    VersionMismatch,
)

if TYPE_CHECKING:
    from datetime import timedelta
    from uuid import UUID

    from grpc import StatusCode

    from inventory_client.proto.inventory.v1.inventory_pb2 import GetStockRequest, GetStockResponse


def threads(client: InventoryClient, minute: timedelta, chosen: UUID) -> None:
    assert_type(client.initialize_stock("teapot", 5), InitializeResult)
    assert_type(client.get_stock("teapot", timeout=1), Stock)
    assert_type(client.add_stock("teapot", 5, reason="delivery", request_id=chosen), Stock)
    assert_type(client.reserve_stock("teapot", "o-1", 2, ttl=minute, request_id="x"), Reservation)
    assert_type(client.get_reservation("r-1"), Reservation)
    assert_type(client.release_reservation("r-1"), Reservation)
    assert_type(client.deduct_reservation("r-1", late_policy=LatePolicy.REACQUIRE), Reservation)
    assert_type(client.extend_reservation("r-1", minute), Reservation)
    assert_type(client.extend_order("order-1", minute), tuple[Reservation, ...])
    with client as same:
        assert_type(same, InventoryClient)
    with client.hold("teapot", "o-1", 2, ttl=minute) as hold:
        assert_type(hold, Hold)
        assert_type(hold.reservation, Reservation)
        assert_type(hold.deduct(), Reservation)
        assert_type(hold.release(timeout=1.5), Reservation)
        assert_type(hold.extend(minute), Reservation)
    with client.hold_order("o-1", [("teapot", 2)], ttl=minute) as order:
        assert_type(order, OrderHold)
        assert_type(order.deduct(), tuple[Reservation, ...])


async def tasks(client: AsyncInventoryClient, minute: timedelta, chosen: UUID) -> None:
    assert_type(await client.initialize_stock("teapot", 5), InitializeResult)
    assert_type(await client.get_stock("teapot", timeout=1), Stock)
    assert_type(await client.add_stock("teapot", 5, reason="delivery", request_id=chosen), Stock)
    assert_type(await client.reserve_stock("teapot", "o-1", 2, ttl=minute, request_id="x"), Reservation)
    assert_type(await client.get_reservation("r-1"), Reservation)
    assert_type(await client.release_reservation("r-1"), Reservation)
    assert_type(await client.deduct_reservation("r-1", late_policy=LatePolicy.REACQUIRE), Reservation)
    assert_type(await client.extend_reservation("r-1", minute), Reservation)
    assert_type(await client.extend_order("order-1", minute), tuple[Reservation, ...])
    async with client as same:
        assert_type(same, AsyncInventoryClient)
    async with client.hold("teapot", "o-1", 2, ttl=minute) as hold:
        assert_type(hold, AsyncHold)
        assert_type(await hold.deduct(), Reservation)
        assert_type(await hold.release(), Reservation)
        assert_type(await hold.extend(minute), Reservation)
    async with client.hold_order("o-1", [("teapot", 2)], ttl=minute) as order:
        assert_type(order, AsyncOrderHold)
        assert_type(await order.release(), tuple[Reservation, ...])


def threads_with_more(client: InventoryClient, minute: timedelta) -> None:
    assert_type(client.reserve_order("o-1", [OrderLine("teapot", 1), ("cup", 6)], wait=minute), tuple[Reservation, ...])
    assert_type(client.release_order("o-1"), tuple[Reservation, ...])
    assert_type(client.deduct_order("o-1"), tuple[Reservation, ...])
    item = ReserveItem("teapot", "o-1", 2, ttl=minute)
    assert_type(client.batch_reserve_stock([item]), tuple[Reservation | InventoryError, ...])
    end = SettleItem("r-1", SettlementAction.DEDUCT)
    assert_type(client.batch_settle_reservations([end]), tuple[Reservation | InventoryError, ...])
    assert_type(client.batch_get_stock(["teapot"]), tuple[Stock | InventoryError, ...])
    assert_type(client.adjust_stock("teapot", -1, AdjustmentReason.DAMAGE, expected_version=3), Stock)
    assert_type(client.list_stock(max_available=5), Listing[Stock])
    assert_type(client.list_stock().page("token"), Page[Stock])
    assert_type(client.list_reservations(order_id="o-1", status=ReservationStatus.RESERVED), Listing[Reservation])
    assert_type([each.kind for each in client.list_movements("teapot")], list[MovementKind])
    assert_type(client.explain_stock("teapot"), StockExplanation)
    with client.watch_stock(["teapot"], low_stock=5) as watch:
        assert_type(watch, StockWatch)
        for event in watch:
            assert_type(event, StockEvent)
            assert_type(event.change, Movement | LowStock)


async def tasks_with_more(client: AsyncInventoryClient, minute: timedelta) -> None:
    assert_type(await client.reserve_order("o-1", [("cup", 6)], ttl=minute), tuple[Reservation, ...])
    item = ReserveItem("teapot", "o-1", 2, ttl=minute)
    assert_type(await client.batch_reserve_stock([item]), tuple[Reservation | InventoryError, ...])
    assert_type(await client.batch_get_stock(["teapot"]), tuple[Stock | InventoryError, ...])
    assert_type(client.list_stock(max_available=5), AsyncListing[Stock])
    assert_type(await client.list_stock().page("token"), Page[Stock])
    assert_type([each.kind async for each in client.list_movements("teapot")], list[MovementKind])
    assert_type(await client.explain_stock("teapot"), StockExplanation)
    async with client.watch_stock(low_stock=5) as watch:
        assert_type(watch, AsyncStockWatch)
        async for event in watch:
            assert_type(event, StockEvent)


def stubs(client: InventoryClient, request: GetStockRequest) -> GetStockResponse:
    return client.stub.GetStock(request, timeout=1)


async def async_stubs(client: AsyncInventoryClient, request: GetStockRequest) -> GetStockResponse:
    return await client.stub.GetStock(request, timeout=1)


def values(stock: Stock, reservation: Reservation) -> None:
    assert_type(stock.available_quantity, int)
    assert_type(stock.updated_at, datetime)
    assert_type(reservation.expires_at, datetime)
    assert_type(reservation.status, ReservationStatus)
    assert_type(reservation.release_reason, ReleaseReason | None)


def errors(error: InventoryError) -> None:
    assert_type(error.metadata, dict[str, str])
    assert_type(error.retryable, bool)
    code: StatusCode = error.code
    assert code
    if isinstance(error, InsufficientStock):
        assert_type(error.product_id, str)
        assert_type(error.available, int)
        assert_type(error.lines, tuple[StockShortage, ...])
    if isinstance(error, ReservationAlreadyReleased):
        assert_type(error.release_reason, ReleaseReason)
    if isinstance(error, VersionMismatch):
        assert_type(error.expected_version, int)
    if isinstance(error, InvalidStockState):
        assert_type(error.reserved, int)
    if isinstance(error, ValidationError):
        assert_type(error.violations, tuple[FieldViolation, ...])


def mistakes_that_are_found(client: InventoryClient, config: ClientConfig, stock: Stock) -> None:
    client.reserve_stock("teapot", "o-1", "2")  # type: ignore[arg-type]
    client.reserve_stock("teapot", "o-1", 2, ttl=60)  # type: ignore[arg-type]
    client.reserve_stock("teapot", "o-1", 2, None)  # type: ignore[call-arg]
    client.reserve_order("o-1", ["teapot"])  # type: ignore[list-item]
    client.adjust_stock("teapot", 1, "COUNT")  # type: ignore[arg-type]
    stock.version = 2  # type: ignore[misc]
    config.token = "sesame"  # type: ignore[misc]
    InventoryClient(config)  # type: ignore[arg-type]

"""What a type checker knows about both clients. Nothing runs here: `make types` reads it."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, assert_type

from inventory_client import (
    AsyncHold,
    AsyncInventoryClient,
    ClientConfig,
    FieldViolation,
    Hold,
    InitializeResult,
    InsufficientStock,
    InvalidStockState,
    InventoryClient,
    InventoryError,
    ReleaseReason,
    Reservation,
    ReservationAlreadyReleased,
    ReservationStatus,
    Stock,
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
    assert_type(client.deduct_reservation("r-1"), Reservation)
    with client as same:
        assert_type(same, InventoryClient)
    with client.hold("teapot", "o-1", 2, ttl=minute) as hold:
        assert_type(hold, Hold)
        assert_type(hold.reservation, Reservation)
        assert_type(hold.deduct(), Reservation)
        assert_type(hold.release(timeout=1.5), Reservation)


async def tasks(client: AsyncInventoryClient, minute: timedelta, chosen: UUID) -> None:
    assert_type(await client.initialize_stock("teapot", 5), InitializeResult)
    assert_type(await client.get_stock("teapot", timeout=1), Stock)
    assert_type(await client.add_stock("teapot", 5, reason="delivery", request_id=chosen), Stock)
    assert_type(await client.reserve_stock("teapot", "o-1", 2, ttl=minute, request_id="x"), Reservation)
    assert_type(await client.get_reservation("r-1"), Reservation)
    assert_type(await client.release_reservation("r-1"), Reservation)
    assert_type(await client.deduct_reservation("r-1"), Reservation)
    async with client as same:
        assert_type(same, AsyncInventoryClient)
    async with client.hold("teapot", "o-1", 2, ttl=minute) as hold:
        assert_type(hold, AsyncHold)
        assert_type(await hold.deduct(), Reservation)
        assert_type(await hold.release(), Reservation)


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
    stock.version = 2  # type: ignore[misc]
    config.token = "sesame"  # type: ignore[misc]
    InventoryClient(config)  # type: ignore[arg-type]

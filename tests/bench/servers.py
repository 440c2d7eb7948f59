"""The servers that the service is compared with: an empty handler, the per-request design, and its bare statement."""

from __future__ import annotations

import argparse
import datetime as dt
import os
from operator import methodcaller
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import orjson
import psycopg
import redis.asyncio
import uvloop
from psycopg_pool import AsyncConnectionPool
from uuid_utils.compat import uuid7

from inventory_client.proto.inventory.v1 import inventory_pb2 as pb
from inventory_server.postgres.migrate import migrate
from inventory_server.postgres.queries import query

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from uuid import UUID

    from google.protobuf.message import Message

    Context = grpc.aio.ServicerContext[Any, Any]
    Handler = Callable[[Any, Context], Awaitable[Message]]
    Methods = Mapping[str, tuple[type[Message], Handler]]

TTL = dt.timedelta(minutes=10)
# Anything from 4 to 32 came to the same, hot and spread, within the noise.
POOL_SIZE = 10

LOCK = "SELECT available_quantity FROM stock WHERE product_id = %s FOR UPDATE"
TAKE = """
    UPDATE stock
    SET available_quantity = available_quantity - %(quantity)s, reserved_quantity = reserved_quantity + %(quantity)s,
        version = version + 1, updated_at = now()
    WHERE product_id = %(product_id)s
"""
HOLD = """
    INSERT INTO reservations (reservation_id, product_id, order_id, quantity, expires_at)
    VALUES (%(reservation_id)s, %(product_id)s, %(order_id)s, %(quantity)s, %(expires_at)s)
"""
# This service's own.
INITIALIZE, RESERVE = query("initialize"), query("reserve")


def nothing(answer: type[Message]) -> Handler:
    """Answer at once: what is left is gRPC's own cost."""

    async def handle(request: Any, context: Context) -> Message:  # noqa: ARG001
        return answer()

    return handle


EMPTY: Methods = {
    "ReserveStock": (pb.ReserveStockRequest, nothing(pb.ReserveStockResponse)),
    "DeductReservation": (pb.DeductReservationRequest, nothing(pb.DeductReservationResponse)),
    "GetStock": (pb.GetStockRequest, nothing(pb.GetStockResponse)),
    "GetReservation": (pb.GetReservationRequest, nothing(pb.GetReservationResponse)),
}


class PerRequest:
    """Five statements per request, a lock held across four of them, then the cache: as one writes it first."""

    def __init__(self, pool: AsyncConnectionPool, cache: redis.asyncio.Redis) -> None:
        self._pool = pool
        self._cache = cache

    async def reserve(self, request: pb.ReserveStockRequest, context: Context) -> pb.ReserveStockResponse:
        reservation_id = uuid7()
        expires_at = dt.datetime.now(dt.UTC) + TTL
        available = await self._hold(request, reservation_id, expires_at)
        if available is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such product")
        if available < request.quantity:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not enough")
        await self._remember(request, reservation_id, expires_at)
        reservation = pb.Reservation(
            reservation_id=str(reservation_id),
            product_id=request.product_id,
            order_id=request.order_id,
            quantity=request.quantity,
            status=pb.RESERVATION_STATUS_RESERVED,
        )
        reservation.expires_at.FromDatetime(expires_at)
        return pb.ReserveStockResponse(reservation=reservation)

    async def _hold(self, request: pb.ReserveStockRequest, reservation_id: UUID, expires_at: dt.datetime) -> int | None:
        values = {
            "reservation_id": reservation_id,
            "product_id": request.product_id,
            "order_id": request.order_id,
            "quantity": request.quantity,
            "expires_at": expires_at,
        }
        async with self._pool.connection() as connection:
            row = await (await connection.execute(LOCK, (request.product_id,))).fetchone()
            if row is not None and row[0] >= request.quantity:
                await connection.execute(TAKE, values)
                await connection.execute(HOLD, values)
            return None if row is None else int(row[0])

    async def _remember(self, request: pb.ReserveStockRequest, reservation_id: UUID, expires_at: dt.datetime) -> None:
        entry = {
            "reservationId": str(reservation_id),
            "productId": request.product_id,
            "orderId": request.order_id,
            "quantity": request.quantity,
            "status": "RESERVED",
            "expiresAt": expires_at,
        }
        await self._cache.set(f"reservation:{reservation_id}", orjson.dumps(entry), ex=TTL)


class Bare:
    """This service's own statement for each request, on one connection: the least that gRPC and psycopg can cost.

    Nothing is checked, no request waits for another, none is asked again: it answers one request at a time.
    """

    def __init__(self, connection: psycopg.AsyncConnection) -> None:
        self._cursor = connection.cursor()

    async def initialize(self, request: pb.InitializeStockRequest, context: Context) -> pb.InitializeStockResponse:  # noqa: ARG002
        values = (f'{{"{request.product_id}"}}', f"{{{request.quantity}}}", f"{{{uuid7()}}}")
        await self._cursor.execute(INITIALIZE, values)
        return pb.InitializeStockResponse()

    async def reserve(self, request: pb.ReserveStockRequest, context: Context) -> pb.ReserveStockResponse:
        reservation_id = str(uuid7())
        product, order, made = f'{{"{request.product_id}"}}', f'{{"{request.order_id}"}}', f"{{{reservation_id}}}"
        ttl = f"{{{TTL // dt.timedelta(microseconds=1)}}}"
        values = (product, "{1}", "{1}", order, f"{{{request.quantity}}}", ttl, "{f}", made, made, "{0}", False)
        await self._cursor.execute(RESERVE, values)
        ((outcome, _, _, created_us, ttl_us),) = await self._cursor.fetchall()
        if outcome != "RESERVED":
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, outcome)
        reservation = pb.Reservation(
            reservation_id=reservation_id,
            product_id=request.product_id,
            order_id=request.order_id,
            quantity=request.quantity,
            status=pb.RESERVATION_STATUS_RESERVED,
        )
        reservation.created_at.FromMicroseconds(created_us)
        reservation.expires_at.FromMicroseconds(created_us + ttl_us)
        return pb.ReserveStockResponse(reservation=reservation)


async def serve(address: str, methods: Methods) -> None:
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            handle, request_deserializer=kind.FromString, response_serializer=methodcaller("SerializeToString")
        )
        for name, (kind, handle) in methods.items()
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("inventory.v1.InventoryService", handlers),))
    server.add_insecure_port(address)
    await server.start()
    await server.wait_for_termination()


async def serve_per_request(address: str, pool_size: int) -> None:
    pool = AsyncConnectionPool(
        os.environ["INVENTORY_DATABASE_URL"], min_size=pool_size, max_size=pool_size, open=False, timeout=30
    )
    async with pool, redis.asyncio.Redis.from_url(os.environ["INVENTORY_REDIS_URL"]) as cache:
        await pool.wait()
        await serve(address, {"ReserveStock": (pb.ReserveStockRequest, PerRequest(pool, cache).reserve)})


async def serve_bare(address: str) -> None:
    url = os.environ["INVENTORY_DATABASE_URL"]
    migrate(url)
    async with await psycopg.AsyncConnection.connect(url, autocommit=True, prepare_threshold=0) as connection:
        bare = Bare(connection)
        methods: Methods = {
            "InitializeStock": (pb.InitializeStockRequest, bare.initialize),
            "ReserveStock": (pb.ReserveStockRequest, bare.reserve),
        }
        await serve(address, methods)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["empty", "per-request", "bare"])
    parser.add_argument("--pool-size", type=int, default=POOL_SIZE)
    options = parser.parse_args()
    address = os.environ["INVENTORY_LISTEN"]
    if options.what == "empty":
        uvloop.run(serve(address, EMPTY))
    elif options.what == "bare":
        uvloop.run(serve_bare(address))
    else:
        uvloop.run(serve_per_request(address, options.pool_size))


if __name__ == "__main__":
    main()

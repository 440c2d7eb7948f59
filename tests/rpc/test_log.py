"""What the log says of health and of refused calls, and what it does not say."""

from __future__ import annotations

import re
import time
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

import grpc
import pytest
from tests.fixtures.refusals import refused
from tests.fixtures.shop import fresh, locked, stocked
from tests.fixtures.waiting import eventually

from inventory_client import DatabaseUnavailable, InsufficientStock, InvalidQuantity, ProductNotFound
from inventory_client.proto.inventory.v1 import inventory_pb2 as pb

if TYPE_CHECKING:
    from tests.fixtures.serving import Connect, Serve, Server

    from inventory_server.embedded import EmbeddedPostgres

# One client is enough to see what the server does.
synchronous = pytest.mark.parametrize("connect", ["sync"], indirect=True)


def said(server: Server, level: str) -> list[tuple[str, str]]:
    """List the lines of a level as logger and message."""
    return re.findall(rf"^[\d-]+ [\d:,]+ {level} +(\S+): (.*)$", server.log, re.MULTILINE)


@synchronous
def test_each_refused_call_is_a_line_where_the_level_is_debug(
    database_url: str, serve: Serve, connect: Connect
) -> None:
    server = serve(database_url, log_level="debug")
    client = connect(server)
    product_id = stocked(client, 1)
    ids = [str(uuid4()) for _ in range(2)]
    unknown = fresh()
    refused(ProductNotFound, partial(client.get_stock, unknown), product_id=unknown)
    for error, quantity, request_id in ((InsufficientStock, 2, ids[0]), (InvalidQuantity, 0, ids[1])):
        with pytest.raises(error):
            client.reserve_stock(product_id, "order", quantity, request_id=request_id)
    method = f"/{pb.DESCRIPTOR.services_by_name['InventoryService'].full_name}/GetStock"
    with grpc.insecure_channel(server.address) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
        for body in (b"\xff", pb.AddStockRequest(request_id="x" * 10_000).SerializeToString()):
            with pytest.raises(grpc.RpcError):
                call(body)
    logger = "inventory_server.rpc.boundary"
    assert [message for name, message in said(server, "DEBUG") if name == logger] == [
        "GetStock is refused: PRODUCT_NOT_FOUND",
        f"ReserveStock is refused: INSUFFICIENT_STOCK, request id '{ids[0]}'",
        f"ReserveStock is refused: INVALID_QUANTITY, request id '{ids[1]}'",
        "GetStock is refused: VALIDATION_ERROR",
        "GetStock is refused: INVALID_PRODUCT_ID",
    ]
    assert {name.partition(".")[0] for name, _ in said(server, "DEBUG")} == {"inventory_server"}


@synchronous
def test_refused_calls_are_no_news_at_the_level_info(database_url: str, serve: Serve, connect: Connect) -> None:
    server = serve(database_url)
    unknown = fresh()
    refused(ProductNotFound, partial(connect(server).get_stock, unknown), product_id=unknown)
    assert "refused" not in server.log
    assert said(server, "DEBUG") == []


def test_health_that_goes_is_a_warning_and_health_that_comes_is_not(
    private_postgres: EmbeddedPostgres, redis_url: str, serve: Serve
) -> None:
    server = serve(private_postgres.url, redis_url, pool_timeout="200ms")
    private_postgres.kill()
    gone = ("inventory_server.rpc.health", "health of postgresql is NOT_SERVING")
    eventually(lambda: gone in said(server, "WARNING"))
    private_postgres.start()
    back = ("inventory_server.rpc.health", "health of postgresql is SERVING")
    eventually(lambda: said(server, "INFO").count(back) == 2)
    assert gone not in said(server, "INFO")
    assert back not in said(server, "WARNING")


@synchronous
def test_a_failure_that_every_call_meets_is_told_in_one_line_and_once_a_second(
    database_url: str, serve: Serve, connect: Connect
) -> None:
    server = serve(database_url, lock_timeout="10ms", batch_size=1)
    client = connect(server)
    product_id = stocked(client, 100)
    began = time.monotonic()
    with locked(database_url, product_id):
        for _ in range(20):
            with pytest.raises(DatabaseUnavailable):
                client.reserve_stock(product_id, "order", 1)
    told = [message for _, message in said(server, "WARNING") if "locked for too long" in message]
    assert 1 <= len(told) <= 1 + time.monotonic() - began
    assert told[0] == "a row was locked for too long: canceling statement due to lock timeout"
    assert "CONTEXT" not in server.log

"""How a server ends: asked to, it answers what is in flight; killed, it has lost nothing that it answered."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from tests.fixtures.shop import balance, locked, stocked, waiting
from tests.fixtures.traffic import selling
from tests.fixtures.waiting import eventually

from inventory_client import Cancelled, ServiceUnavailable
from inventory_client.proto.inventory.v1 import inventory_pb2 as pb
from inventory_client.proto.inventory.v1.inventory_pb2_grpc import InventoryServiceStub

if TYPE_CHECKING:
    from tests.fixtures.serving import Connect, Serve

# One client is enough to see what the server does; starting servers and stores takes its time.
pytestmark = pytest.mark.parametrize("connect", ["asyncio"], indirect=True)


def code_of(call: grpc.Future[Any]) -> grpc.StatusCode:
    error = call.exception()
    assert isinstance(error, grpc.RpcError)
    return error.code()


@pytest.mark.parametrize("calls", [1, 50])
def test_what_is_in_flight_is_answered_and_the_exit_status_is_zero(
    database_url: str, serve: Serve, connect: Connect, calls: int
) -> None:
    server = serve(database_url)
    product_id = stocked(connect(server), 100)
    request = pb.ReserveStockRequest(product_id=product_id, order_id="order", quantity=1)
    with grpc.insecure_channel(server.address) as channel, locked(database_url, product_id) as stranger:
        stub = InventoryServiceStub(channel)
        in_flight = [stub.ReserveStock.future(request) for _ in range(calls)]
        eventually(lambda: waiting(database_url) == 1)
        stub.GetStock(pb.GetStockRequest(product_id=product_id))  # the other calls have arrived, too
        server.terminate()
        eventually(lambda: server.health() != "SERVING")
        stranger.rollback()
        assert [call.result().reservation.quantity for call in in_flight] == [1] * calls
        assert server.wait() == 0


def test_a_call_that_hangs_holds_up_the_end_no_longer_than_the_grace(
    database_url: str, serve: Serve, connect: Connect
) -> None:
    server = serve(database_url, shutdown_grace="300ms")
    product_id = stocked(connect(server), 100)
    request = pb.ReserveStockRequest(product_id=product_id, order_id="order", quantity=1)
    with grpc.insecure_channel(server.address) as channel, locked(database_url, product_id):
        hanging = InventoryServiceStub(channel).ReserveStock.future(request)
        eventually(lambda: waiting(database_url) == 1)
        server.terminate()
        assert server.wait() == 0
        assert code_of(hanging) in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}


def test_an_end_mid_traffic_refuses_what_it_does_not_do(database_url: str, serve: Serve, connect: Connect) -> None:
    server = serve(database_url)
    client = connect(server)
    product_id = stocked(client, 1_000_000)
    with selling(client, product_id) as sales:
        eventually(lambda: sales.rounds > 50)
        server.terminate()
        assert server.wait() == 0
        eventually(lambda: sales.errors)
    # Calls that gRPC has taken in but not handed to us yet when the server stops are told CANCELLED.
    assert {type(error) for error in sales.errors} <= {ServiceUnavailable, Cancelled}
    sales.check(database_url)
    sales.check_nothing_else(database_url)


@pytest.mark.parametrize("attempt", range(3))
def test_a_kill_mid_traffic_loses_nothing_that_was_answered(
    database_url: str, redis_url: str, serve: Serve, connect: Connect, attempt: int
) -> None:
    server = serve(database_url, redis_url)
    client = connect(server)
    product_id = stocked(client, 1_000_000)
    with selling(client, product_id, threads=16) as sales:
        eventually(lambda: sales.rounds > 50 * (attempt + 1))
        server.kill()
        eventually(lambda: sales.errors)
    sales.check(database_url)
    again = connect(serve(database_url, redis_url))
    # What was cut off may or may not have been done; to ask again under its id does it exactly once.
    available, reserved = balance(again, product_id)
    unknown = {error.request_id for error in sales.errors}
    assert None not in unknown
    assert reserved <= len(unknown)
    assert available <= 1_000_000


def test_a_request_cut_off_by_a_kill_is_done_once_when_asked_again(
    database_url: str, serve: Serve, connect: Connect
) -> None:
    server = serve(database_url)
    product_id = stocked(connect(server), 10)
    with locked(database_url, product_id) as stranger:
        request = pb.ReserveStockRequest(product_id=product_id, order_id="order", quantity=1)
        request.request_id = "01980c6e-7f4c-7c3e-9d2a-5b8f6a1e0c47"
        with grpc.insecure_channel(server.address) as channel:
            cut_off = InventoryServiceStub(channel).ReserveStock.future(request)
            eventually(lambda: waiting(database_url) == 1)
            server.kill()
            assert code_of(cut_off) is grpc.StatusCode.UNAVAILABLE
        stranger.rollback()
    again = connect(serve(database_url))
    reserve = partial(again.reserve_stock, product_id, "order", 1, request_id=request.request_id)
    assert reserve() == reserve()
    assert balance(again, product_id) == (9, 1)

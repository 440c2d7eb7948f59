"""How a server ends: asked to, it answers what is in flight; killed, it has lost nothing that it answered."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from tests.fixtures.scraping import Metered
from tests.fixtures.shop import balance, locked, stocked, waiting
from tests.fixtures.traffic import selling
from tests.fixtures.waiting import eventually

from inventory_client import Cancelled, InsufficientStock, ServiceUnavailable
from inventory_client.proto.inventory.v1 import inventory_pb2 as pb
from inventory_client.proto.inventory.v1.inventory_pb2_grpc import InventoryServiceStub

if TYPE_CHECKING:
    from tests.fixtures.serving import Connect, Serve

    from inventory_client.proto.inventory.v1.inventory_pb2_grpc import InventoryServiceAsyncStub

# One client is enough to see what the server does; starting servers and stores takes its time.
pytestmark = pytest.mark.parametrize("connect", ["asyncio"], indirect=True)


def code_of(call: grpc.Future[Any]) -> grpc.StatusCode:
    error = call.exception()
    assert isinstance(error, grpc.RpcError)
    return error.code()


def asked_pause(refusal: grpc.aio.AioRpcError | grpc.Call) -> float:
    """Read how many seconds to stay away, as a server that stops tells our clients and gRPC's own retries."""
    trailers = dict(refusal.trailing_metadata() or ())
    if "grpc-status-details-bin" not in trailers:
        return 0.0
    status, retry = Status.FromString(bytes(trailers["grpc-status-details-bin"])), RetryInfo()
    assert [packed.Unpack(retry) for packed in status.details] == [True]
    assert (status.code, status.message) == (grpc.StatusCode.UNAVAILABLE.value[0], refusal.details())
    assert str(retry.retry_delay.ToMilliseconds()) == trailers["grpc-retry-pushback-ms"]
    return retry.retry_delay.ToMilliseconds() / 1000


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
    # What has reached gRPC but not us when it stops is told CANCELLED; nearly all is told to go elsewhere before that.
    assert {type(error) for error in sales.errors} <= {ServiceUnavailable, Cancelled}
    sales.check(database_url)
    sales.check_nothing_else(database_url)


@pytest.mark.parametrize("patient", [False, True], ids=["give up", "come back"])
def test_callers_of_a_busy_server_that_stops_are_sent_elsewhere(
    database_url: str, serve: Serve, connect: Connect, *, patient: bool
) -> None:
    server = serve(database_url)
    product_id = stocked(connect(server), 1_000_000)
    told: Counter[grpc.StatusCode] = Counter()
    turned_away: Counter[int] = Counter()
    busy = asyncio.Event()

    async def ask(stub: InventoryServiceAsyncStub, caller: int) -> None:
        request = pb.ReserveStockRequest(product_id=product_id, order_id="order", quantity=1)
        while True:
            try:
                await stub.ReserveStock(request, timeout=30)
            except grpc.aio.AioRpcError as refusal:
                pause = asked_pause(refusal)
                turned_away[caller] += pause > 0
                if not patient or pause == 0:
                    told[refusal.code()] += 1
                    return
                await asyncio.sleep(pause)
                continue
            told[grpc.StatusCode.OK] += 1
            if told[grpc.StatusCode.OK] == 500:
                busy.set()

    async def ask_all() -> None:
        async with AsyncExitStack() as stack:
            options = [("grpc.use_local_subchannel_pool", 1)]  # a connection each
            channels = [
                await stack.enter_async_context(grpc.aio.insecure_channel(server.address, options)) for _ in range(8)
            ]
            asking = [asyncio.create_task(ask(InventoryServiceStub(channels[no % 8]), no)) for no in range(128)]
            await busy.wait()
            server.terminate()
            await asyncio.gather(*asking)

    asyncio.run(asyncio.wait_for(ask_all(), 60))
    del told[grpc.StatusCode.OK]
    assert told.total() == 128
    assert told.keys() <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    # Half of them and more, where gRPC stops as soon as it is asked to.
    assert told[grpc.StatusCode.CANCELLED] < 12
    # Those who come back find that nobody listens any longer, so that they reach another server.
    assert turned_away.total() > 64
    assert max(turned_away.values()) <= (3 if patient else 1)
    assert server.wait() == 0


def waiters(replica: Metered) -> int:
    return round(replica.scrape().total("inventory_waiters"))


def where_one_waits(replicas: list[Metered]) -> Metered:
    """Find the server at which the only one who waits does so, as soon as it says so."""
    eventually(lambda: sum(map(waiters, replicas)) == 1)
    (replica,) = filter(waiters, replicas)
    return replica


def either_of(replicas: list[Metered], policy: str) -> dict[str, Any]:
    """Tell a client of several servers how to reach them, and to go on at one when the other stops."""
    target = "ipv4:" + ",".join(replica.server.address for replica in replicas)
    return {"target": target, "attempts": 12, "channel_options": {"grpc.lb_policy_name": policy}}


def test_those_who_wait_are_sent_elsewhere(database_url: str, serve: Serve, connect: Connect) -> None:
    metered = Metered(serve, database_url)
    product_id = stocked(connect(metered.server), 2)
    request = pb.ReserveStockRequest(product_id=product_id, order_id="order", quantity=3, wait=Duration(seconds=25))
    with grpc.insecure_channel(metered.server.address) as channel:
        stub = InventoryServiceStub(channel)
        calls = [stub.ReserveStock.future(request, timeout=30) for _ in range(30)]
        # What gRPC has not handed to the server when that stops is told CANCELLED (grpc/grpc#41785).
        eventually(lambda: waiters(metered) == 30)
        metered.server.terminate()
        assert metered.server.wait() == 0
        assert {code_of(call) for call in calls} == {grpc.StatusCode.UNAVAILABLE}
        # A call that has failed is its own error.
        assert {asked_pause(call) for call in calls if isinstance(call, grpc.Call)} == {0.2}


@pytest.mark.parametrize("policy", ["pick_first", "round_robin"])
def test_one_who_waits_goes_on_at_another_server_and_is_served_once(
    database_url: str, serve: Serve, connect: Connect, policy: str
) -> None:
    replicas = [Metered(serve, database_url) for _ in range(2)]
    client = connect(replicas[0].server, **either_of(replicas, policy))
    product_id = stocked(client, 0)
    wait = timedelta(seconds=25)
    patient = partial(client.reserve_stock, product_id, "order", 1, wait=wait, request_id=str(uuid4()))
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(patient)
        here = where_one_waits(replicas)
        here.server.terminate()
        assert here.server.wait() == 0
        replicas.remove(here)
        assert where_one_waits(replicas)
        client.add_stock(product_id, 2)
        assert future.result() == patient()
    assert balance(client, product_id) == (1, 1)


def test_one_who_goes_on_at_another_server_waits_there_until_its_deadline(
    database_url: str, serve: Serve, connect: Connect
) -> None:
    replicas = [Metered(serve, database_url) for _ in range(2)]
    client = connect(replicas[0].server, **either_of(replicas, "pick_first"))
    product_id = stocked(client, 0)
    begun = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(client.reserve_stock, product_id, "order", 1, wait=timedelta(seconds=25), timeout=4)
        where_one_waits(replicas).server.terminate()
        assert isinstance(future.exception(), InsufficientStock)
    assert 3.5 < time.monotonic() - begun < 4.5


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

"""Orders that wait for units to come back: first come first served, never past their deadline, harming nobody."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import grpc
import psycopg
import pytest
from google.protobuf.duration_pb2 import Duration
from tests.fixtures.refusals import refused
from tests.fixtures.scraping import Metered
from tests.fixtures.shop import LONG, balance, expire, fresh, held, locked, stocked, waiting
from tests.fixtures.waiting import at_once, eventually

from inventory_client import (
    AdjustmentReason,
    InsufficientStock,
    InventoryClient,
    OrderLine,
    Overloaded,
    ProductNotFound,
    Reservation,
    SettleItem,
    SettlementAction,
    ValidationError,
)
from inventory_client.proto.inventory.v1 import inventory_pb2 as pb
from inventory_client.proto.inventory.v1.inventory_pb2_grpc import InventoryServiceStub

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.fixtures.serving import Connect, Serve, Server

    Waiter = grpc.Future[pb.ReserveStockResponse]

WAIT = timedelta(seconds=25)
SECOND = timedelta(seconds=1)
# Who is to be served has its hold long before its wait ends, however busy the machine is.
PROMPT_SECONDS = 10.0


def enter(
    stub: InventoryServiceStub, product_id: str, quantity: int = 1, timeout: float = 30.0, order_id: str = "waiter"
) -> Waiter:
    """Have somebody wait, behind those who came before on the same connection, which must be up."""
    request = pb.ReserveStockRequest(
        product_id=product_id, order_id=order_id, quantity=quantity, wait=Duration(seconds=25), request_id=str(uuid4())
    )
    return stub.ReserveStock.future(request, timeout=timeout)


def look_round(stub: InventoryServiceStub, product_id: str) -> None:
    """Be refused: whoever came before on this connection and is first to wait has been refused by then, too."""
    request = pb.ReserveStockRequest(product_id=product_id, order_id="passer-by", quantity=1_000_000)
    with pytest.raises(grpc.RpcError) as raised:
        stub.ReserveStock(request)
    assert raised.value.code() is grpc.StatusCode.FAILED_PRECONDITION


@contextmanager
def in_the_queue(server: Server, product_id: str, call: Callable[[], Any], stub: InventoryServiceStub) -> Iterator[Any]:
    """Make a call that has tried in vain when the block begins; gives the future of its answer."""
    with ThreadPoolExecutor(1) as pool:
        with locked(server.database_url, product_id):
            future = pool.submit(call)
            eventually(lambda: waiting(server.database_url) == 1)
        look_round(stub, product_id)
        assert not future.done()
        yield future


def code(waiter: Waiter) -> grpc.StatusCode:
    error = waiter.exception(PROMPT_SECONDS)
    assert isinstance(error, grpc.RpcError)
    return error.code()


def holds_of(database_url: str, product_id: str, order_id: str = "waiter") -> list[datetime]:
    query = "SELECT created_at FROM inventory_reservations WHERE (product_id, order_id) = (%s, %s)"
    with psycopg.connect(database_url) as connection:
        return [row[0] for row in connection.execute(query, (product_id, order_id))]


def add(client: InventoryClient, hold: Reservation) -> None:
    client.add_stock(hold.product_id, 1)


def adjust(client: InventoryClient, hold: Reservation) -> None:
    client.adjust_stock(hold.product_id, 1, AdjustmentReason.COUNT)


def release(client: InventoryClient, hold: Reservation) -> None:
    client.release_reservation(hold.reservation_id)


def release_order(client: InventoryClient, hold: Reservation) -> None:
    client.release_order(hold.order_id)


def settle_in_bulk(client: InventoryClient, hold: Reservation) -> None:
    client.batch_settle_reservations([SettleItem(hold.reservation_id, SettlementAction.RELEASE)])


@pytest.mark.parametrize("bring_back", [add, adjust, release, release_order, settle_in_bulk])
def test_one_that_waits_gets_what_comes_back(
    server: Server,
    client: InventoryClient,
    stub: InventoryServiceStub,
    bring_back: Callable[[InventoryClient, Reservation], None],
) -> None:
    hold = held(client)
    call = partial(client.reserve_stock, hold.product_id, "patient", 1, wait=WAIT)
    with in_the_queue(server, hold.product_id, call, stub) as future:
        bring_back(client, hold)
        assert future.result(PROMPT_SECONDS).order_id == "patient"


def test_units_go_to_whoever_came_first(client: InventoryClient, stub: InventoryServiceStub) -> None:
    product_id = stocked(client, 0)
    look_round(stub, product_id)
    waiters = [enter(stub, product_id) for _ in range(8)]
    look_round(stub, product_id)
    for number, waiter in enumerate(waiters, start=1):
        client.add_stock(product_id, 1)
        waiter.result(PROMPT_SECONDS)
        look_round(stub, product_id)
        assert [each.done() for each in waiters] == [True] * number + [False] * (8 - number)


@pytest.mark.parametrize("kind", ["server", "calm_server"])
def test_units_of_expired_holds_come_back_with_the_worker_and_without(
    request: pytest.FixtureRequest, connect: Connect, kind: str
) -> None:
    client = connect(request.getfixturevalue(kind))
    product_id = stocked(client, 2)
    hold = client.reserve_stock(product_id, "forgetful", 2, ttl=SECOND)
    patient = client.reserve_stock(product_id, "patient", 2, wait=WAIT)
    assert timedelta() <= patient.created_at - hold.expires_at < timedelta(seconds=PROMPT_SECONDS)


def test_units_that_come_back_through_another_server_are_found(
    calm_server: Server, twin_server: Server, connect: Connect
) -> None:
    here, elsewhere = connect(calm_server), connect(twin_server)
    hold = held(elsewhere)
    call = partial(here.reserve_stock, hold.product_id, "patient", 1, wait=WAIT)
    with (
        grpc.insecure_channel(calm_server.address) as channel,
        in_the_queue(calm_server, hold.product_id, call, InventoryServiceStub(channel)) as future,
    ):
        elsewhere.release_reservation(hold.reservation_id)
        assert future.result(PROMPT_SECONDS).order_id == "patient"


def test_when_the_wait_ends_the_refusal_is_that_of_a_request_that_did_not_wait(client: InventoryClient) -> None:
    product_id = stocked(client, 2)
    begun = time.monotonic()
    reserve = partial(client.reserve_stock, product_id, "order", 3, wait=SECOND)
    refused(InsufficientStock, reserve, product_id=product_id, requested=3, available=2)
    assert 1 <= time.monotonic() - begun < PROMPT_SECONDS
    client.add_stock(product_id, 1)
    assert balance(client, product_id) == (3, 0)


def test_nobody_is_served_after_the_deadline(
    server: Server, client: InventoryClient, stub: InventoryServiceStub
) -> None:
    product_id = stocked(client, 0)
    late = [enter(stub, product_id, timeout=0.5 + number / 10) for number in range(10)]
    # They are told why while somebody still listens, unless the machine is too busy for that just then.
    told, too_late = grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.DEADLINE_EXCEEDED
    assert told in {code(waiter) for waiter in late} <= {told, too_late}
    client.add_stock(product_id, 1)
    assert held(client, product_id).quantity == 1
    assert holds_of(server.database_url, product_id) == []


def test_units_that_come_back_around_deadlines_make_no_hold_after_any_of_them(
    server: Server, client: InventoryClient, stub: InventoryServiceStub
) -> None:
    product_id = stocked(client, 0)
    begun = datetime.now(UTC)
    waiters = [enter(stub, product_id, timeout=0.3 + number / 50, order_id=f"order-{number}") for number in range(40)]
    for _ in range(25):
        eventually(lambda: client.add_stock(product_id, 1))
    eventually(lambda: all(waiter.done() for waiter in waiters))
    served = 0
    for number, waiter in enumerate(waiters):
        made = holds_of(server.database_url, product_id, f"order-{number}")
        # What is under way at the deadline may still be done, as with any other call.
        assert all(moment <= begun + timedelta(seconds=0.3 + number / 50 + 0.25) for moment in made)
        assert waiter.exception() is not None or len(made) == 1
        served += len(made)
    assert balance(client, product_id) == (25 - served, served)


@pytest.mark.parametrize("how", ["cancelled", "cut off"])
def test_one_that_leaves_is_not_served_and_makes_way_for_the_next(
    server: Server, client: InventoryClient, how: str
) -> None:
    product_id = stocked(client, 0)
    with ExitStack() as stack:
        first_channel, second_channel = (
            stack.enter_context(grpc.insecure_channel(server.address, [("grpc.use_local_subchannel_pool", 1)]))
            for _ in range(2)
        )
        first = enter(InventoryServiceStub(first_channel), product_id)
        look_round(InventoryServiceStub(first_channel), product_id)
        second = enter(InventoryServiceStub(second_channel), product_id)
        look_round(InventoryServiceStub(second_channel), product_id)
        assert not second.done()
        if how == "cancelled":
            first.cancel()
        else:
            first_channel.close()
        client.add_stock(product_id, 2)
        assert second.result(PROMPT_SECONDS).reservation.quantity == 1
        assert balance(client, product_id) == (1, 1)


def test_one_that_can_be_served_is_served_at_once_whoever_waits(
    client: InventoryClient, stub: InventoryServiceStub
) -> None:
    teapot, cup = stocked(client, 10), stocked(client, 0)
    look_round(stub, teapot)
    giant = enter(stub, teapot, 10**12)
    lines = [pb.OrderLine(product_id=product_id, quantity=1) for product_id in (teapot, cup)]
    lacking = pb.ReserveOrderRequest(order_id="tea", lines=lines, wait=Duration(seconds=25))
    tea = stub.ReserveOrder.future(lacking, timeout=30)
    look_round(stub, teapot)
    begun = time.monotonic()
    for _ in range(10):
        assert client.reserve_stock(teapot, "order", 1, wait=WAIT).quantity == 1
    assert time.monotonic() - begun < PROMPT_SECONDS
    assert not giant.done()
    assert not tea.done()
    giant.cancel()
    tea.cancel()
    assert balance(client, teapot) == (0, 10)


def test_an_order_waits_for_all_of_its_lines(
    server: Server, client: InventoryClient, stub: InventoryServiceStub
) -> None:
    teapot, cup = stocked(client, 0), stocked(client, 1)
    lines = [OrderLine(cup, 2), OrderLine(teapot, 1), OrderLine(cup, 1)]
    call = partial(client.reserve_order, fresh("order"), lines, wait=WAIT)
    with in_the_queue(server, teapot, call, stub) as future:
        client.add_stock(cup, 2)
        look_round(stub, cup)
        assert (future.done(), balance(client, cup)) == (False, (3, 0))
        client.add_stock(teapot, 1)
        holds = future.result(PROMPT_SECONDS)
    assert [(hold.product_id, hold.quantity) for hold in holds] == [tuple(line) for line in lines]
    assert [balance(client, product_id) for product_id in (teapot, cup)] == [(0, 1), (0, 3)]


def test_an_order_that_waited_in_vain_is_told_every_line_that_is_short(client: InventoryClient) -> None:
    teapot, cup, spoon = stocked(client, 0), stocked(client, 1), stocked(client, 9)
    with pytest.raises(InsufficientStock) as raised:
        client.reserve_order("order", [(teapot, 1), (cup, 2), (spoon, 3)], wait=SECOND)
    assert [(line.product_id, line.requested, line.available) for line in raised.value.lines] == [
        (teapot, 1, 0),
        (cup, 2, 1),
    ]


def test_many_who_wait_hold_up_nobody_who_does_not(client: InventoryClient, stub: InventoryServiceStub) -> None:
    hot, other = stocked(client, 100), stocked(client, 100)
    waiters = [enter(stub, hot, 1_000) for _ in range(200)]
    look_round(stub, hot)
    begun = time.monotonic()
    answers = at_once([partial(held, client, product_id) for product_id in [hot, other] * 20])
    assert all(isinstance(answer, Reservation) for answer in answers)
    assert time.monotonic() - begun < PROMPT_SECONDS
    assert [waiter.done() for waiter in waiters] == [False] * 200
    for waiter in waiters:
        waiter.cancel()


def test_of_two_hundred_who_wait_for_fifty_units_fifty_are_served(client: InventoryClient) -> None:
    product_id = stocked(client, 50)
    taken = held(client, product_id, 50)
    wait = partial(client.reserve_stock, product_id, ttl=LONG, quantity=1, wait=timedelta(seconds=4))
    waiters = [partial(wait, order_id=f"order-{number}") for number in range(200)]
    answers = at_once([*waiters, partial(client.release_reservation, taken.reservation_id)])
    served = [answer for answer in answers[:-1] if isinstance(answer, Reservation)]
    assert len({hold.reservation_id for hold in served}) == len(served) == 50
    assert sum(type(answer) is InsufficientStock for answer in answers) == 150
    assert balance(client, product_id) == (0, 50)


def test_copies_of_one_request_that_wait_together_make_one_hold(client: InventoryClient) -> None:
    product_id = stocked(client, 2)
    taken = held(client, product_id, 2)
    copy = partial(client.reserve_stock, product_id, "order", 1, wait=WAIT, request_id=str(uuid4()))
    answers = at_once([copy] * 10 + [partial(client.release_reservation, taken.reservation_id)])
    assert len(set(answers[:-1])) == 1
    assert isinstance(answers[0], Reservation)
    assert balance(client, product_id) == (1, 1)


def test_a_copy_of_a_request_that_was_served_is_answered_at_once_whoever_waits(
    client: InventoryClient, stub: InventoryServiceStub
) -> None:
    product_id = stocked(client, 1)
    reserve = partial(client.reserve_stock, product_id, "order", 1, wait=WAIT, request_id=str(uuid4()))
    hold = reserve()
    waiter = enter(stub, product_id)
    look_round(stub, product_id)
    begun = time.monotonic()
    assert reserve() == hold
    assert time.monotonic() - begun < PROMPT_SECONDS
    waiter.cancel()


def test_waiting_for_a_product_that_does_not_exist_is_refused_at_once(client: InventoryClient) -> None:
    product_id = fresh()
    begun = time.monotonic()
    refused(ProductNotFound, lambda: client.reserve_stock(product_id, "o", 1, wait=WAIT), product_id=product_id)
    assert time.monotonic() - begun < PROMPT_SECONDS


def test_the_items_of_a_bulk_call_do_not_wait(calm_server: Server, calm_client: InventoryClient) -> None:
    nothing, hold = stocked(calm_client, 0), held(calm_client)
    expire(calm_server.database_url, hold.reservation_id)
    items = [
        pb.ReserveStockRequest(product_id=product_id, order_id="order", quantity=1, wait=Duration(seconds=25))
        for product_id in (nothing, hold.product_id)
    ]
    begun = time.monotonic()
    with (
        grpc.insecure_channel(calm_server.address) as channel,
        psycopg.connect(calm_server.database_url) as stranger,
    ):
        # Units that have come back, but cannot be had just now.
        stranger.execute("SELECT FROM inventory_reservations WHERE product_id = %s FOR UPDATE", (hold.product_id,))
        answer = InventoryServiceStub(channel).BatchReserveStock(pb.BatchReserveStockRequest(items=items))
        stranger.rollback()
    assert [outcome.error.code for outcome in answer.outcomes] == [grpc.StatusCode.FAILED_PRECONDITION.value[0]] * 2
    assert time.monotonic() - begun < PROMPT_SECONDS


@pytest.mark.parametrize("wait", [timedelta(seconds=30, microseconds=1), timedelta(microseconds=-1), timedelta(days=1)])
def test_a_wait_below_zero_or_above_thirty_seconds_is_refused(client: InventoryClient, wait: timedelta) -> None:
    product_id = stocked(client, 1)
    refused(ValidationError, lambda: client.reserve_stock(product_id, "order", 1, wait=wait), fields="wait")
    refused(ValidationError, lambda: client.reserve_order("order", [(product_id, 1)], wait=wait), fields="wait")
    assert balance(client, product_id) == (1, 0)


@pytest.mark.parametrize("wait", [timedelta(), timedelta(seconds=30)])
def test_a_wait_from_zero_to_thirty_seconds_costs_nothing_where_units_are_there(
    client: InventoryClient, wait: timedelta
) -> None:
    product_id = stocked(client, 2)
    begun = time.monotonic()
    client.reserve_stock(product_id, "order", 1, wait=wait)
    client.reserve_order("order", [(product_id, 1)], wait=wait)
    assert time.monotonic() - begun < PROMPT_SECONDS


def test_when_too_many_wait_one_more_is_overloaded_where_units_lack(
    database_url: str, serve: Serve, connect: Connect
) -> None:
    metered = Metered(serve, database_url, queue_size=40)
    client = connect(metered.server)
    product_id = stocked(client, 0)
    with grpc.insecure_channel(metered.server.address) as channel:
        stub = InventoryServiceStub(channel)
        look_round(stub, product_id)
        waiters = [enter(stub, product_id) for _ in range(40)]
        eventually(lambda: metered.scrape().total("inventory_waiters") == 40)
        refused(Overloaded, lambda: client.reserve_stock(product_id, "order", 1, wait=WAIT))
        assert client.reserve_stock(stocked(client, 1), "order", 1, wait=WAIT).quantity == 1
        client.add_stock(product_id, 1)
        waiters[0].result(PROMPT_SECONDS)
        waiters.append(enter(stub, product_id))
        look_round(stub, product_id)
        client.add_stock(product_id, 40)
        assert all(waiter.result(PROMPT_SECONDS) for waiter in waiters)

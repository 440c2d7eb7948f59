"""Many callers at once: of one product, of one batch, of one hold, and through two servers."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

import grpc
import pytest
from tests.fixtures.refusals import check_wire
from tests.fixtures.shop import LONG, balance, expire, fresh, held, locked, stocked, waiting
from tests.fixtures.waiting import at_once, eventually

from inventory_client import (
    InsufficientStock,
    InventoryClient,
    InventoryError,
    Reservation,
    ReservationAlreadyDeducted,
    ReservationAlreadyReleased,
    ReservationStatus,
)
from inventory_client.proto.inventory.v1 import inventory_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fixtures.serving import Connect, Server

    from inventory_client.proto.inventory.v1.inventory_pb2_grpc import InventoryServiceStub

RACES = 15


def test_four_hundred_callers_of_a_hundred_units_get_exactly_a_hundred_holds(client: InventoryClient) -> None:
    product_id = stocked(client, 100)
    answers = at_once([partial(client.reserve_stock, product_id, f"order-{n}", 1, ttl=LONG) for n in range(400)])
    holds = [answer for answer in answers if isinstance(answer, Reservation)]
    assert len({hold.reservation_id for hold in holds}) == 100
    assert sum(type(answer) is InsufficientStock for answer in answers) == 300
    assert balance(client, product_id) == (0, 100)
    assert client.get_stock(product_id).version == 101


def test_two_servers_share_one_hot_product_without_overselling(
    calm_server: Server, twin_server: Server, connect: Connect
) -> None:
    clients = [connect(calm_server), connect(twin_server)]
    product_id = stocked(clients[0], 100)

    def sell(client: InventoryClient, number: int) -> Reservation:
        hold = client.reserve_stock(product_id, f"order-{number}", 1 + number % 3, ttl=LONG)
        settle = client.deduct_reservation if number % 2 else client.release_reservation
        return settle(hold.reservation_id)

    answers = at_once([partial(sell, clients[n % 2], n) for n in range(200)])
    refusals = [answer for answer in answers if isinstance(answer, InventoryError)]
    assert {type(refusal) for refusal in refusals} <= {InsufficientStock}
    sold = sum(a.quantity for a in answers if isinstance(a, Reservation) and a.status is ReservationStatus.DEDUCTED)
    assert 0 < sold <= 100
    assert [balance(client, product_id) for client in clients] == [(100 - sold, 0)] * 2


class Behind:
    """Requests that wait behind a locked stock row, so that they make up one batch when it is let go."""

    def __init__(self, server: Server, stub: InventoryServiceStub, product_id: str) -> None:
        self._server = server
        self._stub = stub
        self._product_id = product_id

    def answers(self, requests: list[pb.ReserveStockRequest]) -> list[pb.ReserveStockResponse | Exception]:
        first = pb.ReserveStockRequest(product_id=self._product_id, order_id="first", quantity=1)
        with locked(self._server.database_url, self._product_id):
            blocked = self._stub.ReserveStock.future(first)
            eventually(lambda: waiting(self._server.database_url) == 1)
            calls = [self._stub.ReserveStock.future(request) for request in requests]
            # The answer to a later call on this connection tells that the earlier ones have arrived.
            self._stub.GetStock(pb.GetStockRequest(product_id=self._product_id))
        blocked.result()
        return [call.exception() or call.result() for call in calls]


def reserve(product_id: str, order_id: str, quantity: int, request_id: str = "") -> pb.ReserveStockRequest:
    return pb.ReserveStockRequest(product_id=product_id, order_id=order_id, quantity=quantity, request_id=request_id)


def test_refused_big_orders_never_starve_small_ones_of_the_same_batch(
    server: Server, stub: InventoryServiceStub, client: InventoryClient
) -> None:
    product_id = stocked(client, 41)
    big, small = reserve(product_id, "big", 41), reserve(product_id, "small", 2)
    answers = Behind(server, stub, product_id).answers([big, small] * 20)
    for refusal in answers[::2]:
        assert isinstance(refusal, grpc.RpcError)
        assert refusal.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert all(isinstance(answer, pb.ReserveStockResponse) for answer in answers[1::2])
    assert balance(client, product_id) == (0, 41)
    # One batch: made at one moment.
    assert len({a.reservation.created_at.ToNanoseconds() for a in answers[1::2] if not isinstance(a, Exception)}) == 1


def test_an_order_gets_what_is_left_in_the_order_of_arrival(
    server: Server, stub: InventoryServiceStub, client: InventoryClient
) -> None:
    product_id = stocked(client, 11)
    requests = [reserve(product_id, f"order-{quantity}", quantity) for quantity in (4, 4, 3, 2, 1)]
    answers = Behind(server, stub, product_id).answers(requests)
    assert [isinstance(answer, pb.ReserveStockResponse) for answer in answers] == [True, True, False, True, False]


def test_a_value_that_the_database_refuses_fails_alone(
    server: Server, stub: InventoryServiceStub, client: InventoryClient
) -> None:
    product_id = stocked(client, 100)
    used = str(uuid4())
    client.add_stock(product_id, 1, request_id=used)  # a hold under this id breaks a unique index of the ledger
    requests = [reserve(product_id, f"order-{number}", 1) for number in range(20)]
    requests[13] = reserve(product_id, "order-13", 1, request_id=used)
    requests[17] = reserve(fresh(), "order-17", 1)
    answers = Behind(server, stub, product_id).answers(requests)
    failed = {number: answer for number, answer in enumerate(answers) if isinstance(answer, grpc.RpcError)}
    assert failed.keys() == {13, 17}
    check_wire(failed[13], "REQUEST_ID_CONFLICT", {"request_id": used, "http_status": "409"})
    assert failed[17].code() is grpc.StatusCode.NOT_FOUND
    assert balance(client, product_id) == (82, 19)


def test_a_call_that_is_given_up_hurts_nobody(
    server: Server, stub: InventoryServiceStub, client: InventoryClient
) -> None:
    product_id = stocked(client, 10)
    with locked(server.database_url, product_id):
        blocked = stub.ReserveStock.future(reserve(product_id, "under way", 1))
        eventually(lambda: waiting(server.database_url) == 1)
        cancelled = stub.ReserveStock.future(reserve(product_id, "cancelled", 1))
        late = stub.ReserveStock.future(reserve(product_id, "late", 1), timeout=0.2)
        patient = stub.ReserveStock.future(reserve(product_id, "patient", 1))
        stub.GetStock(pb.GetStockRequest(product_id=product_id))
        cancelled.cancel()
        eventually(late.done)
        blocked.cancel()
    assert patient.result().reservation.order_id == "patient"
    # What was under way went on; what only waited was dropped before it reached the database.
    assert balance(client, product_id) == (8, 2)


def test_deduct_release_and_expiry_race_for_one_hold_and_one_wins(client: InventoryClient, server: Server) -> None:
    for _ in range(RACES):
        hold = held(client, quantity=2)
        race(client, server, hold)


def race(client: InventoryClient, server: Server, hold: Reservation) -> None:
    def let_expire() -> None:
        try:
            expire(server.database_url, hold.reservation_id)
        except AssertionError:
            return  # it had ended already

    calls: list[Callable[[], object]] = [
        partial(client.deduct_reservation, hold.reservation_id),
        partial(client.release_reservation, hold.reservation_id),
        let_expire,
    ]
    deducted, released, _ = at_once(calls)
    final = client.get_reservation(hold.reservation_id)
    winners = [answer for answer in (deducted, released) if isinstance(answer, Reservation)]
    losers = [answer for answer in (deducted, released) if not isinstance(answer, Reservation)]
    if winners:
        assert winners == [final]
    else:
        assert final.release_reason == "EXPIRED"
    lost = {
        ReservationStatus.DEDUCTED: ReservationAlreadyDeducted,
        ReservationStatus.RELEASED: ReservationAlreadyReleased,
    }
    assert [type(answer) for answer in losers] == [lost[final.status]] * (2 - len(winners))
    expected = (0, 0) if final.status is ReservationStatus.DEDUCTED else (2, 0)
    eventually(lambda: balance(client, hold.product_id) == expected, within=3)


@pytest.mark.parametrize("action", ["deduct_reservation", "release_reservation"])
def test_of_fifty_that_end_one_hold_one_does(client: InventoryClient, action: str) -> None:
    hold = held(client, quantity=2)
    answers = at_once([partial(getattr(client, action), hold.reservation_id)] * 50)
    assert sum(isinstance(answer, Reservation) for answer in answers) == 1


def test_nobody_reads_a_balance_that_never_was(client: InventoryClient) -> None:
    product_id = stocked(client, 10)
    stop = threading.Event()
    seen: set[int] = set()

    def watch() -> None:
        while not stop.is_set():
            seen.add(sum(balance(client, product_id)))

    def churn() -> None:
        try:
            for number in range(20):
                hold = client.reserve_stock(product_id, f"order-{number}", 1 + number % 5)
                client.release_reservation(hold.reservation_id)
        finally:
            stop.set()

    at_once([watch, churn])
    assert seen == {10}

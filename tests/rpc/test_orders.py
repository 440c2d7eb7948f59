"""ReserveOrder: all lines or none, each product counted as a whole, and every one named that is short."""

from __future__ import annotations

import random
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

import grpc
import pytest
from tests.fixtures.carts import ledger, refused_lines
from tests.fixtures.refusals import refused, violations
from tests.fixtures.shop import LONG, balance, expire, fresh, held, locked, stocked, waiting
from tests.fixtures.waiting import at_once, eventually

from inventory_client import (
    InsufficientStock,
    InvalidOrderId,
    InvalidProductId,
    InvalidQuantity,
    InventoryClient,
    InventoryError,
    OrderLine,
    ProductNotFound,
    ReservationStatus,
    ValidationError,
)
from inventory_client.proto.inventory.v1 import inventory_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fixtures.serving import Connect, Serve, Server

    from inventory_client.proto.inventory.v1.inventory_pb2_grpc import InventoryServiceStub


def test_an_order_holds_each_of_its_lines_in_their_order(client: InventoryClient) -> None:
    teapot, kettle = stocked(client, 5), stocked(client, 7)
    lines = [OrderLine(teapot, 1), OrderLine(kettle, 3), OrderLine(teapot, 2)]
    holds = client.reserve_order("order", lines, ttl=timedelta(minutes=1))
    assert [(hold.product_id, hold.quantity) for hold in holds] == lines
    assert {(hold.order_id, hold.status) for hold in holds} == {("order", ReservationStatus.RESERVED)}
    assert len({hold.reservation_id for hold in holds}) == 3
    assert {hold.expires_at - hold.created_at for hold in holds} == {timedelta(minutes=1)}
    assert len({hold.created_at for hold in holds}) == 1
    assert balance(client, teapot) == (2, 3)
    assert balance(client, kettle) == (4, 3)
    assert [client.get_reservation(hold.reservation_id) for hold in holds] == list(holds)


def test_one_short_line_holds_nothing_of_the_others(client: InventoryClient) -> None:
    products = [stocked(client, 5) for _ in range(5)]
    for short in range(5):
        before = [client.get_stock(product_id) for product_id in products]
        lines = [(product_id, 6 if n == short else 5) for n, product_id in enumerate(products)]
        refused_lines(
            InsufficientStock, partial(client.reserve_order, "order", lines, ttl=LONG), (products[short], 6, 5)
        )
        assert [client.get_stock(product_id) for product_id in products] == before
    assert len(client.reserve_order("order", [(product_id, 5) for product_id in products], ttl=LONG)) == 5


def test_lines_of_one_product_do_not_pass_one_by_one(client: InventoryClient) -> None:
    product_id, plenty = stocked(client, 5), stocked(client, 99)
    lines = [(product_id, 3), (plenty, 1), (product_id, 3)]
    for order in (lines, lines[::-1], [(product_id, 3)] * 2):
        refused_lines(InsufficientStock, partial(client.reserve_order, "order", order), (product_id, 6, 5))
    assert balance(client, product_id) == (5, 0)
    assert balance(client, plenty) == (99, 0)
    assert len(client.reserve_order("order", [(product_id, 3), (product_id, 2)], ttl=LONG)) == 2


def test_every_short_and_every_unknown_product_is_named_once_with_its_total(client: InventoryClient) -> None:
    short, shorter, fits = stocked(client, 2), stocked(client, 0), stocked(client, 4)
    unknown = fresh()
    lines = [(fits, 2), (unknown, 7), (short, 2), (shorter, 1), (unknown, 1), (short, 1), (fits, 2), (shorter, 4)]
    refused_lines(
        InsufficientStock,
        partial(client.reserve_order, "order", lines),
        (unknown, 8, None),
        (short, 3, 2),
        (shorter, 5, 0),
    )
    assert balance(client, fits) == (4, 0)


def test_an_order_of_nothing_but_unknown_products_is_told_that_they_do_not_exist(client: InventoryClient) -> None:
    known, unknown, other = stocked(client, 9), fresh(), fresh()
    refused_lines(
        ProductNotFound,
        partial(client.reserve_order, "order", [(known, 9), (unknown, 1), (other, 2), (unknown, 1)]),
        (unknown, 2, None),
        (other, 2, None),
    )
    assert balance(client, known) == (9, 0)


def test_one_line_is_named_as_many_are(client: InventoryClient) -> None:
    product_id, unknown = stocked(client, 2), fresh()
    refused_lines(InsufficientStock, partial(client.reserve_order, "order", [(product_id, 3)]), (product_id, 3, 2))
    refused_lines(ProductNotFound, partial(client.reserve_order, "order", [(unknown, 3)]), (unknown, 3, None))


@pytest.mark.parametrize("letter", ["p", "é", "\N{TEAPOT}"])
def test_a_refusal_names_a_hundred_products_whatever_their_names(client: InventoryClient, letter: str) -> None:
    products = [fresh(letter * (255 - 37)) for _ in range(100)]
    refused_lines(
        ProductNotFound,
        partial(client.reserve_order, "order", [(product_id, 2) for product_id in products]),
        *[(product_id, 2, None) for product_id in products],
    )


def test_a_hundred_lines_are_held_and_a_hundred_and_one_are_not(client: InventoryClient) -> None:
    products = [stocked(client, 2) for _ in range(50)]
    lines = [(product_id, 1) for product_id in products] * 2
    holds = client.reserve_order("order", lines, ttl=LONG)
    assert [(hold.product_id, hold.quantity) for hold in holds] == lines
    assert all(outcome.reserved_quantity == 2 for outcome in client.batch_get_stock(products))  # type: ignore[union-attr]
    refused(ValidationError, partial(client.reserve_order, "order", [*lines, lines[0]]), fields="lines")
    refused(ValidationError, partial(client.reserve_order, "order", []), fields="lines")


def test_what_is_wrong_with_a_line_is_told_with_its_number(client: InventoryClient) -> None:
    product_id = stocked(client, 9)
    fine = (product_id, 1)
    call = partial(client.reserve_order, "order", [fine, ("", 1)])
    refused(InvalidProductId, call, fields="lines[1].product_id")
    call = partial(client.reserve_order, "order", [fine, fine, (product_id, 0)])
    refused(InvalidQuantity, call, fields="lines[2].quantity")
    refused(InvalidOrderId, partial(client.reserve_order, " ", [fine]), fields="order_id")
    for ttl in (timedelta(0), timedelta(seconds=0.999999), timedelta(hours=24, microseconds=1)):
        refused(ValidationError, partial(client.reserve_order, "order", [fine], ttl=ttl), fields="ttl")
    call = partial(client.reserve_order, "", [(" ", -1), fine, ("p" * 256, 10**12 + 1)])
    error = refused(
        ValidationError,
        call,
        fields="order_id,lines[0].product_id,lines[0].quantity,lines[2].product_id,lines[2].quantity",
    )
    assert isinstance(error.__cause__, grpc.RpcError)
    assert list(violations(error.__cause__).values()) == [
        "INVALID_ORDER_ID",
        "INVALID_PRODUCT_ID",
        "INVALID_QUANTITY",
        "VALIDATION_ERROR",
        "INVALID_QUANTITY",
    ]
    assert balance(client, product_id) == (9, 0)


def test_of_a_hundred_bad_lines_the_first_are_told_and_the_rest_counted(client: InventoryClient) -> None:
    with pytest.raises(ValidationError) as raised:
        client.reserve_order("order", [("", 0)] * 100)
    assert raised.value.violations[0].field == "lines[0].product_id"
    assert len(raised.value.violations) + int(raised.value.metadata["omitted"]) == 200


def test_quantities_of_many_lines_may_add_up_to_more_than_one_line_may_ask(client: InventoryClient) -> None:
    product_id = stocked(client, 10**12)
    most = (product_id, 10**12)
    call = partial(client.reserve_order, "order", [most] * 100)
    refused_lines(InsufficientStock, call, (product_id, 100 * 10**12, 10**12))
    client.add_stock(product_id, 10**12)
    assert len(client.reserve_order("order", [most] * 2, ttl=LONG)) == 2


def test_an_order_gets_the_units_of_expired_holds(calm_client: InventoryClient, calm_server: Server) -> None:
    products = [stocked(calm_client, 3) for _ in range(3)]
    gone = [held(calm_client, product_id, 2).reservation_id for product_id in products]
    expire(calm_server.database_url, *gone)
    holds = calm_client.reserve_order("order", [(product_id, 3) for product_id in products], ttl=LONG)
    assert [balance(calm_client, product_id) for product_id in products] == [(0, 3)] * 3
    assert len(holds) == 3


def test_expired_units_taken_back_for_a_later_line_stay_in_the_ledger_of_a_refused_order(
    calm_client: InventoryClient, calm_server: Server
) -> None:
    product_id = stocked(calm_client, 5)
    expire(calm_server.database_url, held(calm_client, product_id, 2).reservation_id)
    refused_lines(
        InsufficientStock,
        partial(calm_client.reserve_order, "order", [(product_id, 3), (product_id, 3)]),
        (product_id, 6, 5),
    )
    assert balance(calm_client, product_id) == (5, 0)
    # The first line was held and given up before those units came back: the record must still be usable.
    assert calm_client.add_stock(product_id, 1).version == 4
    assert ledger(calm_server, product_id) == ["INITIALIZE", "RESERVE", "EXPIRE", "ADD"]
    assert len(calm_client.reserve_order("order", [(product_id, 3), (product_id, 3)], ttl=LONG)) == 2


def test_expired_units_taken_back_between_two_lines_are_held_by_the_second(
    calm_client: InventoryClient, calm_server: Server
) -> None:
    product_id = stocked(calm_client, 5)
    expire(calm_server.database_url, held(calm_client, product_id, 2).reservation_id)
    calm_client.reserve_order("order", [(product_id, 3), (product_id, 2)], ttl=LONG)
    assert balance(calm_client, product_id) == (0, 5)


class Crowd:
    """Requests that wait behind a locked stock row, so that they make up one batch when it is let go."""

    def __init__(self, server: Server, stub: InventoryServiceStub, product_id: str) -> None:
        self._server = server
        self._stub = stub
        self._product_id = product_id

    def fates(self, orders: list[list[tuple[str, int]]]) -> list[bool]:
        """Tell which of the orders were held."""
        first = pb.ReserveOrderRequest(order_id="first", lines=[pb.OrderLine(product_id=self._product_id, quantity=1)])
        with locked(self._server.database_url, self._product_id):
            blocked = self._stub.ReserveOrder.future(first)
            eventually(lambda: waiting(self._server.database_url) == 1)
            calls = []
            for number, lines in enumerate(orders):
                wanted = [pb.OrderLine(product_id=name, quantity=quantity) for name, quantity in lines]
                request = pb.ReserveOrderRequest(order_id=f"order-{number}", lines=wanted)
                calls.append(self._stub.ReserveOrder.future(request))
                # The answer to a later call on this connection tells that the one before has arrived.
                self._stub.GetStock(pb.GetStockRequest(product_id=self._product_id))
        blocked.result()
        fates = [call.exception() is None for call in calls]
        moments = {call.result().reservations[0].created_at.ToNanoseconds() for call in calls if not call.exception()}
        assert len(moments) <= 1, "they were meant to be one batch"
        return fates


@pytest.mark.parametrize("connect", ["sync"], indirect=True)
def test_an_order_that_fits_is_never_refused_because_of_a_neighbour(
    database_url: str, serve: Serve, connect: Connect
) -> None:
    server = serve(database_url, lock_timeout="30s", statement_timeout="30s")
    client = connect(server)
    draw = random.Random(20)  # noqa: S311 - orders, not secrets
    for _ in range(5):
        products = [stocked(client, 20) for _ in range(4)]
        left = dict.fromkeys(products, 20)
        left[products[0]] -= 1  # the first one, which the others wait behind
        orders = []
        for _ in range(60):
            wanted = draw.choices(products, k=draw.randint(1, 4))
            orders.append([(product_id, draw.choice([1, 1, 2, 3, 19])) for product_id in wanted])
        expected = []
        for lines in orders:
            need = {name: sum(q for product_id, q in lines if product_id == name) for name, _ in lines}
            expected.append(all(left[name] >= quantity for name, quantity in need.items()))
            if expected[-1]:
                left = {name: quantity - need.get(name, 0) for name, quantity in left.items()}
        assert Crowd(server, client.stub, products[0]).fates(orders) == expected
        assert [client.get_stock(name).available_quantity for name in products] == list(left.values())
        assert True in expected[30:], "a case that proves nothing"
        assert False in expected[:30], "a case that proves nothing"


@pytest.mark.parametrize("connect", ["sync"], indirect=True)
def test_refused_big_orders_never_starve_small_ones_and_holds_of_one_product(
    client: InventoryClient, server: Server
) -> None:
    hot, cold = stocked(client, 60), stocked(client, 60)
    big = partial(client.reserve_order, "big", [(cold, 1), (hot, 61)], ttl=LONG)
    small = partial(client.reserve_order, "small", [(hot, 1), (cold, 1)], ttl=LONG)
    single = partial(client.reserve_stock, hot, "single", 1, ttl=LONG)
    calls: list[Callable[[], object]] = [big, small, single]
    answers = at_once(calls * 30)
    assert {type(answer) for answer in answers[::3]} == {InsufficientStock}
    assert not [answer for n, answer in enumerate(answers) if n % 3 and isinstance(answer, InventoryError)]
    assert balance(client, hot) == (0, 60)
    assert balance(client, cold) == (30, 30)
    assert ledger(server, cold).count("RESERVE") == 30


@pytest.mark.parametrize("connect", ["sync"], indirect=True)
def test_orders_over_the_same_products_in_any_order_neither_oversell_nor_block_one_another(
    calm_server: Server, twin_server: Server, connect: Connect
) -> None:
    clients = [connect(calm_server), connect(twin_server)]
    products = [stocked(clients[0], 30) for _ in range(4)]
    draw = random.Random(3)  # noqa: S311 - orders, not secrets

    def lines() -> list[tuple[str, int]]:
        return [(product_id, draw.randint(1, 2)) for product_id in draw.sample(products, 3)]

    answers = at_once(
        [partial(clients[n % 2].reserve_order, f"order-{n}", lines(), ttl=LONG, request_id=uuid4()) for n in range(120)]
    )
    made = [hold for answer in answers if not isinstance(answer, InventoryError) for hold in answer]
    assert {type(answer) for answer in answers if isinstance(answer, InventoryError)} == {InsufficientStock}
    for product_id in products:
        taken = sum(hold.quantity for hold in made if hold.product_id == product_id)
        assert balance(clients[0], product_id) == (30 - taken, taken)

"""Bulk calls beside one another and beside single ones: copies, races, deadlines."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

import grpc
import pytest
from tests.fixtures.bulk import item, reasons
from tests.fixtures.carts import rows
from tests.fixtures.scraping import Metered
from tests.fixtures.shop import LONG, balance, fresh, locked, stocked, waiting
from tests.fixtures.waiting import at_once, eventually

from inventory_client import (
    InventoryClient,
    InventoryError,
    RequestIdConflict,
    Reservation,
    ReserveItem,
    SettleItem,
    SettlementAction,
    Stock,
)
from inventory_client.proto.inventory.v1 import inventory_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fixtures.serving import Connect, Serve, Server


RELEASE, DEDUCT = SettlementAction.RELEASE, SettlementAction.DEDUCT
synchronous = pytest.mark.parametrize("connect", ["sync"], indirect=True)


@synchronous
def test_copies_of_a_call_at_once_are_one_call(calm_server: Server, twin_server: Server, connect: Connect) -> None:
    clients = [connect(calm_server), connect(twin_server)]
    product_id = stocked(clients[0], 100)
    items = [item(product_id) for _ in range(30)]
    answers = at_once([partial(each.batch_reserve_stock, items) for each in clients * 5])
    assert answers == [answers[0]] * 10
    assert balance(clients[0], product_id) == (70, 30)
    settlements = [SettleItem(str(each.request_id), (RELEASE, DEDUCT)[n % 2]) for n, each in enumerate(items)]
    answers = at_once([partial(each.batch_settle_reservations, settlements) for each in clients * 5])
    assert answers == [answers[0]] * 10
    assert balance(clients[0], product_id) == (85, 0)


@synchronous
def test_balances_read_in_one_call_belong_to_one_moment(client: InventoryClient) -> None:
    products = [stocked(client, 1000) for _ in range(2)]

    def move() -> set[int]:
        for number in range(25):
            # Both products change by the same in one transaction, so that at no moment they differ.
            client.reserve_order(f"order-{number}", [(name, 1 + number % 3) for name in products], ttl=LONG)
        return set()

    def watch() -> set[int]:
        seen = set()
        for _ in range(40):
            one, other = client.batch_get_stock(products)
            assert isinstance(one, Stock)
            assert isinstance(other, Stock)
            seen.add(one.available_quantity - other.available_quantity)
        return seen

    assert at_once([move, watch])[1] == {0}
    assert client.get_stock(products[0]).available_quantity < 1000


@synchronous
def test_bulk_calls_and_single_ones_over_shared_products_all_end_and_oversell_nothing(
    calm_server: Server, twin_server: Server, connect: Connect
) -> None:
    clients = [connect(calm_server), connect(twin_server)]
    products = [stocked(clients[0], 100) for _ in range(3)]

    def trade(number: int) -> list[str]:
        client = clients[number % 2]
        items = [item(products[(number + n) % 3], 1 + n % 2) for n in range(40)]
        made = [hold for hold in client.batch_reserve_stock(items) if isinstance(hold, Reservation)]
        client.reserve_order(fresh("order"), [(products[n], 1) for n in (2, 0, 1)], ttl=timedelta(seconds=1))
        settlements = [SettleItem(hold.reservation_id, RELEASE) for hold in reversed(made)]
        return reasons(client.batch_settle_reservations(settlements)) if settlements else []

    calls: list[Callable[[], list[str]]] = [partial(trade, number) for number in range(12)]
    for answer in at_once(calls):
        assert getattr(answer, "reason", "INSUFFICIENT_STOCK") == "INSUFFICIENT_STOCK"
        assert isinstance(answer, InventoryError) or set(answer) <= {"DONE"}
    query = "SELECT sum(quantity) FROM inventory_reservations WHERE status = 'RESERVED' AND product_id = %s"
    for product_id in products:
        ((reserved,),) = rows(calm_server, query, product_id)
        available, told = balance(clients[0], product_id)
        assert (available + told, told) == (100, int(str(reserved or 0)))


@synchronous
def test_a_bulk_call_whose_deadline_has_passed_does_nothing_after_that(
    calm_client: InventoryClient, calm_server: Server
) -> None:
    hot, cold = stocked(calm_client, 10), stocked(calm_client, 10)
    stub = calm_client.stub
    request = pb.BatchReserveStockRequest(items=[pb.ReserveStockRequest(product_id=hot, order_id="o", quantity=1)])
    late = pb.BatchReserveStockRequest(items=[pb.ReserveStockRequest(product_id=cold, order_id="o", quantity=1)])
    with locked(calm_server.database_url, hot):
        blocked = [stub.BatchReserveStock.future(request) for _ in range(2)]
        eventually(lambda: waiting(calm_server.database_url) == 2)
        with pytest.raises(grpc.RpcError) as raised:
            stub.BatchReserveStock(late, timeout=0.3)
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert [call.result().outcomes[0].WhichOneof("result") for call in blocked] == ["reservation"] * 2
    assert balance(calm_client, cold) == (10, 0)
    assert balance(calm_client, hot) == (8, 2)


@synchronous
def test_request_ids_used_before_cost_one_statement_however_many(
    database_url: str, serve: Serve, connect: Connect
) -> None:
    metered = Metered(serve, database_url, expiry=False)
    client = connect(metered.server)
    product_id = stocked(client, 200)
    made = client.batch_reserve_stock([ReserveItem(product_id, "order", 1, ttl=LONG) for _ in range(100)])
    holds = [hold for hold in made if isinstance(hold, Reservation)]
    # The mistake of taking the reserve's request id for its deduct too, beside one who does not make it.
    items = [SettleItem(hold.reservation_id, DEDUCT, request_id=hold.reservation_id) for hold in holds[1:]]
    right = SettleItem(holds[0].reservation_id, DEDUCT)
    outcomes = client.batch_settle_reservations([*items, right])
    assert {type(outcome) for outcome in outcomes[:-1]} == {RequestIdConflict}
    assert isinstance(outcomes[-1], Reservation)
    assert metered.scrape().total("inventory_database_statement_duration_seconds_count", statement="settle") == 1
    assert balance(client, product_id) == (100, 99)


@synchronous
def test_an_item_under_a_used_request_id_costs_its_neighbours_two_statements(
    database_url: str, serve: Serve, connect: Connect
) -> None:
    metered = Metered(serve, database_url)
    client = connect(metered.server)
    product_id = stocked(client, 1000)
    used = str(uuid4())
    client.add_stock(product_id, 1, request_id=used)

    def statements() -> float:
        return metered.scrape().total("inventory_database_statement_duration_seconds_count", statement="reserve")

    before = statements()
    items = [item(product_id, request_id=used if number == 700 else None) for number in range(1000)]
    outcomes = reasons(client.batch_reserve_stock(items))
    assert [number for number, outcome in enumerate(outcomes) if outcome != "DONE"] == [700]
    assert outcomes[700] == "REQUEST_ID_CONFLICT"
    assert statements() - before == 2
    assert balance(client, product_id) == (2, 999)

"""PostgreSQL restarted, killed, or a row of it locked by a stranger: nothing acknowledged is lost, and it heals."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import psycopg
import pytest
from tests.fixtures.refusals import check, refused
from tests.fixtures.shop import LONG, balance, expire, held, locked, stocked, waiting
from tests.fixtures.traffic import selling
from tests.fixtures.waiting import eventually

from inventory_client import (
    DatabaseUnavailable,
    InventoryError,
    ReserveItem,
    RetryPolicy,
    SettleItem,
    SettlementAction,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fixtures.serving import Connect, Serve

    from inventory_client import InventoryClient, Reservation
    from inventory_server.embedded import EmbeddedPostgres

# One client is enough to see what the server does; starting servers and stores takes its time.
pytestmark = pytest.mark.parametrize("connect", ["sync"], indirect=True)


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_database_that_restarts_mid_traffic_loses_nothing_and_the_server_heals(
    private_postgres: EmbeddedPostgres, redis_url: str, serve: Serve, connect: Connect, how: str
) -> None:
    server = serve(private_postgres.url, redis_url, pool_timeout="500ms")
    client = connect(server)
    product_id = stocked(client, 1_000_000)
    with selling(client, product_id) as sales:
        eventually(lambda: sales.rounds > 50)
        if how == "stop":
            private_postgres.stop()
        else:
            private_postgres.kill()
        eventually(lambda: sales.errors)
        private_postgres.start()
        goal = sales.rounds + 50
        eventually(lambda: sales.rounds > goal, within=30)
    for error in sales.errors:
        assert isinstance(error, DatabaseUnavailable)
        check(error)
    sales.check(private_postgres.url)
    eventually(lambda: server.health() == "SERVING")


def test_retries_bridge_a_restart_without_doing_anything_twice(
    private_postgres: EmbeddedPostgres, serve: Serve, connect: Connect
) -> None:
    server = serve(private_postgres.url, pool_timeout="500ms")
    client = connect(server, retry=RetryPolicy(attempts=1000))
    product_id = stocked(client, 1_000_000)
    with selling(client, product_id) as sales:
        eventually(lambda: sales.rounds > 50)
        private_postgres.kill()
        eventually(lambda: server.health() == "NOT_SERVING")
        private_postgres.start()
        goal = sales.rounds + 50
        eventually(lambda: sales.rounds > goal, within=30)
    assert sales.errors == []
    sales.check(private_postgres.url)


def test_connections_that_are_cut_heal_without_a_restart(database_url: str, serve: Serve, connect: Connect) -> None:
    client = connect(serve(database_url))
    product_id = stocked(client, 1_000_000)
    with selling(client, product_id) as sales:
        for _ in range(5):
            goal = sales.rounds + 20
            eventually(lambda goal=goal: sales.rounds > goal)  # type: ignore[misc]
            with psycopg.connect(database_url, autocommit=True) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
    assert {type(error) for error in sales.errors} <= {DatabaseUnavailable}
    sales.check(database_url)


def test_the_worker_survives_an_outage(private_postgres: EmbeddedPostgres, serve: Serve, connect: Connect) -> None:
    server = serve(private_postgres.url, pool_timeout="500ms")
    client = connect(server)
    hold = held(client)
    private_postgres.kill()
    eventually(lambda: server.health() == "NOT_SERVING")
    private_postgres.start()
    eventually(lambda: server.health() == "SERVING", within=30)
    expire(private_postgres.url, hold.reservation_id)
    eventually(lambda: balance(client, hold.product_id) == (1, 0), within=15)


def test_a_row_that_a_stranger_has_locked_is_waited_for_no_longer_than_the_limit(
    database_url: str, serve: Serve, connect: Connect
) -> None:
    client = connect(serve(database_url, lock_timeout="300ms", expiry=False))
    hold, other = held(client, quantity=1), stocked(client, 1)
    with locked(database_url, hold.product_id):
        started = time.monotonic()
        refused(DatabaseUnavailable, lambda: client.add_stock(hold.product_id, 1))
        refused(DatabaseUnavailable, lambda: client.reserve_stock(hold.product_id, "order", 1))
        refused(DatabaseUnavailable, lambda: client.deduct_reservation(hold.reservation_id))
        assert 0.9 <= time.monotonic() - started < 10
        client.deduct_reservation(held(client, other).reservation_id)
        assert balance(client, hold.product_id) == (0, 1)
        assert client.get_reservation(hold.reservation_id) == hold
    client.deduct_reservation(hold.reservation_id)


@pytest.mark.parametrize(
    "change",
    [
        lambda client, hold: client.reserve_stock(hold.product_id, "order", 1),
        lambda client, hold: client.extend_reservation(hold.reservation_id, timedelta(hours=2)),
        lambda client, hold: client.deduct_order(hold.order_id),
    ],
    ids=["reserve", "extend", "deduct an order"],
)
def test_products_that_wait_beside_a_locked_one_are_served(
    database_url: str, serve: Serve, connect: Connect, change: Callable[[InventoryClient, Reservation], object]
) -> None:
    client = connect(serve(database_url, lock_timeout="300ms", lanes=1, expiry=False))
    stuck, *others = [held(client) for _ in range(11)]

    def outcome(hold: Reservation) -> InventoryError | None:
        return outcome_of(lambda: change(client, hold))

    for hold in others:
        client.add_stock(hold.product_id, 1)
    with locked(database_url, stuck.product_id), ThreadPoolExecutor(20) as pool:
        first = pool.submit(outcome, stuck)
        eventually(lambda: waiting(database_url) == 1)
        beside = [pool.submit(outcome, each) for other in others for each in (other, stuck)]
        answers = [each.result() for each in beside]
    assert isinstance(first.result(), DatabaseUnavailable)
    assert answers[::2] == [None] * 10


def outcome_of(call: Callable[[], object]) -> InventoryError | None:
    try:
        call()
    except InventoryError as error:
        return error
    return None


def test_however_many_orders_wait_for_one_locked_row_all_others_are_served(
    database_url: str, serve: Serve, connect: Connect
) -> None:
    # Neither enough connections for all who wait, nor a cache that knows what their orders hold.
    server = serve(database_url, "none://", lock_timeout="500ms", pool_size=4, pool_timeout="500ms", expiry=False)
    client = connect(server)
    stuck = stocked(client, 100)
    orders = [held(client, stuck).order_id for _ in range(40)]
    free = [held(client).order_id for _ in range(20)]
    with locked(database_url, stuck), ThreadPoolExecutor(len(orders)) as pool:
        waiting_orders = [pool.submit(outcome_of, partial(client.deduct_order, order_id)) for order_id in orders]
        eventually(lambda: waiting(database_url) >= 1)
        assert [outcome_of(partial(client.deduct_order, order_id)) for order_id in free] == [None] * 20
        for _ in range(5):
            client.get_stock(stuck)
            assert server.health() == "SERVING"
        assert {type(each.result()) for each in waiting_orders} == {DatabaseUnavailable}
    assert outcome_of(partial(client.deduct_order, orders[0])) is None


def test_an_order_whose_second_product_is_locked_does_not_hold_up_its_first(
    database_url: str, serve: Serve, connect: Connect
) -> None:
    client = connect(serve(database_url, lock_timeout="500ms", expiry=False))
    stuck, free = stocked(client, 100), stocked(client, 100)

    def order() -> InventoryError | None:
        return outcome_of(lambda: client.reserve_order("both", [(free, 1), (stuck, 1)], ttl=LONG))

    def single() -> InventoryError | None:
        return outcome_of(lambda: client.reserve_stock(free, "one", 1, ttl=LONG))

    with locked(database_url, stuck), ThreadPoolExecutor(40) as pool:
        first = pool.submit(order)
        eventually(lambda: waiting(database_url) == 1)
        calls = [(pool.submit(order), pool.submit(single)) for _ in range(20)]
        assert isinstance(first.result(), DatabaseUnavailable)
        for both, one in calls:
            assert isinstance(both.result(), DatabaseUnavailable)
            assert one.result() is None
    assert balance(client, free) == (80, 20)


def test_an_item_of_a_bulk_call_whose_row_is_locked_fails_alone(
    database_url: str, serve: Serve, connect: Connect
) -> None:
    client = connect(serve(database_url, lock_timeout="300ms", expiry=False))
    stuck, free = held(client), held(client)
    for hold in (stuck, free):
        client.add_stock(hold.product_id, 10)
    with locked(database_url, stuck.product_id):
        made = client.batch_reserve_stock([ReserveItem(each.product_id, "o", 1) for each in (free, stuck, free)])
        assert [isinstance(each, DatabaseUnavailable) for each in made] == [False, True, False]
        ended = client.batch_settle_reservations(
            [SettleItem(each.reservation_id, SettlementAction.DEDUCT) for each in (stuck, free)]
        )
        assert [isinstance(each, DatabaseUnavailable) for each in ended] == [True, False]
    assert balance(client, free.product_id) == (8, 2)
    assert balance(client, stuck.product_id) == (10, 1)

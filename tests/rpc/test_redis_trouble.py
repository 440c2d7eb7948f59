"""Redis slow, gone, emptied or wrong: the answers stay the same."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import redis
from tests.fixtures.entries import Entries, key
from tests.fixtures.refusals import refused
from tests.fixtures.shop import LONG, balance, expire, held, stocked
from tests.fixtures.traffic import selling
from tests.fixtures.waiting import eventually

from inventory_client import (
    InventoryClient,
    ReleaseReason,
    ReservationAlreadyDeducted,
    ReservationAlreadyReleased,
    ReservationNotFound,
    ReservationStatus,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fixtures.serving import Connect, Serve, Server

    from inventory_server.embedded import EmbeddedRedis

Redis = Any  # redis-py types each answer as one that may have to be awaited

ODDITIES: list[object] = [None, True, -1, 2**63, 1.5, "", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", []]
UNKNOWN = "01980c6e-7f4c-7c3e-9d2a-5b8f6a1e0c47"


@pytest.fixture
def store(redis_server: str) -> Iterator[Redis]:
    with redis.Redis.from_url(redis_server, decode_responses=True) as store:
        yield store


@pytest.fixture
def entries(redis_server: str) -> Entries:
    return Entries(redis_server)


def test_a_hold_is_kept_as_the_documented_json_for_as_long_as_it_lasts(
    client: InventoryClient, entries: Entries
) -> None:
    product_id = stocked(client, 3)
    hold = client.reserve_stock(product_id, "order-7", 3, ttl=timedelta(minutes=5))
    entry = entries.of(hold)
    moments = {name: datetime.fromisoformat(entry.pop(name)) for name in ("expiresAt", "createdAt", "updatedAt")}
    assert moments == {"expiresAt": hold.expires_at, "createdAt": hold.created_at, "updatedAt": hold.updated_at}
    assert entry == {
        "reservationId": hold.reservation_id,
        "productId": product_id,
        "orderId": "order-7",
        "quantity": 3,
        "status": "RESERVED",
    }
    assert 270_000 < entries.ttl_ms(hold) <= 300_000


@pytest.mark.parametrize("action", ["release", "deduct", "expire"])
def test_an_entry_is_gone_when_its_hold_has_ended(
    client: InventoryClient, server: Server, entries: Entries, action: str
) -> None:
    hold = held(client)
    entries.of(hold)
    if action == "expire":
        expire(server.database_url, hold.reservation_id)
    elif action == "release":
        client.release_reservation(hold.reservation_id)
    else:
        client.deduct_reservation(hold.reservation_id)
    assert entries.gone(hold)


@pytest.mark.parametrize("ending", ["release", "deduct", "expire"])
def test_a_stale_entry_of_an_ended_hold_never_comes_out_and_never_lets_it_be_settled(
    calm_client: InventoryClient, calm_server: Server, store: Redis, entries: Entries, ending: str
) -> None:
    hold = held(calm_client, quantity=2)
    stale = json.dumps(entries.of(hold))
    if ending == "expire":
        expire(calm_server.database_url, hold.reservation_id)
    elif ending == "release":
        calm_client.release_reservation(hold.reservation_id)
    else:
        calm_client.deduct_reservation(hold.reservation_id)
    if ending != "expire":  # the worker of this server rests
        assert entries.gone(hold)
    store.set(key(hold), stale)
    read = calm_client.get_reservation(hold.reservation_id)
    assert read.status is (ReservationStatus.DEDUCTED if ending == "deduct" else ReservationStatus.RELEASED)
    error = ReservationAlreadyDeducted if ending == "deduct" else ReservationAlreadyReleased
    for settle in (calm_client.deduct_reservation, calm_client.release_reservation):
        store.set(key(hold), stale)
        with pytest.raises(error):
            settle(hold.reservation_id)
    assert balance(calm_client, hold.product_id) == ((0, 0) if ending == "deduct" else (2, 0))


def test_a_forged_entry_is_never_believed(client: InventoryClient, store: Redis, entries: Entries) -> None:
    hold, other = held(client, quantity=2), stocked(client, 50)
    honest = entries.of(hold)
    forgeries: list[dict[str, object]] = [
        {"productId": other},
        {"orderId": "somebody else's"},
        {"quantity": 1_000_000},
        {"expiresAt": "2099-01-01T00:00:00Z"},
        {"status": "DEDUCTED"},
        {"reservationId": UNKNOWN},
    ]
    for forgery in forgeries:
        store.set(key(hold), json.dumps({**honest, **forgery}))
        assert client.get_reservation(hold.reservation_id) == hold
    store.set(f"reservation:{UNKNOWN}", json.dumps({**honest, "reservationId": UNKNOWN}))
    refused(ReservationNotFound, lambda: client.get_reservation(UNKNOWN), reservation_id=UNKNOWN)
    refused(ReservationNotFound, lambda: client.deduct_reservation(UNKNOWN), reservation_id=UNKNOWN)
    store.set(key(hold), json.dumps({**honest, "productId": other, "quantity": 50}))
    assert client.deduct_reservation(hold.reservation_id).quantity == 2
    assert (balance(client, other), balance(client, hold.product_id)) == ((50, 0), (0, 0))


@pytest.mark.parametrize(
    "rubbish",
    [
        "",
        "null",
        "[]",
        "7",
        "{",
        "\x00\xff",
        '{"reservationId": 1}',
        '{"productId": "a\\u0000b", "orderId": "", "quantity": 1, "expiresAt": "", "createdAt": "", "updatedAt": ""}',
        '{"quantity": 1e400}',
        "[" * 100_000,
    ],
    ids=range(10),
)
def test_rubbish_in_redis_changes_no_answer(
    client: InventoryClient, store: Redis, entries: Entries, rubbish: str
) -> None:
    hold = held(client)
    entries.of(hold)
    store.set(key(hold), rubbish)
    assert client.get_reservation(hold.reservation_id) == hold
    store.set(key(hold), rubbish)
    assert client.deduct_reservation(hold.reservation_id).status is ReservationStatus.DEDUCTED


def test_an_odd_moment_or_number_in_an_entry_changes_no_answer(
    client: InventoryClient, store: Redis, entries: Entries
) -> None:
    hold = held(client)
    honest = entries.of(hold)
    for name in honest:
        for odd in ODDITIES:
            store.set(key(hold), json.dumps({**honest, name: odd}))
            assert client.get_reservation(hold.reservation_id) == hold


def test_a_key_of_another_type_changes_no_answer(client: InventoryClient, store: Redis, entries: Entries) -> None:
    hold = held(client)
    entries.of(hold)
    store.delete(key(hold))
    store.rpush(key(hold), "a list")
    assert client.get_reservation(hold.reservation_id) == hold
    assert client.release_reservation(hold.reservation_id).release_reason is ReleaseReason.REQUESTED


def test_redis_that_dies_comes_back_empty_and_is_filled_with_rubbish_mid_traffic_is_not_noticed(
    database_url: str, private_redis: EmbeddedRedis, serve: Serve, connect: Connect
) -> None:
    server = serve(database_url, private_redis.url)
    client = connect(server)
    product_id = stocked(client, 1_000_000)
    lasting = [held(client, product_id) for _ in range(20)]
    with selling(client, product_id) as sales:

        def go_on(rounds: int = 30) -> None:
            goal = sales.rounds + rounds
            eventually(lambda: sales.rounds >= goal)
            assert client.get_reservation(lasting[0].reservation_id) == lasting[0]

        go_on()
        private_redis.kill()
        go_on()
        eventually(lambda: server.health("redis") == "NOT_SERVING")
        assert server.health() == "SERVING"
        private_redis.start()
        eventually(lambda: server.health("redis") == "SERVING")
        with redis.Redis.from_url(private_redis.url) as store:
            for hold in lasting:
                store.set(key(hold), b"\x80rubbish")
            go_on()
            store.flushall()
            go_on()
            store.config_set("maxmemory", "1")  # full: each write is refused
            store.config_set("maxmemory-policy", "noeviction")
            go_on()
    assert sales.errors == []
    sales.check(database_url)
    for hold in lasting:
        assert client.deduct_reservation(hold.reservation_id).status is ReservationStatus.DEDUCTED


def test_redis_that_hangs_costs_no_more_than_a_moment(
    database_url: str, private_redis: EmbeddedRedis, serve: Serve, connect: Connect
) -> None:
    client = connect(serve(database_url, private_redis.url, redis_timeout="50ms", redis_retry="10s"), timeout=3.0)
    product_id = stocked(client, 10)
    with redis.Redis.from_url(private_redis.url) as store:
        store.client_pause(60_000)
    for number in range(5):
        hold = client.reserve_stock(product_id, f"order-{number}", 1, ttl=LONG)
        assert client.get_reservation(hold.reservation_id) == hold
        client.deduct_reservation(hold.reservation_id)
    assert balance(client, product_id) == (5, 0)


def test_a_server_without_redis_serves_the_same(database_url: str, serve: Serve, connect: Connect) -> None:
    server = serve(database_url, "none://")
    client = connect(server)
    hold = held(client)
    assert client.get_reservation(hold.reservation_id) == hold
    assert client.deduct_reservation(hold.reservation_id).status is ReservationStatus.DEDUCTED
    assert (server.health(), server.health("redis")) == ("SERVING", "NOT_SERVING")


def test_a_hold_ended_on_another_server_without_that_redis_is_not_read_as_held(
    database_url: str, redis_url: str, entries: Entries, serve: Serve, connect: Connect
) -> None:
    here, there = connect(serve(database_url, redis_url)), connect(serve(database_url, "none://"))
    hold = held(here)
    entries.of(hold)
    there.deduct_reservation(hold.reservation_id)
    assert entries.now(hold)
    assert here.get_reservation(hold.reservation_id).status is ReservationStatus.DEDUCTED


def test_a_hold_changed_in_the_database_is_told_as_it_is_there(client: InventoryClient, server: Server) -> None:
    hold = held(client)
    with psycopg.connect(server.database_url) as connection:
        connection.execute(
            "UPDATE inventory_reservations SET expires_at = expires_at + interval '1 hour' WHERE reservation_id = %s",
            (hold.reservation_id,),
        )
    assert client.get_reservation(hold.reservation_id).expires_at == hold.expires_at + timedelta(hours=1)

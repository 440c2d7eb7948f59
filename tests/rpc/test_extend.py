"""ExtendReservation: more time for a hold that lives, never for one that has expired, and never less than it had."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from tests.fixtures.carts import ledger, rows
from tests.fixtures.entries import Entries
from tests.fixtures.refusals import refused
from tests.fixtures.shop import LONG, balance, expire, held, stocked
from tests.fixtures.waiting import at_once, eventually

from inventory_client import (
    InvalidReservationId,
    InventoryClient,
    InventoryError,
    ReleaseReason,
    Reservation,
    ReservationAlreadyDeducted,
    ReservationAlreadyReleased,
    ReservationNotFound,
    ReservationStatus,
    ValidationError,
)
from inventory_client.proto.inventory.v1 import inventory_pb2 as pb

if TYPE_CHECKING:
    from tests.fixtures.serving import Connect, Serve, Server

    from inventory_client.proto.inventory.v1.inventory_pb2_grpc import InventoryServiceStub

SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)
synchronous = pytest.mark.parametrize("connect", ["sync"], indirect=True)


def test_a_hold_lasts_for_its_new_ttl_from_now_on(client: InventoryClient, server: Server) -> None:
    hold = held(client, quantity=3)
    before = client.get_stock(hold.product_id)
    extended = client.extend_reservation(hold.reservation_id, 2 * LONG)
    assert extended.expires_at - extended.updated_at == 2 * LONG
    assert extended.updated_at > hold.updated_at
    assert (extended.created_at, extended.status, extended.release_reason) == (hold.created_at, hold.status, None)
    assert client.get_reservation(hold.reservation_id) == extended
    after = client.get_stock(hold.product_id)
    assert (after.available_quantity, after.reserved_quantity, after.version) == (0, 3, before.version + 1)
    query = "SELECT kind, available_delta, reserved_delta, expires_at, reservation_id::text FROM inventory_movements"
    assert rows(server, query + " WHERE product_id = %s AND version = %s", hold.product_id, after.version) == [
        ("EXTEND", 0, 0, extended.expires_at, hold.reservation_id)
    ]
    assert client.deduct_reservation(hold.reservation_id).status is ReservationStatus.DEDUCTED


def test_time_is_never_taken_away(client: InventoryClient) -> None:
    hold = held(client)
    extended = client.extend_reservation(hold.reservation_id, SECOND)
    assert extended.expires_at == hold.expires_at
    assert client.get_reservation(hold.reservation_id) == extended


def test_a_hold_lasts_a_day_from_its_creation_whatever_extends_it(client: InventoryClient) -> None:
    hold = held(client)
    for _ in range(3):
        assert client.extend_reservation(hold.reservation_id, DAY).expires_at == hold.created_at + DAY


def test_the_cap_is_the_servers_and_takes_nothing_away(
    database_url: str, redis_url: str, serve: Serve, connect: Connect
) -> None:
    server = serve(database_url, redis_url, max_hold="90m", expiry=False)
    client = connect(server)
    product_id = stocked(client, 9)
    hold = held(client, product_id)
    assert client.extend_reservation(hold.reservation_id, LONG).expires_at < hold.created_at + timedelta(minutes=90)
    capped = client.extend_reservation(hold.reservation_id, DAY)
    assert capped.expires_at == hold.created_at + timedelta(minutes=90)
    entries = Entries(redis_url)
    entries.up_to_date(client)
    assert datetime.fromisoformat(entries.of(hold)["expiresAt"]) == capped.expires_at
    long = client.reserve_stock(product_id, "order", 1, ttl=DAY)
    assert client.extend_reservation(long.reservation_id, LONG).expires_at == long.expires_at


def test_what_is_wrong_with_a_request_is_told(client: InventoryClient, stub: InventoryServiceStub) -> None:
    hold = held(client)
    unknown = str(uuid4())
    refused(ReservationNotFound, partial(client.extend_reservation, unknown, LONG), reservation_id=unknown)
    refused(InvalidReservationId, partial(client.extend_reservation, "", LONG), fields="reservation_id")
    refused(ValidationError, partial(client.extend_reservation, "7", LONG), fields="reservation_id")
    for ttl in (timedelta(0), -LONG, timedelta(seconds=0.999999), DAY + timedelta(microseconds=1)):
        refused(ValidationError, partial(client.extend_reservation, hold.reservation_id, ttl), fields="ttl")
    with pytest.raises(Exception, match="ttl is missing"):
        stub.ExtendReservation(pb.ExtendReservationRequest(reservation_id=hold.reservation_id))
    assert client.get_reservation(hold.reservation_id) == hold


@pytest.mark.parametrize("ending", ["release", "deduct"])
def test_a_hold_that_has_ended_gets_no_more_time(client: InventoryClient, ending: str) -> None:
    hold = held(client)
    ended = getattr(client, f"{ending}_reservation")(hold.reservation_id)
    call = partial(client.extend_reservation, hold.reservation_id, LONG)
    if ending == "release":
        refused(ReservationAlreadyReleased, call, reservation_id=hold.reservation_id, release_reason="REQUESTED")
    else:
        refused(ReservationAlreadyDeducted, call, reservation_id=hold.reservation_id)
    assert client.get_reservation(hold.reservation_id) == ended


@pytest.mark.parametrize("worker", [False, True])
def test_extending_an_expired_hold_does_not_revive_it(
    server: Server, calm_server: Server, connect: Connect, worker: bool
) -> None:
    where = server if worker else calm_server
    client = connect(where)
    hold = held(client, quantity=2)
    expire(where.database_url, hold.reservation_id)
    if worker:
        eventually(lambda: balance(client, hold.product_id) == (2, 0))
    for _ in range(2):
        refused(
            ReservationAlreadyReleased,
            partial(client.extend_reservation, hold.reservation_id, LONG),
            reservation_id=hold.reservation_id,
            release_reason="EXPIRED",
        )
    assert client.get_reservation(hold.reservation_id).release_reason is ReleaseReason.EXPIRED
    with pytest.raises(ReservationAlreadyReleased):
        client.deduct_reservation(hold.reservation_id)
    assert held(client, hold.product_id, 2).quantity == 2
    assert "EXTEND" not in ledger(where, hold.product_id)


def test_the_entry_in_redis_lives_as_long_as_the_hold(client: InventoryClient, server: Server) -> None:
    hold, entries = held(client), Entries(server.redis_url)
    entries.of(hold)
    assert LONG - timedelta(milliseconds=entries.ttl_ms(hold)) < 30 * SECOND
    extended = client.extend_reservation(hold.reservation_id, 5 * LONG)
    entries.up_to_date(client)
    entry = entries.of(hold)
    assert timedelta(0) <= 5 * LONG - timedelta(milliseconds=entries.ttl_ms(hold)) < 30 * SECOND
    assert datetime.fromisoformat(entry["expiresAt"]) == extended.expires_at
    assert datetime.fromisoformat(entry["updatedAt"]) == extended.updated_at
    client.release_reservation(hold.reservation_id)
    assert entries.gone(hold)


def test_a_replay_leaves_redis_as_it_is(client: InventoryClient, server: Server) -> None:
    product_id, request_id, reserve_id = stocked(client, 1), str(uuid4()), str(uuid4())
    entries = Entries(server.redis_url)
    reserve = partial(client.reserve_stock, product_id, "order", 1, ttl=LONG, request_id=reserve_id)
    hold = reserve()
    extend = partial(client.extend_reservation, hold.reservation_id, 2 * LONG, request_id=request_id)
    first = extend()
    later = client.extend_reservation(hold.reservation_id, 3 * LONG)
    assert (extend(), reserve()) == (first, hold)
    entries.up_to_date(client)
    assert datetime.fromisoformat(entries.of(hold)["expiresAt"]) == later.expires_at
    client.deduct_reservation(hold.reservation_id)
    assert (extend(), reserve()) == (first, hold)
    entries.up_to_date(client)
    assert entries.now(hold) is None


def test_the_worker_does_not_expire_a_hold_at_the_time_it_had_before(client: InventoryClient) -> None:
    product_id = stocked(client, 2)
    hold = client.reserve_stock(product_id, "extended", 1, ttl=SECOND)
    sentinel = client.reserve_stock(product_id, "left alone", 1, ttl=SECOND)
    assert sentinel.expires_at > hold.expires_at
    extended = client.extend_reservation(hold.reservation_id, LONG)
    eventually(lambda: balance(client, product_id) == (1, 1))  # the worker has been there
    assert client.get_reservation(hold.reservation_id) == extended
    assert client.deduct_reservation(hold.reservation_id).status is ReservationStatus.DEDUCTED


def test_an_extended_hold_expires_at_its_new_time(client: InventoryClient) -> None:
    hold = client.reserve_stock(stocked(client, 1), "order", 1, ttl=SECOND)
    extended = client.extend_reservation(hold.reservation_id, 2 * SECOND)
    eventually(lambda: balance(client, hold.product_id) == (1, 0))
    assert client.get_reservation(hold.reservation_id).updated_at >= extended.expires_at


@synchronous
def test_an_extension_comes_before_the_expiry_or_too_late(client: InventoryClient) -> None:
    product_id = stocked(client, 60)
    holds = [client.reserve_stock(product_id, f"order-{number}", 1, ttl=SECOND) for number in range(60)]

    def extend_around_its_end(hold: Reservation) -> Reservation:
        until = hold.expires_at.timestamp() - 0.002
        eventually(lambda: time.time() >= until)
        return client.extend_reservation(hold.reservation_id, LONG)

    answers = at_once([partial(extend_around_its_end, hold) for hold in holds])
    eventually(lambda: datetime.now(UTC) > holds[-1].expires_at + SECOND)
    extended = [answer for answer in answers if not isinstance(answer, InventoryError)]
    eventually(lambda: balance(client, product_id) == (60 - len(extended), len(extended)))
    for hold, answer in zip(holds, answers, strict=True):
        if isinstance(answer, InventoryError):
            assert isinstance(answer, ReservationAlreadyReleased)
            assert answer.release_reason is ReleaseReason.EXPIRED
            assert client.get_reservation(hold.reservation_id).status is ReservationStatus.RELEASED
        else:
            assert answer.updated_at < hold.expires_at
            assert client.get_reservation(hold.reservation_id) == answer


@synchronous
def test_extensions_at_once_of_many_holds_of_one_product_each_count(client: InventoryClient, server: Server) -> None:
    product_id = stocked(client, 40)
    holds = [held(client, product_id) for _ in range(40)]
    ended = holds[::4]
    for hold in ended:
        client.release_reservation(hold.reservation_id)
    version = client.get_stock(product_id).version
    answers = at_once([partial(client.extend_reservation, hold.reservation_id, 2 * LONG) for hold in holds])
    assert [type(answer) for answer in answers[::4]] == [ReservationAlreadyReleased] * 10
    assert sum(isinstance(answer, Reservation) for answer in answers) == 30
    assert client.get_stock(product_id).version == version + 30
    assert ledger(server, product_id).count("EXTEND") == 30

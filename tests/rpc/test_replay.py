"""The same request again answers what the first one did; another request under its id is refused."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest
from tests.fixtures.refusals import refused
from tests.fixtures.shop import LONG, balance, expire, held, stocked
from tests.fixtures.waiting import at_once

from inventory_client import InsufficientStock, InventoryClient, RequestIdConflict, ReservationAlreadyReleased

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fixtures.serving import Connect, Serve, Server

    from inventory_client import Reservation

MUTATIONS = ["initialize", "add", "reserve", "release", "deduct"]


@dataclass
class Subject:
    """What a mutation needs to exist before it."""

    new_product: str
    product_id: str
    hold: Reservation

    @classmethod
    def prepare(cls, client: InventoryClient) -> Subject:
        product_id = stocked(client, 1000)
        return cls(f"new-{uuid4()}", product_id, held(client, product_id, 5))

    def mutation(self, name: str, client: InventoryClient, request_id: str, quantity: int = 3) -> Callable[[], Any]:
        """Give a call that makes that mutation, again and again the same."""
        calls: dict[str, Callable[..., Any]] = {
            "initialize": partial(client.initialize_stock, self.new_product, quantity),
            "add": partial(client.add_stock, self.product_id, quantity, reason="delivery"),
            "reserve": partial(client.reserve_stock, self.product_id, "order", quantity, ttl=LONG),
            "release": partial(client.release_reservation, self.hold.reservation_id),
            "deduct": partial(client.deduct_reservation, self.hold.reservation_id),
        }
        return partial(calls[name], request_id=request_id)


def movements(server: Server, request_id: str) -> int:
    with psycopg.connect(server.database_url) as connection:
        query = "SELECT count(*) FROM inventory_movements WHERE request_id = %s"
        row = connection.execute(query, (request_id,)).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_replay_answers_what_the_first_request_did_whatever_happened_since(
    client: InventoryClient, server: Server, name: str
) -> None:
    subject, request_id = Subject.prepare(client), str(uuid4())
    mutate = subject.mutation(name, client, request_id)
    first = mutate()
    client.add_stock(subject.product_id, 1)
    if name == "initialize":
        client.add_stock(subject.new_product, 1)
    if name == "reserve":
        client.deduct_reservation(first.reservation_id)
    assert mutate() == first
    assert mutate() == first
    assert movements(server, request_id) == 1


@pytest.mark.parametrize("name", MUTATIONS)
def test_fifty_copies_at_once_are_one_mutation(client: InventoryClient, server: Server, name: str) -> None:
    subject, request_id = Subject.prepare(client), str(uuid4())
    answers = at_once([subject.mutation(name, client, request_id)] * 50)
    assert answers == [answers[0]] * 50
    assert movements(server, request_id) == 1


@pytest.mark.parametrize("name", MUTATIONS)
def test_copies_through_two_servers_at_once_are_one_mutation(
    calm_server: Server, twin_server: Server, connect: Connect, name: str
) -> None:
    one, other = connect(calm_server), connect(twin_server)
    for _ in range(5):
        subject, request_id = Subject.prepare(one), str(uuid4())
        answers = at_once([subject.mutation(name, each, request_id) for each in [one, other] * 5])
        assert answers == [answers[0]] * 10
        assert movements(calm_server, request_id) == 1


@pytest.mark.parametrize("second", MUTATIONS)
@pytest.mark.parametrize("first", MUTATIONS)
def test_another_request_under_a_used_id_is_refused(
    client: InventoryClient, server: Server, first: str, second: str
) -> None:
    request_id = str(uuid4())
    Subject.prepare(client).mutation(first, client, request_id)()
    other = Subject.prepare(client)
    before = client.get_stock(other.product_id)
    refused(RequestIdConflict, other.mutation(second, client, request_id), request_id=request_id)
    assert client.get_stock(other.product_id) == before
    assert movements(server, request_id) == 1


@pytest.mark.parametrize("name", ["initialize", "add", "reserve"])
def test_another_quantity_is_another_request(client: InventoryClient, name: str) -> None:
    subject, request_id = Subject.prepare(client), str(uuid4())
    subject.mutation(name, client, request_id)()
    refused(RequestIdConflict, subject.mutation(name, client, request_id, quantity=4), request_id=request_id)


def test_another_order_ttl_or_reason_is_another_request(client: InventoryClient) -> None:
    request_id = str(uuid4())
    product_id = stocked(client, 9)
    client.reserve_stock(product_id, "order", 1, request_id=request_id)
    for order_id, ttl in (("other order", None), ("order", LONG)):
        refused(
            RequestIdConflict,
            partial(client.reserve_stock, product_id, order_id, 1, ttl=ttl, request_id=request_id),
            request_id=request_id,
        )
    request_id = str(uuid4())
    client.add_stock(product_id, 1, request_id=request_id, reason="delivery")
    refused(
        RequestIdConflict,
        partial(client.add_stock, product_id, 1, request_id=request_id, reason="gift"),
        request_id=request_id,
    )


@pytest.mark.parametrize(("first", "second"), [("release", "deduct"), ("deduct", "release")])
def test_a_settlement_cannot_be_turned_into_the_other_one(client: InventoryClient, first: str, second: str) -> None:
    subject, request_id = Subject.prepare(client), str(uuid4())
    subject.mutation(first, client, request_id)()
    refused(RequestIdConflict, subject.mutation(second, client, request_id), request_id=request_id)


def test_a_refused_request_may_be_tried_again_under_its_id(client: InventoryClient) -> None:
    request_id = str(uuid4())
    product_id = stocked(client, 1)
    for _ in range(2):
        refused(
            InsufficientStock,
            lambda: client.reserve_stock(product_id, "order", 2, request_id=request_id),
            product_id=product_id,
            requested=2,
            available=1,
        )
    client.add_stock(product_id, 1)
    assert client.reserve_stock(product_id, "order", 2, request_id=request_id).quantity == 2
    assert balance(client, product_id) == (0, 2)


def test_a_deduct_that_came_too_late_comes_too_late_again(calm_client: InventoryClient, calm_server: Server) -> None:
    request_id = str(uuid4())
    hold = held(calm_client).reservation_id
    expire(calm_server.database_url, hold)
    for _ in range(2):
        refused(
            ReservationAlreadyReleased,
            lambda: calm_client.deduct_reservation(hold, request_id=request_id),
            reservation_id=hold,
            release_reason="EXPIRED",
        )


def test_an_answer_is_the_same_after_a_crash_and_with_another_default_ttl(
    database_url: str, serve: Serve, connect: Connect
) -> None:
    request_id = str(uuid4())
    server = serve(database_url, expiry=False)
    client = connect(server)
    product_id = stocked(client, 9)
    hold = client.reserve_stock(product_id, "order", 1, request_id=request_id)
    server.kill()
    client = connect(serve(database_url, expiry=False, reservation_ttl="3m"))
    assert client.reserve_stock(product_id, "order", 1, request_id=request_id) == hold
    assert balance(client, product_id) == (8, 1)

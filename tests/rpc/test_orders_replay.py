"""Whole orders, corrections, extensions and late payments again: the same request answers what the first one did."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from tests.fixtures.bulk import reasons
from tests.fixtures.carts import cart, made_by
from tests.fixtures.refusals import refused
from tests.fixtures.shop import LONG, balance, expire, fresh, held, stocked
from tests.fixtures.waiting import at_once

from inventory_client import (
    AdjustmentReason,
    InsufficientStock,
    InventoryClient,
    LatePolicy,
    RequestIdConflict,
    Reservation,
    ReservationAlreadyDeducted,
    ReservationAlreadyReleased,
    ReserveItem,
)
from inventory_server.domain import line_ids

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fixtures.serving import Connect, Serve, Server

MUTATIONS = [
    "reserve_order",
    "release_order",
    "extend_order",
    "deduct_order",
    "reacquire_order",
    "extend",
    "adjust",
    "reacquire",
]
OTHERS = ["add", "reserve", "release", "deduct", *MUTATIONS]
MOVEMENTS = {"reserve_order": 3, "release_order": 2, "deduct_order": 2, "extend_order": 2, "reacquire_order": 1}
synchronous = pytest.mark.parametrize("connect", ["sync"], indirect=True)


@dataclass
class Subject:
    """What a mutation needs to exist before it."""

    client: InventoryClient
    products: list[str]
    order_id: str
    holds: tuple[Reservation, ...]
    hold: Reservation
    late: Reservation
    late_order_id: str

    @classmethod
    def prepare(cls, client: InventoryClient, server: Server) -> Subject:
        products = [stocked(client, 1000), stocked(client, 1000)]
        order_id, holds = cart(client, 1, 2)
        late = held(client, products[0], 4)
        late_order_id, (later,) = cart(client, 3)
        expire(server.database_url, late.reservation_id, later.reservation_id)
        return cls(client, products, order_id, holds, held(client, products[1], 5), late, late_order_id)

    def mutation(self, name: str, request_id: str, client: InventoryClient | None = None) -> Callable[[], Any]:
        """Give a call that makes that mutation, again and again the same."""
        client = client or self.client
        teapot, kettle = self.products
        hold_id = self.hold.reservation_id
        lines = [(teapot, 2), (kettle, 1), (teapot, 1)]
        calls: dict[str, Callable[..., Any]] = {
            "add": partial(client.add_stock, teapot, 3),
            "reserve": partial(client.reserve_stock, teapot, "order", 3, ttl=LONG),
            "release": partial(client.release_reservation, hold_id),
            "deduct": partial(client.deduct_reservation, hold_id),
            "reserve_order": partial(client.reserve_order, f"new {self.order_id}", lines, ttl=LONG),
            "release_order": partial(client.release_order, self.order_id),
            "deduct_order": partial(client.deduct_order, self.order_id),
            "extend_order": partial(client.extend_order, self.order_id, 2 * LONG),
            "reacquire_order": partial(client.deduct_order, self.late_order_id, late_policy=LatePolicy.REACQUIRE),
            "extend": partial(client.extend_reservation, hold_id, 2 * LONG),
            "adjust": partial(client.adjust_stock, teapot, -3, AdjustmentReason.DAMAGE),
            "reacquire": partial(client.deduct_reservation, self.late.reservation_id, late_policy=LatePolicy.REACQUIRE),
        }
        return partial(calls[name], request_id=request_id)

    def move_on(self) -> None:
        """Change whatever the mutations above have touched."""
        for product_id in self.products:
            self.client.add_stock(product_id, 1)
            self.client.adjust_stock(product_id, -1, AdjustmentReason.LOSS)
        for hold in self.holds:
            self.client.add_stock(hold.product_id, 9)
            self.client.reserve_stock(hold.product_id, self.order_id, 1, ttl=LONG)


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_replay_answers_what_the_first_request_did_whatever_happened_since(
    client: InventoryClient, server: Server, name: str
) -> None:
    subject, request_id = Subject.prepare(client, server), str(uuid4())
    mutate = subject.mutation(name, request_id)
    first = mutate()
    subject.move_on()
    if name == "reserve_order":
        client.extend_reservation(first[0].reservation_id, 3 * LONG)
        client.release_reservation(first[1].reservation_id)
        client.deduct_reservation(first[2].reservation_id)
    if name == "extend":
        client.extend_reservation(first.reservation_id, 3 * LONG)
        assert mutate() == first
        client.deduct_reservation(first.reservation_id)
    assert mutate() == first
    assert mutate() == first
    assert made_by(server, request_id) == MOVEMENTS.get(name, 1)


@synchronous
@pytest.mark.parametrize("name", MUTATIONS)
def test_fifty_copies_at_once_are_one_mutation(client: InventoryClient, server: Server, name: str) -> None:
    subject, request_id = Subject.prepare(client, server), str(uuid4())
    answers = at_once([subject.mutation(name, request_id)] * 50)
    assert answers == [answers[0]] * 50
    assert made_by(server, request_id) == MOVEMENTS.get(name, 1)


@synchronous
@pytest.mark.parametrize("name", MUTATIONS)
def test_copies_through_two_servers_at_once_are_one_mutation(
    calm_server: Server, twin_server: Server, connect: Connect, name: str
) -> None:
    clients = [connect(calm_server), connect(twin_server)]
    for _ in range(5):
        subject, request_id = Subject.prepare(clients[0], calm_server), str(uuid4())
        answers = at_once([subject.mutation(name, request_id, each) for each in clients * 5])
        assert answers == [answers[0]] * 10
        assert made_by(calm_server, request_id) == MOVEMENTS.get(name, 1)


@synchronous
@pytest.mark.parametrize(
    ("first", "second"), [pair for pair in product(OTHERS, repeat=2) if not set(pair).isdisjoint(MUTATIONS)]
)
def test_another_request_under_a_used_id_is_refused_and_changes_nothing(
    calm_client: InventoryClient, calm_server: Server, first: str, second: str
) -> None:
    request_id = str(uuid4())
    Subject.prepare(calm_client, calm_server).mutation(first, request_id)()
    made = made_by(calm_server, request_id)
    other = Subject.prepare(calm_client, calm_server)
    products = [*other.products, *(hold.product_id for hold in other.holds)]
    before = calm_client.batch_get_stock(products)
    refused(RequestIdConflict, other.mutation(second, request_id), request_id=request_id)
    assert calm_client.batch_get_stock(products) == before
    assert made_by(calm_server, request_id) == made


@pytest.mark.parametrize("ending", ["release", "deduct"])
def test_the_request_of_one_hold_is_not_the_request_of_its_order(client: InventoryClient, ending: str) -> None:
    order_id, holds = cart(client, 1, 2)
    request_id = str(uuid4())
    alone = partial(getattr(client, f"{ending}_reservation"), request_id=request_id)
    whole = partial(getattr(client, f"{ending}_order"), request_id=request_id)
    first = alone(holds[1].reservation_id)
    refused(RequestIdConflict, partial(whole, order_id), request_id=request_id)
    assert client.get_reservation(holds[0].reservation_id) == holds[0]
    assert alone(holds[1].reservation_id) == first

    order_id, holds = cart(client, 1, 2)
    request_id = str(uuid4())
    ended = partial(getattr(client, f"{ending}_order"), order_id, request_id=request_id)()
    alone = partial(getattr(client, f"{ending}_reservation"), holds[0].reservation_id)
    already = {"release": ReservationAlreadyReleased, "deduct": ReservationAlreadyDeducted}
    with pytest.raises(already[ending]):
        alone(request_id=request_id)
    assert [client.get_reservation(hold.reservation_id) for hold in ended] == list(ended)


@pytest.mark.parametrize(("first", "second"), [("release_order", "deduct_order"), ("deduct_order", "release_order")])
def test_the_end_of_an_order_cannot_be_turned_into_the_other_one(
    client: InventoryClient, first: str, second: str
) -> None:
    order_id, holds = cart(client, 1, 2)
    request_id = str(uuid4())
    ended = getattr(client, first)(order_id, request_id=request_id)
    refused(RequestIdConflict, partial(getattr(client, second), order_id, request_id=request_id), request_id=request_id)
    assert [client.get_reservation(hold.reservation_id) for hold in ended] == list(ended)
    assert len(holds) == 2


def test_a_release_of_an_order_with_expired_holds_uses_up_its_request_id(
    calm_client: InventoryClient, calm_server: Server
) -> None:
    for which in (0, 1):
        order_id, holds = cart(calm_client, 1, 2)
        expired, live = sorted(holds, key=lambda hold: hold.reservation_id)[:: 1 - 2 * which]
        expire(calm_server.database_url, expired.reservation_id)
        request_id = str(uuid4())
        first = calm_client.release_order(order_id, request_id=request_id)
        assert [hold.reservation_id for hold in first] == [live.reservation_id]
        assert calm_client.release_order(order_id, request_id=request_id) == first
        for name in ("add", "adjust", "reserve_order", "reserve"):
            other = Subject.prepare(calm_client, calm_server).mutation(name, request_id)
            refused(RequestIdConflict, other, request_id=request_id)


def test_a_deduct_that_found_the_hold_expired_ends_no_order_under_its_id(
    calm_client: InventoryClient, calm_server: Server
) -> None:
    order_id, (expired, live) = cart(calm_client, 1, 2)
    expire(calm_server.database_url, expired.reservation_id)
    request_id = str(uuid4())
    with pytest.raises(ReservationAlreadyReleased):
        calm_client.deduct_reservation(expired.reservation_id, request_id=request_id)
    released = calm_client.release_order(order_id, request_id=request_id)
    assert [hold.reservation_id for hold in released] == [live.reservation_id]
    assert balance(calm_client, live.product_id) == (2, 0)


def test_other_lines_another_ttl_or_another_order_are_another_request(client: InventoryClient) -> None:
    teapot, kettle, request_id = stocked(client, 99), stocked(client, 99), str(uuid4())
    lines = [(teapot, 2), (kettle, 1)]
    first = client.reserve_order("order", lines, ttl=LONG, request_id=request_id)
    for order_id, other, ttl in [
        ("another order", lines, LONG),
        ("order", lines[::-1], LONG),
        ("order", lines[:1], LONG),
        ("order", [*lines, (kettle, 1)], LONG),
        ("order", [(teapot, 2), (kettle, 2)], LONG),
        ("order", [(teapot, 1), (teapot, 1), (kettle, 1)], LONG),
        ("order", lines, LONG + timedelta(microseconds=1)),
        ("order", lines, None),
    ]:
        call = partial(client.reserve_order, order_id, other, ttl=ttl, request_id=request_id)
        refused(RequestIdConflict, call, request_id=request_id)
    single = partial(client.reserve_stock, teapot, "order", 2, ttl=LONG, request_id=request_id)
    refused(RequestIdConflict, single, request_id=request_id)
    assert client.reserve_order("order", lines, ttl=LONG, request_id=request_id) == first
    assert balance(client, teapot) == (97, 2)


def test_what_differs_in_a_correction_or_an_extension_makes_another_request(client: InventoryClient) -> None:
    product_id, other, request_id = stocked(client, 9), stocked(client, 9), str(uuid4())
    count, loss = AdjustmentReason.COUNT, AdjustmentReason.LOSS
    first = client.adjust_stock(product_id, 1, count, expected_version=1, request_id=request_id)
    for call in (
        partial(client.adjust_stock, product_id, -1, count, expected_version=1),
        partial(client.adjust_stock, product_id, 1, loss, expected_version=1),
        partial(client.adjust_stock, other, 1, count, expected_version=1),
        partial(client.adjust_stock, product_id, 1, count, expected_version=2),
        partial(client.adjust_stock, product_id, 1, count, expected_version=2**63 - 1),
        partial(client.add_stock, product_id, 1, reason="COUNT"),
    ):
        refused(RequestIdConflict, partial(call, request_id=request_id), request_id=request_id)
    assert client.adjust_stock(product_id, 1, count, expected_version=1, request_id=request_id) == first

    hold, another, request_id = held(client), held(client), str(uuid4())
    ttl = timedelta(hours=2, microseconds=1)
    extended = client.extend_reservation(hold.reservation_id, ttl, request_id=request_id)
    microsecond = timedelta(microseconds=1)
    for hold_id, other_ttl in (
        (hold.reservation_id, ttl + microsecond),
        (hold.reservation_id, ttl - microsecond),
        (another.reservation_id, ttl),
    ):
        extend = partial(client.extend_reservation, hold_id, other_ttl, request_id=request_id)
        refused(RequestIdConflict, extend, request_id=request_id)
    assert client.extend_reservation(hold.reservation_id, ttl, request_id=request_id) == extended


def test_the_id_of_an_orders_hold_is_no_request_id_of_anybody_else(client: InventoryClient) -> None:
    product_id, order_id = stocked(client, 10), fresh("order")
    holds = client.reserve_order(order_id, [(product_id, 2), (product_id, 2)], ttl=LONG)
    for hold in holds:
        again = ReserveItem(product_id, order_id, 2, ttl=LONG, request_id=hold.reservation_id)
        reserve = partial(client.reserve_stock, product_id, order_id, 2, ttl=LONG, request_id=again.request_id)
        refused(RequestIdConflict, reserve, request_id=again.request_id)
        assert reasons(client.batch_reserve_stock([again, again])) == ["REQUEST_ID_CONFLICT"] * 2
        # Nor is it once it has made something else.
        client.add_stock(product_id, 1, request_id=again.request_id)
        refused(RequestIdConflict, reserve, request_id=again.request_id)
    assert balance(client, product_id) == (8, 4)


def test_an_order_whose_hold_somebody_made_before_is_refused(client: InventoryClient) -> None:
    product_id, order_id, request_id = stocked(client, 10), fresh("order"), str(uuid4())
    lines = [(product_id, 2), (product_id, 1)]
    second = line_ids(request_id, ascii((order_id, 3_600_000_000, lines)), 2)[1]
    client.reserve_stock(product_id, order_id, 1, ttl=LONG, request_id=second)
    order = partial(client.reserve_order, order_id, lines, ttl=LONG, request_id=request_id)
    refused(RequestIdConflict, order, request_id=request_id)
    first = line_ids(request_id, ascii((order_id, 3_600_000_000, lines)), 2)[0]
    client.reserve_stock(product_id, order_id, 2, ttl=LONG, request_id=first)
    refused(RequestIdConflict, order, request_id=request_id)
    assert balance(client, product_id) == (7, 3)


def test_a_request_may_choose_an_id_like_that_of_an_orders_hold(client: InventoryClient) -> None:
    product_id, request_id = stocked(client, 10), str(uuid4())
    like = f"{request_id[:14]}8{request_id[15:]}"
    reserve = partial(client.reserve_stock, product_id, "order", 2, ttl=LONG, request_id=like)
    assert reserve() == reserve()
    assert balance(client, product_id) == (8, 2)


def test_a_policy_or_an_expected_version_does_not_tell_a_request_from_its_replay(client: InventoryClient) -> None:
    hold, request_id = held(client, quantity=2), str(uuid4())
    deduct = partial(client.deduct_reservation, hold.reservation_id, request_id=request_id)
    assert deduct() == deduct(late_policy=LatePolicy.REACQUIRE)

    product_id, request_id = stocked(client, 9), str(uuid4())
    adjust = partial(client.adjust_stock, product_id, -1, AdjustmentReason.DAMAGE, request_id=request_id)
    assert adjust(expected_version=1) == adjust() == adjust(expected_version=1)
    refused(RequestIdConflict, partial(adjust, expected_version=2), request_id=request_id)


def test_a_refused_order_may_be_tried_again_under_its_id(client: InventoryClient) -> None:
    product_id, order_id, request_id = stocked(client, 1), fresh("order"), str(uuid4())
    reserve = partial(client.reserve_order, order_id, [(product_id, 2)], ttl=LONG, request_id=request_id)
    for _ in range(2):
        with pytest.raises(InsufficientStock):
            reserve()
    client.add_stock(product_id, 1)
    assert reserve()[0].quantity == 2


def test_the_answers_are_the_same_after_a_crash_and_with_another_default_ttl(
    database_url: str, serve: Serve, connect: Connect
) -> None:
    server = serve(database_url, expiry=False)
    subject = Subject.prepare(connect(server), server)
    calls = {name: str(uuid4()) for name in MUTATIONS if name != "release_order"}
    answers = {name: subject.mutation(name, request_id)() for name, request_id in calls.items()}
    lines, request_id = [(subject.products[0], 1)], str(uuid4())
    default = subject.client.reserve_order("default ttl", lines, request_id=request_id)
    server.kill()
    client = connect(serve(database_url, expiry=False, reservation_ttl="3m", max_hold="1m"))
    assert {name: subject.mutation(name, calls[name], client)() for name in calls} == answers
    assert client.reserve_order("default ttl", lines, request_id=request_id) == default

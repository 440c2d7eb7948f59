"""Any sequence of whole orders, bulk calls, corrections, extensions and late payments, also several of them at once,
does what a simple model of the contract says.

In the model a hold that has expired is over. Whether its units are already counted as available is nobody's promise
until somebody needs them: no worker runs, so that the model meets both.
"""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass, field
from functools import partial
from itertools import permutations
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.fixtures.ledger import audit
from tests.fixtures.serving import connected
from tests.fixtures.shop import LONG, expire
from tests.fixtures.waiting import at_once

from inventory_client import (
    AdjustmentReason,
    InsufficientStock,
    InventoryClient,
    InventoryError,
    LatePolicy,
    ProductNotFound,
    ReserveItem,
    SettleItem,
    SettlementAction,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.fixtures.serving import Server

    from inventory_client import Reservation

PRODUCTS = ("teapot", "kettle", "cup")
LINES = st.lists(st.tuples(st.sampled_from((*PRODUCTS, "unknown")), st.integers(1, 6)), min_size=1, max_size=4)
ORDERS = st.sampled_from(["first", "second", "third"])
ENDINGS = ("REQUESTED", "DEDUCTED")
PICK = st.integers(0, 10**6)


@dataclass
class Hold:
    order: str
    product: str
    quantity: int
    made: int
    status: str = "RESERVED"  # or EXPIRED, REQUESTED, DEDUCTED


class Refused(Exception):
    """The model refuses, with the reason of the contract."""


@dataclass
class Model:
    """The contract in plain Python: units that came in and did not leave, and holds."""

    units: dict[str, int]
    holds: dict[str, Hold] = field(default_factory=dict)
    requests: int = 0

    def free(self, product: str) -> int:
        return self.units[product] - self.live(product)

    def live(self, product: str) -> int:
        return sum(h.quantity for h in self.holds.values() if (h.product, h.status) == (product, "RESERVED"))

    def short(self, lines: Sequence[tuple[str, int]]) -> dict[str, tuple[int, int | None]]:
        """Name what an order asks too much of: requested and free, None for a product without a record."""
        wanted: dict[str, int] = {}
        for product, quantity in lines:
            wanted[product] = wanted.get(product, 0) + quantity
        free = {product: self.free(product) if product in self.units else None for product in wanted}
        return {product: (n, free[product]) for product, n in wanted.items() if n > (free[product] or 0)}

    def reserve(self, keys: Sequence[str], order: str, lines: Sequence[tuple[str, int]]) -> None:
        short = self.short(lines)
        if short:
            known = any(free is not None for _, free in short.values())
            raise Refused("INSUFFICIENT_STOCK" if known else "PRODUCT_NOT_FOUND")
        self.requests += 1
        for key, (product, quantity) in zip(keys, lines, strict=True):
            self.holds[key] = Hold(order, product, quantity, self.requests)

    def settle(self, key: str, ending: str, *, late: bool = False) -> None:
        hold = self.holds[key]
        if late and hold.status == "EXPIRED":
            if self.free(hold.product) < hold.quantity:
                raise Refused("INSUFFICIENT_STOCK")
        elif hold.status != "RESERVED":
            raise Refused(already(hold))
        self.end(hold, ending)

    def settle_order(self, order: str, ending: str) -> None:
        holds = [hold for hold in self.holds.values() if hold.order == order]
        if not holds:
            raise Refused("RESERVATION_NOT_FOUND")
        live = [hold for hold in holds if hold.status == "RESERVED"]
        gone = [hold for hold in holds if hold.status in {"EXPIRED", "REQUESTED"} and not self.made_again(hold)]
        if not live or (gone and ending == "DEDUCTED"):
            raise Refused("RESERVATION_ALREADY_RELEASED" if gone else "RESERVATION_ALREADY_DEDUCTED")
        for hold in live:
            self.end(hold, ending)

    def made_again(self, gone: Hold) -> bool:
        """Tell whether later holds took as many units as expired with this one, or any where it was given back."""
        alike = [hold for hold in self.holds.values() if (hold.order, hold.product) == (gone.order, gone.product)]
        kept = sum(h.quantity for h in alike if h.made > gone.made and h.status in {"RESERVED", "DEDUCTED"})
        lost = sum(h.quantity for h in alike if h.made == gone.made and h.status in {"EXPIRED", "REQUESTED"})
        return kept >= (1 if gone.status == "REQUESTED" else lost)

    def extend(self, key: str) -> None:
        if self.holds[key].status != "RESERVED":
            raise Refused(already(self.holds[key]))

    def end(self, hold: Hold, ending: str) -> None:
        hold.status = ending
        if ending == "DEDUCTED":
            self.units[hold.product] -= hold.quantity


def already(hold: Hold) -> str:
    return "RESERVATION_ALREADY_DEDUCTED" if hold.status == "DEDUCTED" else "RESERVATION_ALREADY_RELEASED"


class Step(NamedTuple):
    """One request: what the model does about it, and the call. `keys` name the holds it makes."""

    expect: Callable[[Model], None]
    call: Callable[[], Any]
    keys: tuple[str, ...] = ()


def reason(expect: Callable[[Model], None], model: Model) -> str | None:
    try:
        expect(model)
    except Refused as refusal:
        return str(refusal)
    return None


class Shop(RuleBasedStateMachine):
    """Drives server and model side by side. `client` and `database_url` are set by the test."""

    client: InventoryClient
    database_url: str

    def __init__(self) -> None:
        super().__init__()
        self.suffix = f"-{uuid4()}"
        self.model = Model({})
        self.ids: dict[str, str] = {}  # of the model's holds
        self.done: list[tuple[Callable[[], Any], Any]] = []

    def name(self, word: str) -> str:
        return word + self.suffix

    def pick(self, number: int) -> str:
        return list(self.model.holds)[number % len(self.model.holds)]

    def has_holds(self) -> bool:
        return bool(self.model.holds)

    def take(self, step: Step) -> Any:
        """Make one call: server and model must both do it or refuse it for the same reason."""
        (answer,) = self.race([step])
        return answer

    def race(self, steps: Sequence[Step]) -> list[Any]:
        """Make calls at once: there must be an order in which the model answers the same, and is then as the server."""
        answers = at_once([step.call for step in steps])
        told = [answer.reason if isinstance(answer, InventoryError) else None for answer in answers]
        for step, answer in zip(steps, answers, strict=True):
            if not isinstance(answer, InventoryError):
                if step.keys:
                    self.ids.update(zip(step.keys, (hold.reservation_id for hold in answer), strict=True))
                self.done.append((step.call, answer))
        possible = []
        for turn in permutations(range(len(steps))):
            model = copy.deepcopy(self.model)
            expected = {number: reason(steps[number].expect, model) for number in turn}
            # Where a hold is made while its order ends, the answers do not tell which came first.
            if told == [expected[number] for number in range(len(steps))] and (len(steps) == 1 or self.is_like(model)):
                self.model = model
                return answers
            possible.append(expected)
        raise AssertionError(f"told {told}, but possible is only {possible}")

    def is_like(self, model: Model) -> bool:
        """Tell whether the server has each hold where the model has it."""
        told = {"RESERVED": ("RESERVED", None), "DEDUCTED": ("DEDUCTED", None)}
        for key, hold in model.holds.items():
            read = self.client.get_reservation(self.ids[key])
            if (read.status, read.release_reason) != told.get(hold.status, ("RELEASED", hold.status)):
                return False
        return True

    def reserving(self, order: str, lines: Sequence[tuple[str, int]]) -> Step:
        request_id = str(uuid4())
        keys = tuple(f"{request_id} {number}" for number in range(len(lines)))
        named = [(self.name(product), quantity) for product, quantity in lines]
        call = partial(self.client.reserve_order, self.name(order), named, ttl=LONG, request_id=request_id)
        return Step(lambda model: model.reserve(keys, order, lines), call, keys)

    def settling(self, key: str, ending: str, *, late: bool = False) -> Step:
        if ending == "DEDUCTED":
            policy = LatePolicy.REACQUIRE if late else LatePolicy.STRICT
            call = partial(self.client.deduct_reservation, self.ids[key], late_policy=policy, request_id=uuid4())
        else:
            call = partial(self.client.release_reservation, self.ids[key], request_id=uuid4())
        return Step(lambda model: model.settle(key, ending, late=late), call)

    def settling_order(self, order: str, ending: str) -> Step:
        settle = self.client.deduct_order if ending == "DEDUCTED" else self.client.release_order
        call = partial(settle, self.name(order), request_id=uuid4())
        return Step(lambda model: model.settle_order(order, ending), call)

    @initialize(quantities=st.tuples(*[st.integers(0, 20)] * len(PRODUCTS)))
    def open(self, quantities: tuple[int, ...]) -> None:
        for product, quantity in zip(PRODUCTS, quantities, strict=True):
            self.client.initialize_stock(self.name(product), quantity)
            self.model.units[product] = quantity

    @rule(order=ORDERS, lines=LINES)
    def reserve_order(self, order: str, lines: list[tuple[str, int]]) -> None:
        short = self.model.short(lines)
        answer = self.take(self.reserving(order, lines))
        if isinstance(answer, (InsufficientStock, ProductNotFound)) and len(lines) > 1:
            assert {line.product_id: line[1:] for line in answer.lines} == {self.name(p): n for p, n in short.items()}
        elif not isinstance(answer, InventoryError):
            assert [(hold.product_id, hold.quantity) for hold in answer] == [(self.name(p), n) for p, n in lines]

    @rule(order=ORDERS, lines=LINES)
    def reserve_in_bulk(self, order: str, lines: list[tuple[str, int]]) -> None:
        items = [ReserveItem(self.name(product), self.name(order), quantity, LONG) for product, quantity in lines]
        outcomes = self.client.batch_reserve_stock(items)
        for item, line, outcome in zip(items, lines, outcomes, strict=True):
            key = f"{item.request_id} alone"
            expected = reason(lambda model, line=line, key=key: model.reserve([key], order, [line]), self.model)  # type: ignore[misc]
            assert expected == (outcome.reason if isinstance(outcome, InventoryError) else None)
            self.ids[key] = str(item.request_id)
        # Those of one call are made at one moment: none of them was made again by another.
        for item in items:
            hold = self.model.holds.get(f"{item.request_id} alone")
            if hold is not None:
                hold.made = self.model.requests
        self.done.append((partial(self.holds_made, items), self.holds_made(items)))

    def holds_made(self, items: list[ReserveItem]) -> list[Reservation | None]:
        """Reserve again those items that were done."""
        done = [item for item in items if f"{item.request_id} alone" in self.model.holds]
        again = self.client.batch_reserve_stock(done) if done else ()
        assert not any(isinstance(outcome, InventoryError) for outcome in again)
        return list(again)  # type: ignore[arg-type]

    @precondition(has_holds)
    @rule(number=PICK, ending=st.sampled_from(ENDINGS), late=st.booleans())
    def settle(self, number: int, ending: str, late: bool) -> None:
        self.take(self.settling(self.pick(number), ending, late=late and ending == "DEDUCTED"))

    @precondition(has_holds)
    @rule(numbers=st.lists(PICK, min_size=1, max_size=5), late=PICK, endings=st.tuples(*[st.sampled_from(ENDINGS)] * 5))
    def settle_in_bulk(self, numbers: list[int], late: int, endings: tuple[str, ...]) -> None:
        keys = list(dict.fromkeys(self.pick(number) for number in numbers))
        last = keys[late % len(keys)]  # the one that may be paid late: it gets what the others leave
        fates = {key: "DEDUCTED" if key == last else ending for key, ending in zip(keys, endings, strict=False)}
        actions = {"DEDUCTED": SettlementAction.DEDUCT, "REQUESTED": SettlementAction.RELEASE}
        outcomes = self.client.batch_settle_reservations(
            SettleItem(self.ids[key], actions[fates[key]], LatePolicy.REACQUIRE if key == last else LatePolicy.STRICT)
            for key in keys
        )
        told = dict(zip(keys, outcomes, strict=True))
        for key in sorted(keys, key=lambda key: key == last):
            step = self.settling(key, fates[key], late=key == last)
            outcome = told[key]
            assert reason(step.expect, self.model) == (outcome.reason if isinstance(outcome, InventoryError) else None)

    @rule(order=ORDERS, ending=st.sampled_from(ENDINGS))
    def settle_order(self, order: str, ending: str) -> None:
        before = copy.deepcopy(self.model.holds)
        answer = self.take(self.settling_order(order, ending))
        ended = [key for key, hold in self.model.holds.items() if hold != before[key]]
        if not isinstance(answer, InventoryError):
            assert [hold.reservation_id for hold in answer] == sorted(self.ids[key] for key in ended)

    @precondition(has_holds)
    @rule(number=PICK)
    def extend(self, number: int) -> None:
        key = self.pick(number)
        call = partial(self.client.extend_reservation, self.ids[key], 2 * LONG, request_id=uuid4())
        self.take(Step(lambda model: model.extend(key), call))

    @rule(product=st.sampled_from(PRODUCTS), delta=st.integers(-8, 8).filter(bool), stale=st.integers(0, 1))
    def adjust(self, product: str, delta: int, stale: int) -> None:
        stock = self.client.get_stock(self.name(product))

        def expect(model: Model) -> None:
            if stale and stock.version > 1:
                raise Refused("VERSION_MISMATCH")
            # Not what only an expiry would give back: see the head of this file.
            if stock.available_quantity + delta < 0:
                raise Refused("INSUFFICIENT_STOCK")
            model.units[product] += delta

        version = max(1, stock.version - stale)
        count = partial(self.client.adjust_stock, self.name(product), delta, AdjustmentReason.COUNT)
        self.take(Step(expect, partial(count, expected_version=version, request_id=uuid4())))

    @precondition(has_holds)
    @rule(number=PICK)
    def let_expire(self, number: int) -> None:
        key = self.pick(number)
        if self.model.holds[key].status == "RESERVED":
            expire(self.database_url, self.ids[key])
            self.model.holds[key].status = "EXPIRED"

    @precondition(has_holds)
    @rule(number=PICK, order=ORDERS, lines=LINES, kinds=st.permutations(range(5)))
    def many_at_once(self, number: int, order: str, lines: list[tuple[str, int]], kinds: list[int]) -> None:
        key = self.pick(number)
        steps = [
            self.settling_order(self.model.holds[key].order, "DEDUCTED"),
            self.settling_order(self.model.holds[key].order, "REQUESTED"),
            self.settling(key, "DEDUCTED", late=True),
            self.settling(key, "REQUESTED"),
            self.reserving(order, lines),
        ]
        self.race([steps[kind] for kind in kinds[:3]])

    @rule(number=PICK)
    def repeat(self, number: int) -> None:
        if self.done:
            call, answer = self.done[number % len(self.done)]
            assert call() == answer

    @invariant()
    def every_unit_is_where_the_model_has_it(self) -> None:
        for product, units in self.model.units.items():
            stock = self.client.get_stock(self.name(product))
            assert stock.available_quantity + stock.reserved_quantity == units
            assert stock.reserved_quantity >= self.model.live(product)

    def teardown(self) -> None:
        assert self.is_like(self.model)
        audit(self.database_url)


@pytest.mark.timeout(600)
def test_the_service_does_what_the_model_of_orders_does(calm_server: Server) -> None:
    with connected(calm_server) as client:

        class ShopOnThisServer(Shop):
            pass

        ShopOnThisServer.client = client
        ShopOnThisServer.database_url = calm_server.database_url
        run_state_machine_as_test(
            ShopOnThisServer,
            settings=settings(
                max_examples=25,
                stateful_step_count=30,
                deadline=None,
                derandomize="CI" in os.environ,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )

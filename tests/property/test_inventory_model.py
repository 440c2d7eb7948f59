"""Any sequence of operations answers what a simple model of the contract says, and the ledger proves every unit.

No worker runs, so that the model knows when an expired hold is tidied up: when it is settled, or when a reserve of its
product falls short.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from tests.fixtures.ledger import audit
from tests.fixtures.serving import connected
from tests.fixtures.shop import LONG, expire

from inventory_client import InventoryClient, InventoryError, Reservation, Stock

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fixtures.serving import Server

PRODUCTS = st.sampled_from(["teapot", "kettle", "unknown"])
QUANTITIES = st.integers(min_value=1, max_value=12)


@dataclass
class Record:
    available: int
    reserved: int = 0
    version: int = 1


@dataclass
class Hold:
    product: str
    quantity: int
    status: str = "RESERVED"  # RESERVED, EXPIRING (nobody has noticed yet), EXPIRED, REQUESTED or DEDUCTED


class Refused(Exception):
    """The model refuses, with the reason of the contract."""


class Model:
    """The contract in plain Python."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.holds: dict[str, Hold] = {}

    def initialize(self, product: str, quantity: int) -> bool:
        created = product not in self.records
        self.records.setdefault(product, Record(quantity))
        return created

    def add(self, product: str, quantity: int) -> None:
        record = self.record(product)
        record.available += quantity
        record.version += 1

    def reserve(self, hold_id: str, product: str, quantity: int) -> None:
        record = self.record(product)
        if record.available < quantity:
            for hold in self.holds.values():
                if (hold.product, hold.status) == (product, "EXPIRING"):
                    self.end(hold, "EXPIRED")
        if record.available < quantity:
            raise Refused("INSUFFICIENT_STOCK")
        record.available -= quantity
        record.reserved += quantity
        record.version += 1
        self.holds[hold_id] = Hold(product, quantity)

    def settle(self, hold_id: str, ending: str) -> None:
        hold = self.holds[hold_id]
        if hold.status == "EXPIRING":
            self.end(hold, "EXPIRED")
        elif hold.status == "RESERVED":
            self.end(hold, ending)
            return
        raise Refused("RESERVATION_ALREADY_DEDUCTED" if hold.status == "DEDUCTED" else "RESERVATION_ALREADY_RELEASED")

    def end(self, hold: Hold, status: str) -> None:
        record = self.records[hold.product]
        record.reserved -= hold.quantity
        record.available += 0 if status == "DEDUCTED" else hold.quantity
        record.version += 1
        hold.status = status

    def record(self, product: str) -> Record:
        if product not in self.records:
            raise Refused("PRODUCT_NOT_FOUND")
        return self.records[product]


class Shop(RuleBasedStateMachine):
    """Drives server and model side by side. `client` and `database_url` are set by the test."""

    client: InventoryClient
    database_url: str
    holds: Bundle[str] = Bundle("holds")
    done: Bundle[tuple[Callable[[], Any], Any]] = Bundle("done")

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.suffix = f"-{uuid4()}"

    def name(self, product: str) -> str:
        return product + self.suffix

    def agree(self, expect: Callable[[], object], call: Callable[[], Any]) -> tuple[Callable[[], Any], Any] | None:
        """Make a call; server and model must both do it or refuse it for the same reason."""
        expected = told = None
        answer: Any = None
        try:
            expect()
        except Refused as refusal:
            expected = str(refusal)
        try:
            answer = call()
        except InventoryError as error:
            told = error.reason
        assert told == expected
        return None if told else (call, answer)

    @initialize(quantity=QUANTITIES)
    def open(self, quantity: int) -> None:
        self.model.initialize("teapot", quantity)
        assert self.client.initialize_stock(self.name("teapot"), quantity).created

    @rule(product=st.sampled_from(["teapot", "kettle"]), quantity=st.integers(min_value=0, max_value=12))
    def initialize_stock(self, product: str, quantity: int) -> None:
        created = self.model.initialize(product, quantity)
        assert self.client.initialize_stock(self.name(product), quantity).created == created

    @rule(target=done, product=PRODUCTS, quantity=QUANTITIES)
    def add(self, product: str, quantity: int) -> Any:
        call = partial(self.client.add_stock, self.name(product), quantity, request_id=uuid4())
        return self.agree(partial(self.model.add, product, quantity), call)

    @rule(target=holds, product=PRODUCTS, quantity=QUANTITIES)
    def reserve(self, product: str, quantity: int) -> Any:
        hold_id = str(uuid4())
        call = partial(self.client.reserve_stock, self.name(product), "order", quantity, ttl=LONG, request_id=hold_id)
        made = self.agree(partial(self.model.reserve, hold_id, product, quantity), call)
        if made is None:
            return hold_id
        assert made[1].reservation_id == hold_id
        assert call() == made[1]
        return hold_id

    @rule(target=done, hold_id=holds, ending=st.sampled_from(["DEDUCTED", "REQUESTED"]))
    def settle(self, hold_id: str, ending: str) -> Any:
        settle = self.client.deduct_reservation if ending == "DEDUCTED" else self.client.release_reservation
        if hold_id not in self.model.holds:
            return None
        call = partial(settle, hold_id, request_id=uuid4())
        return self.agree(partial(self.model.settle, hold_id, ending), call)

    @rule(hold_id=holds)
    def let_expire(self, hold_id: str) -> None:
        hold = self.model.holds.get(hold_id)
        if hold is not None and hold.status == "RESERVED":
            expire(self.database_url, hold_id)
            hold.status = "EXPIRING"

    @rule(replay=consumes(done))
    def repeat(self, replay: tuple[Callable[[], Any], Any] | None) -> None:
        if replay is not None:
            call, answer = replay
            assert call() == answer

    @rule(hold_id=holds)
    def read_hold(self, hold_id: str) -> None:
        hold = self.model.holds.get(hold_id)
        read = partial(self.client.get_reservation, hold_id)
        if hold is None:
            with pytest.raises(InventoryError, match="There is no reservation"):
                read()
            return
        told: Reservation = read()
        status = {"RESERVED": "RESERVED", "DEDUCTED": "DEDUCTED"}.get(hold.status, "RELEASED")
        reason = {"REQUESTED": "REQUESTED", "EXPIRED": "EXPIRED", "EXPIRING": "EXPIRED"}.get(hold.status)
        assert (told.quantity, told.status, told.release_reason) == (hold.quantity, status, reason)

    @invariant()
    def balances_agree(self) -> None:
        for product, record in self.model.records.items():
            stock: Stock = self.client.get_stock(self.name(product))
            assert (stock.available_quantity, stock.reserved_quantity, stock.version) == (
                record.available,
                record.reserved,
                record.version,
            )

    def teardown(self) -> None:
        audit(self.database_url)


@pytest.mark.timeout(300)
def test_the_service_does_what_the_model_does(calm_server: Server) -> None:
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

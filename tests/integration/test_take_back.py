"""What a statement that falls short takes back of expired holds: enough to go on, and never so much that it fails."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from tests.fixtures.ledgers import HOUR_US, Ledgers

from inventory_server.postgres.queries import query

if TYPE_CHECKING:
    from collections.abc import Iterator

PRODUCTS, HOLDS = 100, 40
# What one statement takes back at most, and one more for each product beyond that.
MOST = 2000 + PRODUCTS


class Shop(Ledgers):
    """A shop whose stock is all in holds that expired an hour ago, and where no worker runs."""

    def fill(self, products: int, holds: int) -> list[str]:
        names = [f"p{number}" for number in range(products)]
        self.run(
            "INSERT INTO inventory_stock SELECT p, 0, %s, 1, now(), now() FROM unnest(%s::text[]) AS p", (holds, names)
        )
        self.run(
            "INSERT INTO inventory_reservations (reservation_id, product_id, order_id, quantity, status, ttl_us,"
            " ttl_given, created_at, expires_at, updated_at, tidy_at)"
            " SELECT gen_random_uuid(), p, 'old', 1, 'RESERVED', 1, true, x.then, x.then, x.then, x.then"
            " FROM unnest(%s::text[]) AS p CROSS JOIN generate_series(1, %s)"
            " CROSS JOIN (SELECT now() - interval '1 hour' AS then) x",
            (names, holds),
        )
        return names

    def ask(self, products: list[str], quantity: int) -> list[tuple[str, int, int]]:
        """Reserve some of each product in one statement, an order each; give outcomes, available and left units."""
        places = list(range(1, len(products) + 1))
        ids = [str(uuid4()) for _ in products]
        rows = self.run(
            query("reserve"),
            (
                products,
                places,
                places,
                ["order"] * len(products),
                [quantity] * len(products),
                [HOUR_US] * len(products),
                [True] * len(products),
                ids,
                ids,
                [0] * len(products),
                False,
            ),
        )
        return [row[:3] for row in rows]

    def taken_back(self) -> int:
        ((count,),) = self.run("SELECT count(*) FROM inventory_reservations WHERE release_reason = 'EXPIRED'")
        return int(count)


@pytest.fixture
def shop(database_url: str) -> Iterator[Shop]:
    with Shop(database_url) as shop:
        yield shop


def test_a_reserve_takes_back_a_bounded_number_of_holds_and_something_of_each_product_that_is_short(
    shop: Shop,
) -> None:
    names = shop.fill(PRODUCTS, HOLDS)
    answers = shop.ask(names, HOLDS)
    assert 1000 < shop.taken_back() <= MOST
    assert {outcome for outcome, *_ in answers} == {"RESERVED", "REFUSED"}
    for outcome, available, left in answers:
        if outcome == "REFUSED":
            assert available > 0
            assert available + left == HOLDS
    rounds = 1
    while any(outcome == "REFUSED" for outcome, *_ in answers):
        names = [name for name, (outcome, *_) in zip(names, answers, strict=True) if outcome == "REFUSED"]
        answers = shop.ask(names, HOLDS)
        rounds += 1
        assert shop.taken_back() <= rounds * MOST
        assert rounds <= PRODUCTS
    assert shop.taken_back() == PRODUCTS * HOLDS


def test_a_late_payment_takes_back_a_bounded_number_of_holds_and_something_of_each_product(shop: Shop) -> None:
    names = shop.fill(PRODUCTS, HOLDS)
    shop.run(query("tidy"), (names,))
    assert shop.taken_back() == 2000
    assert shop.run("SELECT DISTINCT available_quantity FROM inventory_stock") == [(2000 // PRODUCTS,)]


def test_of_holds_that_are_too_many_to_count_all_reserved_units_may_come_back(shop: Shop) -> None:
    (name,) = shop.fill(1, 2500)
    assert shop.ask([name], 2501) == [("REFUSED", 1000, 1500)]
    assert shop.ask([name], 2501) == [("REFUSED", 2000, 500)]
    assert shop.ask([name], 2501) == [("REFUSED", 2500, 0)]

"""A refused order leaves nothing behind but the expired holds that it took back on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.fixtures.shop import balance, expire, fresh, held, stocked

from inventory_client import InsufficientStock

if TYPE_CHECKING:
    from tests.fixtures.serving import Server

    from inventory_client import InventoryClient


def test_an_order_that_falls_short_at_a_later_line_of_a_product_keeps_what_it_took_back(
    calm_client: InventoryClient, calm_server: Server
) -> None:
    product_id = stocked(calm_client, 6)
    expire(calm_server.database_url, held(calm_client, product_id, 2).reservation_id)
    with pytest.raises(InsufficientStock) as refusal:
        calm_client.reserve_order(fresh("order"), [(product_id, 4), (product_id, 3)])
    assert (refusal.value.requested, refusal.value.available) == (7, 6)
    assert balance(calm_client, product_id) == (6, 0)


def test_lines_of_one_product_share_what_was_taken_back(calm_client: InventoryClient, calm_server: Server) -> None:
    product_id = stocked(calm_client, 6)
    expire(calm_server.database_url, held(calm_client, product_id, 2).reservation_id)
    calm_client.reserve_order(fresh("order"), [(product_id, 4), (product_id, 2)])
    assert balance(calm_client, product_id) == (0, 6)

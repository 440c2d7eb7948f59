"""A client that is closed while calls are under way: each of them is told so, by either client."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from tests.fixtures.scraping import Metered
from tests.fixtures.shop import stocked
from tests.fixtures.waiting import eventually

from inventory_client import Cancelled

if TYPE_CHECKING:
    from tests.fixtures.serving import Connect, Serve

WAIT = timedelta(seconds=30)
PROMPT_SECONDS = 10.0


def test_calls_under_way_are_cancelled_and_later_ones_are_not_made(
    database_url: str, serve: Serve, connect: Connect
) -> None:
    metered = Metered(serve, database_url)
    client = connect(metered.server, attempts=5)
    product_id = stocked(client, 0)
    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(client.reserve_stock, product_id, "order", 1, wait=WAIT) for _ in range(3)]
        eventually(lambda: metered.scrape().total("inventory_waiters") == 3)
        client.close()
        for call in calls:
            with pytest.raises(Cancelled) as raised:
                call.result(PROMPT_SECONDS)
            assert raised.value.request_id is not None
            assert not raised.value.retryable
    with pytest.raises(Cancelled):
        client.get_stock(product_id)

"""A server that hangs under a feed, where silence proves nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.fixtures.serving import connected
from tests.fixtures.shop import stocked

from inventory_client import DeadlineExceeded, ServiceUnavailable

if TYPE_CHECKING:
    from tests.fixtures.serving import Serve


@pytest.mark.timeout(60)  # without its pings nothing would end it
def test_a_feed_notices_by_its_pings_that_the_server_hangs(database_url: str, serve: Serve) -> None:
    server = serve(database_url)
    with connected(server, attempts=20, keepalive_seconds=1.0, keepalive_timeout_seconds=1.0) as client:
        product_id = stocked(client, 1)
        with client.watch_stock([product_id], timeout=2.0) as events:
            client.add_stock(product_id, 1)
            assert next(events).resume_token
            with server.hanging(), pytest.raises((ServiceUnavailable, DeadlineExceeded)):
                next(events)
            client.add_stock(product_id, 1)
            assert next(events).resume_token

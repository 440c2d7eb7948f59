"""The endpoint of the metrics, where a start fails."""

from __future__ import annotations

from inventory_server.metrics.endpoint import Endpoint


def test_an_endpoint_may_end_as_soon_as_it_begins() -> None:
    for _ in range(50):
        with Endpoint("127.0.0.1:0", []):
            pass

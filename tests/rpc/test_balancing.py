"""Clients of several servers, as docs/kubernetes.md has them balance."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

from tests.fixtures.scraping import Metered
from tests.fixtures.shop import stocked
from tests.fixtures.traffic import selling
from tests.fixtures.waiting import eventually

if TYPE_CHECKING:
    from tests.fixtures.serving import Connect, Serve

    from inventory_client import InventoryClient

HANDLED = "grpc_server_handled_total"
ATTEMPTS = 20  # as the client has by default


def documented() -> dict[str, str | int]:
    """Read the channel options of the example."""
    text = (Path(__file__).parents[2] / "docs/kubernetes.md").read_text("utf-8")
    [options] = re.findall(r"channel_options=(\{.*\})\)", text)
    found: dict[str, str | int] = ast.literal_eval(options)
    return found


def balanced(connect: Connect, servers: list[Metered], **config: object) -> InventoryClient:
    target = "ipv4:" + ",".join(each.server.address for each in servers)
    return connect(servers[0].server, target=target, channel_options=documented(), **config)


def sold(metered: Metered) -> float:
    return metered.scrape().total(HANDLED, grpc_method="ReserveStock")


def test_every_server_gets_its_share_of_one_client(database_url: str, serve: Serve, connect: Connect) -> None:
    servers = [Metered(serve, database_url) for _ in range(2)]
    client = balanced(connect, servers)
    product_id = stocked(client, 1_000_000)
    with selling(client, product_id) as sales:
        eventually(lambda: sales.rounds > 200)
    shares = [sold(each) for each in servers]
    assert sales.errors == []
    assert min(shares) > 0.4 * sum(shares), shares


def test_a_server_that_hangs_with_its_connections_open_fails_no_call(
    database_url: str, serve: Serve, connect: Connect
) -> None:
    servers = [Metered(serve, database_url) for _ in range(2)]
    client = balanced(connect, servers, attempts=ATTEMPTS, timeout=6.0)
    product_id = stocked(client, 1_000_000)
    with selling(client, product_id) as sales:
        eventually(lambda: min(map(sold, servers)) > 20)
    with servers[0].server.hanging():
        for number in range(3):
            client.reserve_stock(product_id, f"order {number}", 1)
    sales.check(database_url)


def test_callers_notice_nothing_of_a_server_that_stops_and_find_its_successor(
    database_url: str, serve: Serve, connect: Connect
) -> None:
    servers = [Metered(serve, database_url) for _ in range(2)]
    client = balanced(connect, servers, attempts=ATTEMPTS)
    product_id = stocked(client, 1_000_000)
    with selling(client, product_id) as sales:
        eventually(lambda: sold(servers[0]) > 20)
        servers[0].server.terminate()
        assert servers[0].server.wait() == 0
        rounds = sales.rounds
        eventually(lambda: sales.rounds > rounds + 20)
        servers[0].server.start()
        eventually(lambda: sold(servers[0]) > 20)
    assert sales.errors == []
    sales.check(database_url)

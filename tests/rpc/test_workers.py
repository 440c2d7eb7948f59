"""Several worker processes behind one address: all serve, a dead one is replaced, and none outlives the supervisor."""

from __future__ import annotations

import os
import signal
import subprocess
from functools import partial
from typing import TYPE_CHECKING

import grpc
import psycopg
import pytest
from tests.fixtures.shop import stocked
from tests.fixtures.waiting import at_once, eventually

from inventory_client import InventoryClient, Reservation
from inventory_client.proto.inventory.v1 import inventory_pb2 as pb
from inventory_client.proto.inventory.v1.inventory_pb2_grpc import InventoryServiceStub

if TYPE_CHECKING:
    from tests.fixtures.serving import Connect, Serve

# One client is enough to see what the servers do.
synchronous = pytest.mark.parametrize("connect", ["sync"], indirect=True)


def children(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    pairs = (map(int, line.split()) for line in listed.splitlines())
    return [child for child, parent in pairs if parent == pid]


def sessions(database_url: str) -> int:
    """Count the expiry workers that are connected: each server process has one."""
    with psycopg.connect(database_url) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = 'inventory-server expiry'"
        ).fetchone()
    assert row is not None
    return int(row[0])


@synchronous
def test_two_workers_share_an_address_and_sell_each_unit_once(
    database_url: str, serve: Serve, connect: Connect
) -> None:
    server = serve(database_url, workers=2)
    eventually(lambda: sessions(database_url) == 2)
    product_id = stocked(connect(server), 30)
    clients = [InventoryClient(server.address) for _ in range(8)]  # a connection each, for the kernel to share out
    outcomes = at_once([partial(client.reserve_stock, product_id, "order", 1) for client in clients for _ in range(8)])
    for client in clients:
        client.close()
    assert sum(isinstance(outcome, Reservation) for outcome in outcomes) == 30
    server.terminate()
    assert server.wait() == 0
    assert sessions(database_url) == 0


@synchronous
def test_a_worker_that_dies_is_replaced_and_its_callers_go_on(
    database_url: str, serve: Serve, connect: Connect
) -> None:
    server = serve(database_url, workers=2)
    eventually(lambda: sessions(database_url) == 2)
    client = connect(server, attempts=12)
    product_id = stocked(client, 100)
    before = children(server.process.pid)
    assert len(before) == 2
    os.kill(before[0], signal.SIGKILL)
    assert client.reserve_stock(product_id, "order", 1).quantity == 1
    eventually(lambda: len(children(server.process.pid)) == 2 and before[0] not in children(server.process.pid))
    eventually(lambda: sessions(database_url) == 2)


def test_workers_stop_when_their_supervisor_is_killed(database_url: str, serve: Serve) -> None:
    server = serve(database_url, workers=2)
    eventually(lambda: sessions(database_url) == 2)
    server.kill()
    eventually(lambda: sessions(database_url) == 0)
    with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError):
        InventoryServiceStub(channel).GetStock(pb.GetStockRequest(product_id="any"), timeout=5)


def test_workers_that_cannot_serve_end_the_supervisor_with_a_sentence(database_url: str, serve: Serve) -> None:
    taken = serve(database_url)
    with pytest.raises(RuntimeError, match="A worker could not serve"):
        serve(database_url, workers=2, listen=taken.address)

"""Several worker processes behind one address: all serve, a dead one is replaced, and none outlives the supervisor."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import grpc
import psycopg
import pytest
from tests.fixtures.commands import running
from tests.fixtures.processes import children, connected_apart
from tests.fixtures.scraping import Metered
from tests.fixtures.shop import balance, locked, stocked, waiting
from tests.fixtures.waiting import at_once, eventually

from inventory_client import Reservation
from inventory_client.proto.inventory.v1 import inventory_pb2 as pb
from inventory_client.proto.inventory.v1.inventory_pb2_grpc import InventoryServiceStub

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fixtures.serving import Connect, Serve, Server

# One client is enough to see what the servers do.
synchronous = pytest.mark.parametrize("connect", ["sync"], indirect=True)


def serving(server: Server, workers: int) -> None:
    """Wait until so many workers have begun to serve since the server was started."""
    eventually(lambda: server.log.count("serving on") == workers)


def sessions(database_url: str) -> int:
    """Count the connections of expiry workers, of which each server process has one or two."""
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
    serving(server, 2)
    product_id = stocked(connect(server), 30)
    with connected_apart(server.address) as clients:
        calls = [partial(client.reserve_stock, product_id, "order", 1) for client in clients for _ in range(4)]
        outcomes = at_once(calls)
    assert sum(isinstance(outcome, Reservation) for outcome in outcomes) == 30
    server.terminate()
    assert server.wait() == 0
    assert sessions(database_url) == 0


@synchronous
def test_a_worker_that_dies_is_replaced_and_its_callers_go_on(
    database_url: str, serve: Serve, connect: Connect
) -> None:
    server = serve(database_url, workers=2)
    serving(server, 2)
    client = connect(server, attempts=12)
    product_id = stocked(client, 100)
    before = children(server.process.pid)
    assert len(before) == 2
    os.kill(before[0], signal.SIGKILL)
    assert client.reserve_stock(product_id, "order", 1).quantity == 1
    eventually(lambda: len(children(server.process.pid)) == 2 and before[0] not in children(server.process.pid))
    serving(server, 3)


def test_health_is_serving_all_the_while_that_a_worker_is_down(database_url: str, serve: Serve) -> None:
    server = serve(database_url, workers=2)
    serving(server, 2)
    killed = children(server.process.pid)[0]
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: killed not in children(server.process.pid))
    answers: list[str] = []

    def is_back() -> bool:
        answers.append(server.health())
        return len(children(server.process.pid)) == 2

    eventually(is_back)
    answers += [server.health() for _ in range(20)]
    assert len(answers) > 20
    assert set(answers) == {"SERVING"}


def test_a_worker_that_dies_again_and_again_is_started_less_and_less_often(database_url: str, serve: Serve) -> None:
    server = serve(database_url, workers=2)
    serving(server, 2)
    stays, dies = children(server.process.pid)
    for _ in range(3):
        os.kill(dies, signal.SIGKILL)
        (dies,) = eventually(lambda gone=dies: set(children(server.process.pid)) - {stays, gone})  # type: ignore[misc]
    pauses = re.findall(r"ended with -9 and is started again in ([\d.]+) s", server.log)
    assert pauses == ["1.0", "2.0", "4.0"]
    assert stays in children(server.process.pid)


@synchronous
def test_sigterm_lets_every_worker_finish_what_it_has_begun(database_url: str, serve: Serve, connect: Connect) -> None:
    limits = {"statement_timeout": "20s", "lock_timeout": "20s", "shutdown_grace": "15s"}
    metered = Metered(serve, database_url, workers=2, **limits)
    server = metered.server
    serving(server, 2)
    product_id = stocked(connect(server, attempts=12), 100)
    with connected_apart(server.address) as clients, ThreadPoolExecutor(len(clients)) as pool:
        with locked(database_url, product_id):
            calls = [pool.submit(client.reserve_stock, product_id, "order", 1) for client in clients]
            eventually(lambda: waiting(database_url) == 2)  # a statement of each worker
            # What gRPC has not handed to a worker when that stops is told CANCELLED (grpc/grpc#41785).
            eventually(lambda: metered.scrape().total("inventory_requests_in_flight") == len(clients))
            server.terminate()
            eventually(lambda: server.log.count("draining") == 2)
        assert [call.result().quantity for call in calls] == [1] * len(clients)
    assert server.wait() == 0
    again = serve(database_url)
    assert balance(connect(again), product_id) == (84, 16)


def test_workers_stop_when_their_supervisor_is_killed(database_url: str, serve: Serve) -> None:
    server = serve(database_url, workers=2)
    serving(server, 2)
    server.kill()
    eventually(lambda: sessions(database_url) == 0)
    with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError):
        InventoryServiceStub(channel).GetStock(pb.GetStockRequest(product_id="any"), timeout=5)


IMPATIENT = """
import sys
from inventory_server import supervisor
from inventory_server.__main__ import main
supervisor._SILENT_SECONDS_MAX = 2.0
sys.exit(main())
"""


def test_a_worker_that_is_frozen_is_replaced(tmp_path: Path, database_url: str) -> None:
    with running(tmp_path, "serve", python=("-c", IMPATIENT), database_url=database_url, workers=2) as server:
        eventually(lambda: server.log.count("serving on") == 2, within=20)
        frozen, well = children(server.process.pid)
        os.kill(frozen, signal.SIGSTOP)
        server.says(f"worker {frozen} has been silent for 2 s and is killed")
        eventually(lambda: server.log.count("serving on") == 3, within=20)
        assert f"worker {well} has been" not in server.log


def test_workers_that_cannot_serve_end_the_supervisor_with_a_sentence() -> None:
    code = (
        "import os; from inventory_server.supervisor import Supervisor;"
        " Supervisor([None, None], {**os.environ, 'INVENTORY_LANES': 'none'}, 1).run()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert "WorkersFailedError: A worker could not serve (exit status 2)." in done.stderr

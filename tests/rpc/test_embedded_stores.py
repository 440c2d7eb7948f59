"""A server with stores of its own: they are started again when they end, and end with it however that ends."""

from __future__ import annotations

import os
import re
import signal
import sys
from typing import TYPE_CHECKING

import pytest
from tests.fixtures.ledger import audit
from tests.fixtures.shop import balance, held, stocked
from tests.fixtures.traffic import selling
from tests.fixtures.waiting import eventually

from inventory_server.embedded import EmbeddedPostgres
from inventory_server.embedded.process import command_line

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fixtures.serving import Connect, Serve, Server

# One client is enough to see what the servers do.
pytestmark = pytest.mark.parametrize("connect", ["sync"], indirect=True)

RECORDS = {"PostgreSQL": "postgres/cluster/data/postmaster.pid", "Redis": "redis/redis.pid"}


def pid_of(store: str, directory: Path) -> int:
    """Give the process of a store, once it runs."""
    record = directory / RECORDS[store]
    eventually(lambda: command_line(int(record.read_text().split()[0])))
    return int(record.read_text().split()[0])


def kill(store: str, directory: Path, server: Server) -> None:
    """Kill a store, and wait until it was started again."""
    told = f"the embedded {store} is back"
    before = server.log.count(told)
    os.kill(pid_of(store, directory), signal.SIGKILL)
    eventually(lambda: server.log.count(told) > before, within=30, otherwise=lambda: server.log)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_embedded_store_that_is_killed_comes_back_with_all_that_was_answered(
    embedded_directory: Path, serve: Serve, connect: Connect, workers: int
) -> None:
    server = serve("", "", data_dir=embedded_directory, workers=workers)
    client = connect(server, attempts=12)
    product_id = stocked(client, 10**6)
    hold = held(client, product_id, 7)
    with selling(connect(server, attempts=12), product_id) as sales:
        for store in RECORDS:
            sold = sales.rounds
            kill(store, embedded_directory, server)
            assert server.log.count(f"the embedded {store} ended with -9 and is started again; what it said") == 1
            eventually(lambda: all(server.health(name) == "SERVING" for name in ("", "redis")), within=20)
            eventually(lambda sold=sold: sales.rounds > sold + 50, within=20)  # type: ignore[misc]
    assert client.get_reservation(hold.reservation_id) == hold
    assert "ready to accept connections" in (embedded_directory / "postgres/log.before").read_text()
    database_url = EmbeddedPostgres(embedded_directory).running_url()
    assert database_url is not None
    sales.check(database_url)
    audit(database_url)
    server.terminate()
    assert server.wait() == 0
    assert EmbeddedPostgres(embedded_directory).running_url() is None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
def test_stores_that_were_started_again_end_with_the_server_that_is_killed(
    embedded_directory: Path, serve: Serve, connect: Connect
) -> None:
    server = serve("", "", data_dir=embedded_directory)
    stocked(connect(server), 1)
    for store in RECORDS:
        kill(store, embedded_directory, server)
    pids = [pid_of(store, embedded_directory) for store in RECORDS]
    server.kill()
    eventually(lambda: not any(map(command_line, pids)), within=30)


def test_a_store_that_dies_again_and_again_is_started_less_and_less_often(
    embedded_directory: Path, serve: Serve, connect: Connect
) -> None:
    server = serve("", "", data_dir=embedded_directory)
    product_id = stocked(connect(server), 3)
    for _ in range(3):
        kill("Redis", embedded_directory, server)
    moments = re.findall(r":(\d\d),(\d{3}) \w+ +\S+: the embedded Redis (?:ended|is back)", server.log)
    seconds = [int(whole) + int(thousandths) / 1000 for whole, thousandths in moments]
    pauses = [(back - ended) % 60 for ended, back in zip(seconds[::2], seconds[1::2], strict=True)]
    assert [pause >= least for pause, least in zip(pauses, (0.5, 1.0, 2.0), strict=True)] == [True] * 3
    assert balance(connect(server), product_id) == (3, 0)


def test_a_server_stops_at_once_while_a_store_waits_to_be_started_again(
    embedded_directory: Path, serve: Serve, connect: Connect
) -> None:
    server = serve("", "", data_dir=embedded_directory)
    stocked(connect(server), 1)
    (embedded_directory / "postgres/cluster/data/PG_VERSION").write_text("9.6\n")
    os.kill(pid_of("PostgreSQL", embedded_directory), signal.SIGKILL)
    eventually(lambda: server.log.count("The embedded PostgreSQL does not start") >= 2, within=20)
    assert "initialized by PostgreSQL version 9.6" in server.log
    server.terminate()
    assert server.wait() == 0

"""The primary dies, its synchronous standby takes over: the server finds it, and nothing acknowledged is lost."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import grpc
import psycopg
import pytest
from tests.fixtures.crashing import UNWRITTEN, next_id, nothing_written, use_up
from tests.fixtures.shop import stocked
from tests.fixtures.traffic import selling
from tests.fixtures.waiting import eventually

from inventory_client import DatabaseUnavailable
from inventory_client.proto.inventory.v1 import inventory_pb2 as pb
from inventory_client.proto.inventory.v1.inventory_pb2_grpc import InventoryServiceStub
from inventory_server.embedded import EmbeddedPostgres
from inventory_server.embedded.postgres import _binary
from inventory_server.embedded.process import environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fixtures.serving import Connect, Serve

# One client is enough to see what the server does.
pytestmark = pytest.mark.parametrize("connect", ["asyncio"], indirect=True)


@pytest.fixture
def standby(private_postgres: EmbeddedPostgres, tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    """A copy of `private_postgres` that every commit there waits for."""
    with copied(private_postgres, tmp_path / "standby") as standby:
        yield standby


@contextmanager
def copied(primary: EmbeddedPostgres, directory: Path) -> Iterator[EmbeddedPostgres]:
    cluster = directory / "postgres" / "cluster"
    cluster.mkdir(parents=True)
    shutil.copy(primary._cluster / "password", cluster)
    url = f"{primary.url}?application_name=standby"
    options = ("-d", url, "-D", str(cluster / "data"), "-R", "-X", "stream", "-c", "fast")
    subprocess.run(
        [str(_binary("pg_basebackup")), *options], check=True, capture_output=True, env=environment(), timeout=60
    )
    with EmbeddedPostgres(directory) as standby:
        run(primary.url, "ALTER SYSTEM SET synchronous_standby_names = 'standby'")
        run(primary.url, "SELECT pg_reload_conf()")
        eventually(lambda: run(primary.url, "SELECT sync_state FROM pg_stat_replication") == [("sync",)])
        yield standby


def run(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def either(*servers: EmbeddedPostgres) -> str:
    """Write the URL of whichever of them is the primary, as one says it to the server."""
    parts = [urlsplit(server.url) for server in servers]
    credentials, _, _ = parts[0].netloc.rpartition("@")
    hosts = ",".join(f"{part.hostname}:{part.port}" for part in parts)
    return f"postgresql://{credentials}@{hosts}{parts[0].path}?target_session_attrs=read-write"


def test_a_standby_that_is_promoted_is_found_and_has_all_that_was_acknowledged(
    private_postgres: EmbeddedPostgres, standby: EmbeddedPostgres, serve: Serve, connect: Connect
) -> None:
    server = serve(either(private_postgres, standby), pool_timeout="500ms", connect_timeout="1s")
    client = connect(server)
    product_id = stocked(client, 1_000_000)
    with selling(client, product_id) as sales:
        eventually(lambda: sales.rounds > 50)
        private_postgres.kill()
        eventually(lambda: sales.errors)
        run(standby.url, "SELECT pg_promote()")
        goal = sales.rounds + 50
        eventually(lambda: sales.rounds > goal, within=30)
    assert {type(error) for error in sales.errors} == {DatabaseUnavailable}
    sales.check(standby.url)
    eventually(lambda: server.health() == "SERVING")


@pytest.mark.parametrize("unwritten", UNWRITTEN)
def test_watchers_hear_all_that_follows_a_failover_that_hands_transaction_ids_out_again(
    private_postgres: EmbeddedPostgres, standby: EmbeddedPostgres, serve: Serve, connect: Connect, unwritten: str
) -> None:
    server = serve(either(private_postgres, standby), pool_timeout="500ms", connect_timeout="1s")
    client = connect(server)
    product_id = stocked(client, 1)
    watched = pb.WatchStockRequest(product_ids=[product_id])
    with grpc.insecure_channel(server.address) as channel:
        stub = InventoryServiceStub(channel)
        with nothing_written(private_postgres):
            left = use_up(private_postgres, unwritten)
            streams = [stub.WatchStock(watched, timeout=30)]
            mark = next(streams[0]).resume_token
        run(standby.url, "SELECT pg_promote()")
        assert next_id(standby.url) <= left

        def added() -> bool:
            try:
                client.add_stock(product_id, 1)
            except DatabaseUnavailable:
                return False
            return True

        for _ in range(3):
            eventually(added, within=30)
        streams.append(stub.WatchStock(pb.WatchStockRequest(product_ids=[product_id], resume_token=mark), timeout=30))
        for stream in streams:
            assert [next(stream).movement.version for _ in range(3)] == [2, 3, 4]
            stream.cancel()


def test_a_primary_that_comes_back_as_the_standby_is_left_alone(
    private_postgres: EmbeddedPostgres, standby: EmbeddedPostgres, serve: Serve, connect: Connect
) -> None:
    client = connect(serve(either(private_postgres, standby), pool_timeout="500ms", connect_timeout="1s"))
    product_id = stocked(client, 1_000_000)
    with selling(client, product_id) as sales:
        eventually(lambda: sales.rounds > 50)
        private_postgres.stop()
        run(standby.url, "SELECT pg_promote()")
        follow(private_postgres, standby)
        goal = sales.rounds + 50
        eventually(lambda: sales.rounds > goal, within=30)
        # Each new connection meets the old primary first.
        run(standby.url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE '%rpc'")
        goal = sales.rounds + 50
        eventually(lambda: sales.rounds > goal, within=30)
    sales.check(standby.url)


def follow(old: EmbeddedPostgres, new: EmbeddedPostgres) -> None:
    """Start what was the primary as a standby of what is."""
    (old._data / "standby.signal").touch()
    (old._data / "postgresql.auto.conf").write_text(f"primary_conninfo = '{new.url}?application_name=old'\n")
    old.start()
    assert run(old.url, "SELECT pg_is_in_recovery()") == [(True,)]
    eventually(lambda: run(new.url, "SELECT state FROM pg_stat_replication") == [("streaming",)])

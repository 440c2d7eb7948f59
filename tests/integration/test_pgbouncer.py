"""Everything works through PgBouncer with pooled transactions, which pass from one session to another.

Skipped where there is no pgbouncer, such as Debian's package of that name.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psycopg
import pytest
from tests.fixtures.feeding import sleepers
from tests.fixtures.serving import connected
from tests.fixtures.shop import balance, expire, held, stocked
from tests.fixtures.tour import tour
from tests.fixtures.traffic import selling
from tests.fixtures.waiting import eventually

from inventory_client import DatabaseUnavailable
from inventory_server.embedded.process import environment, free_port, guarded
from inventory_server.embedded.user import hand_over, user_for
from inventory_server.postgres.feed import Alarm
from inventory_server.postgres.migrate import migrate
from inventory_server.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fixtures.serving import Connect, Serve

PROGRAM = shutil.which("pgbouncer", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="there is no pgbouncer here")

# Fewer sessions than any server has connections, so that each session serves many.
SESSIONS = 2
LEFT_BEHIND = (
    b"SHOW statement_timeout",
    b"SHOW lock_timeout",
    b"SELECT count(*)::text FROM pg_prepared_statements",
    b"SELECT count(*)::text FROM pg_locks WHERE locktype = 'advisory'",
)
CONFIGURATION = """\
[databases]
{database} = host={host} port={port} dbname={database} user={user} password={password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen_port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {sessions}
max_client_conn = 200
logfile =
"""


class Pooler:
    """A PgBouncer before one database, which may be killed and started again on the same port."""

    def __init__(self, database_url: str, directory: Path) -> None:
        parts = urlsplit(database_url)
        name = parts.path.strip("/")
        self._port = free_port()
        self.url = f"postgresql://{parts.username}@127.0.0.1:{self._port}/{name}"
        self._directory = directory
        self._file = directory / "pgbouncer.ini"
        self._file.write_text(
            CONFIGURATION.format(
                database=name,
                host=parts.hostname,
                port=parts.port,
                user=parts.username,
                password=parts.password,
                listen_port=self._port,
                sessions=SESSIONS,
            )
        )
        self._file.chmod(0o600)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        user = user_for(Path(str(PROGRAM)), self._directory)
        hand_over(self._directory, user)
        command = guarded(
            [str(PROGRAM), str(self._file)], user=user, directory=self._directory, death_signal=signal.SIGKILL
        )
        with (self._directory / "pgbouncer.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=environment())
        eventually(self._answers, otherwise=(self._directory / "pgbouncer.log").read_text)

    def kill(self) -> None:
        """End it; safe unstarted and twice."""
        if self._process is not None:
            assert self._process.poll() is None, (self._directory / "pgbouncer.log").read_text()
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self._port)).close()
        except OSError:
            return False
        return True


@pytest.fixture
def pooler(database_url: str, tmp_path: Path) -> Iterator[Pooler]:
    directory = tmp_path / "pgbouncer"
    directory.mkdir()
    pooler = Pooler(database_url, directory)
    pooler.start()
    yield pooler
    pooler.kill()


def test_every_operation_works(pooler: Pooler, serve: Serve) -> None:
    with connected(serve(pooler.url, prepared_statements=False, expiry=False)) as client:
        tour(client, pooler.url)


def test_the_schema_is_migrated_through_it(empty_database_url: str, tmp_path: Path) -> None:
    pooler = Pooler(empty_database_url, tmp_path)
    pooler.start()
    try:
        assert migrate(pooler.url)
        assert migrate(pooler.url) == []
    finally:
        pooler.kill()


def test_the_worker_tidies_up(pooler: Pooler, serve: Serve, connect: Connect) -> None:
    client = connect(serve(pooler.url, prepared_statements=False))
    hold = held(client)
    expire(pooler.url, hold.reservation_id)
    eventually(lambda: balance(client, hold.product_id) == (1, 0))


def test_two_servers_share_two_sessions_and_leave_nothing_of_theirs_behind(
    pooler: Pooler, serve: Serve, connect: Connect
) -> None:
    clients = [connect(serve(pooler.url, prepared_statements=False, pool_timeout="10s")) for _ in range(2)]
    product_id = stocked(clients[0], 1_000_000)
    with selling(clients[0], product_id) as here, selling(clients[1], product_id) as there:
        eventually(lambda: min(here.rounds, there.rounds) > 100)
    assert [*here.errors, *there.errors] == []
    for sales in (here, there):
        sales.check(pooler.url)
    for _ in range(2 * SESSIONS):
        with psycopg.connect(pooler.url) as connection:
            for question in (
                "SHOW statement_timeout",
                "SHOW lock_timeout",
                "SELECT count(*) FROM pg_prepared_statements",
            ):
                assert connection.execute(question.encode()).fetchone() in {("0",), (0,)}


def test_the_feed_neither_listens_nor_locks_in_a_shared_session_whatever_it_was_told(
    pooler: Pooler, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def sleep_twice() -> list[bool]:
        async with Alarm(pooler.url, Settings()) as alarm:
            return [await alarm.sleep(0.5), await alarm.sleep(0.01)]

    assert asyncio.run(sleep_twice()) == [False, False]
    assert caplog.text.count("nobody wakes the feed: a pooler stands before PostgreSQL") == 1
    assert sleepers(database_url) == 0
    for _ in range(2 * SESSIONS):
        with psycopg.connect(pooler.url, prepare_threshold=None) as connection:
            assert connection.execute("SELECT * FROM pg_listening_channels()").fetchall() == []


def test_a_pooler_that_dies_is_waited_for(pooler: Pooler, serve: Serve, connect: Connect) -> None:
    server = serve(pooler.url, prepared_statements=False, pool_timeout="500ms")
    client = connect(server)
    product_id = stocked(client, 1_000_000)
    with selling(client, product_id) as sales:
        eventually(lambda: sales.rounds > 50)
        pooler.kill()
        eventually(lambda: sales.errors)
        pooler.start()
        goal = sales.rounds + 50
        eventually(lambda: sales.rounds > goal, within=30)
    assert {type(error) for error in sales.errors} == {DatabaseUnavailable}
    sales.check(pooler.url)

"""Everything works through PgBouncer with pooled transactions, which pass from one session to another.

Skipped where there is no pgbouncer, such as Debian's package of that name.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psycopg
import pytest
from tests.fixtures.shop import LONG, balance, expire, fresh, held, stocked
from tests.fixtures.traffic import selling
from tests.fixtures.waiting import eventually

from inventory_client import (
    AdjustmentReason,
    DatabaseUnavailable,
    LatePolicy,
    ReservationAlreadyReleased,
    ReservationStatus,
    ReserveItem,
    SettleItem,
    SettlementAction,
)
from inventory_server.embedded.process import environment, free_port, guarded
from inventory_server.embedded.user import hand_over, user_for

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


def test_every_operation_works(pooler: Pooler, serve: Serve, connect: Connect) -> None:
    client = connect(serve(pooler.url, prepared_statements=False, expiry=False))
    product_id, other = stocked(client, 10), stocked(client, 10)
    hold = client.reserve_stock(product_id, fresh("order"), 2, ttl=LONG)
    assert client.extend_reservation(hold.reservation_id, timedelta(hours=2)).expires_at > hold.expires_at
    assert client.deduct_reservation(hold.reservation_id).status is ReservationStatus.DEDUCTED
    assert client.get_reservation(hold.reservation_id).status is ReservationStatus.DEDUCTED
    client.release_reservation(held(client, product_id).reservation_id)
    order = fresh("order")
    client.reserve_order(order, [(product_id, 1), (other, 2)], ttl=LONG)
    assert len(client.deduct_order(order)) == 2
    client.reserve_order(order := fresh("order"), [(product_id, 1), (other, 2)], ttl=LONG)
    assert len(client.release_order(order)) == 2
    client.add_stock(product_id, 3)
    client.adjust_stock(product_id, -1, AdjustmentReason.COUNT)
    assert [balance(client, each) for each in (product_id, other)] == [(9, 0), (8, 0)]
    made = client.batch_reserve_stock([ReserveItem(product_id, order, 1) for _ in range(3)])
    ended = client.batch_settle_reservations(
        [SettleItem(each.reservation_id, SettlementAction.RELEASE) for each in made]  # type: ignore[union-attr]
    )
    assert {each.status for each in ended} == {ReservationStatus.RELEASED}  # type: ignore[union-attr]
    assert [stock.product_id for stock in client.batch_get_stock([other, product_id])] == [other, product_id]  # type: ignore[union-attr]
    late = held(client, other)
    expire(pooler.url, late.reservation_id)
    with pytest.raises(ReservationAlreadyReleased):
        client.deduct_reservation(late.reservation_id)
    client.deduct_reservation(late.reservation_id, late_policy=LatePolicy.REACQUIRE)


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

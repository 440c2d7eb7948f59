"""The oldest PostgreSQL that we promise to work with does everything that the embedded one does.

Skipped where there are no binaries of it, such as Debian's package postgresql-15.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from tests.fixtures.feeding import sleepers
from tests.fixtures.serving import connected
from tests.fixtures.shop import expire, held
from tests.fixtures.tour import tour
from tests.fixtures.waiting import eventually

from inventory_server import audit
from inventory_server.embedded import EmbeddedPostgres
from inventory_server.postgres.migrate import migrate
from inventory_server.postgres.queries import query
from inventory_server.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fixtures.serving import Serve

BINARIES = Path("/usr/lib/postgresql/15/bin")
pytestmark = pytest.mark.skipif(not BINARIES.exists(), reason=f"there is no PostgreSQL 15 in {BINARIES}")

# So short that they are inlined wherever they are called.
_INLINED = {"inventory_micros_v1", "inventory_order_ender_v1"}
_NOT_CALLED = """
    SELECT proname FROM pg_proc WHERE proname LIKE 'inventory%'
    EXCEPT SELECT funcname FROM pg_stat_user_functions
"""


@pytest.fixture
def postgres_15(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr("inventory_server.embedded.postgres._binary", lambda name: BINARIES / name)
    with EmbeddedPostgres(tmp_path / "postgres 15") as server:
        with psycopg.connect(server.url, autocommit=True) as connection:
            assert connection.info.server_version // 10000 == 15
            connection.execute("ALTER SYSTEM SET track_functions = 'all'")
            connection.execute("SELECT pg_reload_conf()")
        yield server.url


def test_migrations_and_every_function_run(postgres_15: str, serve: Serve) -> None:
    assert migrate(postgres_15)
    assert migrate(postgres_15) == []
    with connected(serve(postgres_15, expiry=False)) as client:
        tour(client, postgres_15)
        hold = held(client)
        expire(postgres_15, hold.reservation_id)
        serve(postgres_15)
        eventually(lambda: client.get_stock(hold.product_id).available_quantity == 1)
        with client.watch_stock([hold.product_id]) as watch:
            eventually(lambda: sleepers(postgres_15))
            client.add_stock(hold.product_id, 1)
            assert next(watch).change.available_after == 2  # type: ignore[union-attr]
    assert audit.run(Settings(database_url=postgres_15)) == 0
    with psycopg.connect(postgres_15) as connection:
        connection.execute(query("retain"), ("", 0, 100, 100)).fetchall()
        connection.execute("SELECT inventory_audit_totals_v1('of half a million movements')").fetchall()
    # Sessions tell of their calls now and then, and when they end.
    eventually(lambda: not_called(postgres_15) == _INLINED, otherwise=lambda: str(not_called(postgres_15)))


def not_called(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        return {row[0] for row in connection.execute(_NOT_CALLED)}

"""The statements wait for locks and then read what was committed meanwhile, whatever the role has for a default."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import psycopg
import pytest

from inventory_server.errors import DatabaseUnavailable
from inventory_server.postgres.database import Database
from inventory_server.postgres.migrate import migrate
from inventory_server.settings import Settings


def be_strict(database_url: str) -> None:
    alter(database_url, "SET default_transaction_isolation = 'repeatable read'")


def alter(database_url: str, how: str) -> None:
    name = urlsplit(database_url).path.strip("/")
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} {how}".encode())


def isolation(url: str, settings: Settings) -> str:
    async def ask() -> str:
        database = Database(url, settings, size=1, name="test")
        await database.open()
        try:
            ((level,),) = await database.fetch("SHOW transaction_isolation")
        finally:
            await database.close()
        return str(level)

    return asyncio.run(ask())


def test_a_session_of_our_own_is_told(database_url: str) -> None:
    be_strict(database_url)
    assert isolation(database_url, Settings()) == "read committed"


def test_one_that_others_share_is_refused_unless_its_role_says_so(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    shared = Settings(prepared_statements=False, pool_timeout=0.5)
    be_strict(database_url)
    with pytest.raises(DatabaseUnavailable):
        isolation(database_url, shared)
    assert "default_transaction_isolation of the role must be 'read committed'" in caplog.text
    alter(database_url, "RESET ALL")
    assert isolation(database_url, shared) == "read committed"


def test_a_migration_sees_what_was_applied_while_it_waited_for_its_turn(empty_database_url: str) -> None:
    be_strict(empty_database_url)
    with ThreadPoolExecutor(4) as pool:
        applied = list(pool.map(migrate, [empty_database_url] * 4))
    assert sorted(map(len, applied))[:3] == [0, 0, 0]

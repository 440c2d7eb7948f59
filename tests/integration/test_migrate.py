"""Migrations: once each, from many places at once, and never onto a database that cannot hold what we store."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psycopg
import pytest
from tests.fixtures.waiting import eventually

from inventory_server.app import StartError, migrate_when_up
from inventory_server.embedded.process import free_port
from inventory_server.postgres import migrate as migrations
from inventory_server.postgres.migrate import MigrationError, migrate
from inventory_server.postgres.queries import files

if TYPE_CHECKING:
    from pathlib import Path

_MOVEMENT = b"""
    INSERT INTO inventory_movements (product_id, version, kind, available_delta, reserved_delta, available_after,
        reserved_after, line, occurred_at) VALUES (%s, 1, 'INITIALIZE', 1, 0, 1, 0, 0, now())
"""


def test_servers_that_start_at_once_migrate_once(empty_database_url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        applied = list(pool.map(migrate, [empty_database_url] * 4))
    assert sorted(map(len, applied))[:3] == [0, 0, 0]
    assert len(max(applied, key=len)) >= 1


def test_a_migration_that_was_changed_after_it_was_applied_is_refused(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in files("migrations"):
        (tmp_path / file.name).write_text(file.read_text("utf-8") + "-- changed\n")
    changed = sorted(tmp_path.iterdir())
    monkeypatch.setattr(migrations, "files", lambda _: changed)
    with pytest.raises(MigrationError, match=r"0001_tables\.sql was changed"):
        migrate(database_url)


def test_functions_that_change_get_a_later_revision() -> None:
    """Raise FUNCTIONS_REVISION with a change, and put both down here: else servers that run would not bring it."""
    assert (migrations.FUNCTIONS_REVISION, migrations.functions_digest()) == (
        5,
        "c0c3ac59a608ca84f202e911d4ae7fc434dc4f01a4a57c671be5afb26050815f",
    )


@pytest.mark.parametrize(("ours", "stays"), [(6, True), (7, False), (8, False)])
def test_functions_of_a_later_server_stay_when_an_earlier_one_restarts(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ours: int, *, stays: bool
) -> None:
    said = "CREATE OR REPLACE FUNCTION inventory_test() RETURNS text LANGUAGE sql AS $$ SELECT '%s' $$"
    for revision, text in (7, "later"), (ours, "ours"):
        (tmp_path / "test.sql").write_text(said % text)
        monkeypatch.setattr(migrations, "FUNCTIONS_REVISION", revision)
        monkeypatch.setattr(migrations, "files", lambda kind: list(tmp_path.iterdir()) if kind == "functions" else [])
        migrate(database_url)
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT inventory_test()").fetchone() == ("later" if stays else "ours",)


def test_a_database_of_another_encoding_is_refused_with_a_sentence(empty_database_url: str) -> None:
    parts = urlsplit(empty_database_url)
    name = parts.path.removeprefix("/") + "_latin"
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0".encode())
        try:
            with pytest.raises(MigrationError, match="UTF8, not LATIN1"):
                migrate(parts._replace(path=f"/{name}").geturl())
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def limited_database_url(database_url: str) -> str:
    """A database that gives its sessions as little time as some give to the service's role."""
    name = urlsplit(database_url).path.strip("/")
    with psycopg.connect(database_url, autocommit=True) as connection:
        for limit in ("statement_timeout", "lock_timeout"):
            connection.execute(f"ALTER DATABASE {name} SET {limit} = '200ms'".encode())
    return database_url


def test_limits_of_the_role_are_none_for_migrations(limited_database_url: str) -> None:
    with psycopg.connect(limited_database_url) as other, ThreadPoolExecutor(1) as pool:
        other.execute("SELECT pg_advisory_xact_lock(%s)", (migrations._LOCK,))
        migrated = pool.submit(migrate, limited_database_url)
        eventually(lambda: waiting_for_long(limited_database_url))
        assert not migrated.done()
        other.rollback()
        assert migrated.result() == []


def waiting_for_long(database_url: str) -> bool:
    with psycopg.connect(database_url) as connection:
        found = connection.execute(
            "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            " AND query_start < clock_timestamp() - interval '400 milliseconds'"
        )
        return found.rowcount == 1


def test_a_lock_that_somebody_keeps_is_waited_for_again_and_again_and_then_told_of(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute(_MOVEMENT, ("restored",))
        connection.execute("UPDATE inventory_movements SET transaction_id = '9000000000000'")
        connection.commit()
        connection.execute("SELECT FROM inventory_movements FOR UPDATE")
        with pytest.raises(StartError, match=r"schema cannot be brought up to date: .* lock timeout"):
            migrate_when_up(database_url, 0)
        with ThreadPoolExecutor(1) as pool:
            migrated = pool.submit(migrate_when_up, database_url, 60)
            eventually(lambda: "waiting for PostgreSQL: canceling statement due to lock timeout" in caplog.text)
            connection.rollback()
            migrated.result()


def test_a_database_that_cannot_be_migrated_is_told_of_at_once(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = urlsplit(database_url).path.strip("/")
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on".encode())
    with pytest.raises(StartError, match=r"schema cannot be brought up to date: .* read-only transaction"):
        migrate_when_up(database_url, 60)
    assert "waiting for PostgreSQL" not in caplog.text


def test_a_database_that_is_away_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    nobody = f"postgresql://inventory@127.0.0.1:{free_port()}/inventory"
    with pytest.raises(StartError, match="PostgreSQL cannot be reached"):
        migrate_when_up(nobody, 0.1)
    assert "waiting for PostgreSQL" in caplog.text


def test_what_a_dump_of_another_cluster_brings_lies_behind_the_feed(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        for product_id in ("restored", "ours"):
            connection.execute(_MOVEMENT, (product_id,))
        connection.execute(
            "UPDATE inventory_movements SET transaction_id = '9000000000000' WHERE product_id = 'restored'"
        )
        ours = connection.execute("SELECT transaction_id FROM inventory_movements WHERE product_id = 'ours'").fetchone()
        migrate(database_url)
        rows = connection.execute(
            "SELECT product_id, transaction_id FROM inventory_movements ORDER BY transaction_id"
        ).fetchall()
    assert ours is not None
    assert rows == [("restored", "3"), ("ours", *ours)]

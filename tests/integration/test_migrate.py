"""Migrations: once each, from many places at once, and never onto a database that cannot hold what we store."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psycopg
import pytest

from inventory_server.postgres import migrate as migrations
from inventory_server.postgres.migrate import MigrationError, migrate
from inventory_server.postgres.queries import files

if TYPE_CHECKING:
    from pathlib import Path


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
        4,
        "65e96e51dc30c8fcb3a018223b9a64070a6e8888d46f9fdfe7074f250df4bb9b",
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


def test_what_a_dump_of_another_cluster_brings_lies_behind_the_feed(database_url: str) -> None:
    movement = """
        INSERT INTO inventory_movements (product_id, version, kind, available_delta, reserved_delta, available_after,
            reserved_after, line, occurred_at) VALUES (%s, 1, 'INITIALIZE', 1, 0, 1, 0, 0, now())
    """
    with psycopg.connect(database_url, autocommit=True) as connection:
        for product_id in ("restored", "ours"):
            connection.execute(movement.encode(), (product_id,))
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

"""Migrations: numbered SQL files, applied once each, and the functions, replaced whole by those of a later revision.

All under one advisory lock and in one transaction, so that servers that start at once take turns and a failure leaves
nothing half done. A file that was changed after it was applied is refused.
"""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING, LiteralString

import psycopg

from inventory_server.postgres.queries import files

if TYPE_CHECKING:
    from typing import Any

log = logging.getLogger(__name__)

# "inventory" in the alphabet's numbers, cut to 63 bits: any constant that nobody else picks.
_LOCK = 9142205142015182
_POSTGRES_VERSION_MIN = 150000
# The revision of the functions: raise it whenever one changes. A server of an earlier revision that restarts in the
# midst of a rollout, or after it, leaves those alone that the later one brought.
FUNCTIONS_REVISION = 5
# What the history calls a revision of the functions, before its number.
_FUNCTIONS = "functions "

_HISTORY: LiteralString = """
    CREATE TABLE IF NOT EXISTS inventory_migrations (
        name       text CONSTRAINT inventory_migrations_pkey PRIMARY KEY,
        sha256     text NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now()
    )
"""
# A dump carries the transaction numbers of the cluster that it was made of. What lies ahead of this one's would reach
# the watchers of the feed as new while the numbers catch up. 3 is the first number there is.
_RESTORED: LiteralString = """
    UPDATE inventory_movements SET transaction_id = '3' WHERE transaction_id >= pg_snapshot_xmax(pg_current_snapshot())
"""


class MigrationError(Exception):
    """The schema cannot be brought up to date; the sentence says why."""


def migrate(url: str) -> list[str]:
    """Bring the schema up to date and name the migrations applied. Safe to repeat and to run from many places.

    Raises MigrationError, or psycopg's LockNotAvailable where somebody keeps a lock for longer than one may wait.
    """
    # Nothing is prepared: behind a pooler of transactions it would stay in a session that others use.
    with psycopg.connect(url, application_name="inventory-server migrate", prepare_threshold=None) as connection:
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        if connection.info.server_version < _POSTGRES_VERSION_MIN:
            raise MigrationError(f"PostgreSQL 15 or later is needed, not {connection.info.server_version // 10000}.")
        encoding = connection.info.parameter_status("server_encoding")
        if encoding != "UTF8":
            raise MigrationError(f"The database must be encoded in UTF8, not {encoding}: ids may hold any character.")
        # The role may have limits for the service's statements, which these may exceed.
        connection.execute("SET LOCAL statement_timeout = 0")
        connection.execute("SET LOCAL lock_timeout = 0")
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        # Whoever waits for the lock of a table keeps all those waiting that come after: better to try again.
        connection.execute("SET LOCAL lock_timeout = '1s'")
        connection.execute(_HISTORY)
        applied = _apply_migrations(connection)
        _apply_functions(connection, force=bool(applied))
        if restored := connection.execute(_RESTORED).rowcount:
            log.warning("%d movements came with a dump of another cluster: the feed counts them as its first", restored)
        return applied


def _apply_migrations(connection: psycopg.Connection[Any]) -> list[str]:
    done: dict[str, str] = dict(connection.execute("SELECT name, sha256 FROM inventory_migrations").fetchall())
    applied = []
    for file in files("migrations"):
        text = file.read_text("utf-8")
        digest = _digest(text)
        if file.name not in done:
            log.info("applying migration %s", file.name)
            _execute(connection, text)
            _record(connection, file.name, digest)
            applied.append(file.name)
        elif done[file.name] != digest:
            raise MigrationError(f"Migration {file.name} was changed after it was applied.")
    return applied


def _apply_functions(connection: psycopg.Connection[Any], *, force: bool) -> None:
    """Replace the functions, but only when they changed: to replace one makes every session plan anew."""
    text = _functions()
    digest = _digest(text)
    revision, recorded = _functions_recorded(connection)
    if revision > FUNCTIONS_REVISION:
        log.warning("the functions stay at revision %d of a later server; ours is %d", revision, FUNCTIONS_REVISION)
    elif force or revision < FUNCTIONS_REVISION or recorded != digest:
        # The files stand in alphabetical order, but functions may call one another.
        connection.execute("SET LOCAL check_function_bodies = off")
        _execute(connection, text)
        _record(connection, f"{_FUNCTIONS}{FUNCTIONS_REVISION}", digest)


def functions_digest() -> str:
    """Digest the functions of this server."""
    return _digest(_functions())


def _functions() -> str:
    return "\n".join(file.read_text("utf-8") for file in files("functions"))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _functions_recorded(connection: psycopg.Connection[Any]) -> tuple[int, str]:
    """Tell the latest revision that was applied, 0 where none was, and its digest."""
    rows = connection.execute(
        "SELECT name, sha256 FROM inventory_migrations WHERE starts_with(name, %s)", (_FUNCTIONS,)
    ).fetchall()
    return max([(int(name.removeprefix(_FUNCTIONS)), digest) for name, digest in rows], default=(0, ""))


def _execute(connection: psycopg.Connection[Any], text: str) -> None:
    connection.execute(text)


def _record(connection: psycopg.Connection[Any], name: str, digest: str) -> None:
    connection.execute(
        "INSERT INTO inventory_migrations (name, sha256) VALUES (%s, %s)"
        " ON CONFLICT (name) DO UPDATE SET sha256 = excluded.sha256, applied_at = now()",
        (name, digest),
    )

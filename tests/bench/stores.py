"""PostgreSQL and Redis for one run: embedded ones of its own, or those that the environment names."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psycopg
from psycopg import sql
from tests.bench import cpu

from inventory_server.embedded import EmbeddedPostgres, EmbeddedRedis

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# What decides whether a commit means anything.
SHOWN = ("server_version", "fsync", "synchronous_commit", "full_page_writes", "shared_buffers")


@dataclass(frozen=True)
class Stores:
    """Where the stores are. `database_url` names a role that may create databases."""

    database_url: str
    redis_url: str

    def fresh_database(self, name: str) -> str:
        """Create a database, in place of one that an earlier run left, and return its URL."""
        identifier = sql.Identifier(name)
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(identifier))
            connection.execute(sql.SQL("CREATE DATABASE {}").format(identifier))
        return self._url_of(name)

    def drop_database(self, name: str) -> None:
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def settings(self) -> dict[str, str]:
        """Tell the settings of PostgreSQL that the figures depend on."""
        with psycopg.connect(self.database_url) as connection:
            rows = [connection.execute(sql.SQL("SHOW {}").format(sql.Identifier(name))).fetchone() for name in SHOWN]
        return {name: str(row[0]) for name, row in zip(SHOWN, rows, strict=True) if row}

    def postmaster(self) -> int:
        """Find PostgreSQL's first process, which is the parent of every session's; 0 when it runs elsewhere."""
        with psycopg.connect(self.database_url) as connection:
            return cpu.parent(connection.info.backend_pid)

    def _url_of(self, name: str) -> str:
        return urlsplit(self.database_url)._replace(path=f"/{name}").geturl()


@contextlib.contextmanager
def opened(directory: Path) -> Iterator[Stores]:
    """Start what INVENTORY_BENCH_DATABASE_URL and INVENTORY_BENCH_REDIS_URL do not name, below `directory`."""
    with contextlib.ExitStack() as stack:
        database_url = os.environ.get("INVENTORY_BENCH_DATABASE_URL")
        redis_url = os.environ.get("INVENTORY_BENCH_REDIS_URL")
        yield Stores(
            database_url or stack.enter_context(EmbeddedPostgres(directory)).url,
            redis_url or stack.enter_context(EmbeddedRedis(directory)).url,
        )

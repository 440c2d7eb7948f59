"""The pool of connections to PostgreSQL, and what its failures mean."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from functools import cached_property
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
from psycopg import errors as pg
from psycopg import sql
from psycopg_pool import AsyncConnectionPool

from inventory_server.errors import DatabaseUnavailable
from inventory_server.metrics import Counter, Gauge, Histogram
from inventory_server.postgres.queries import NAMES, files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inventory_server.settings import Settings

log = logging.getLogger(__name__)

# A statement that PostgreSQL does not end at its own timeout is given up this much later: the network is gone.
_GRACE_SECONDS = 1.0
# Deadlocks end with one victim, who may try again at once; more often than this it is no accident.
_ATTEMPTS = 3

# The functions read under their locks what others committed while they waited for them.
_ISOLATION = "read committed"

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_RETRIABLE = (pg.DeadlockDetected, pg.SerializationFailure)
_UNAVAILABLE = (
    psycopg.OperationalError,  # the connection, the server, its disk, its memory, a timeout
    psycopg.InterfaceError,  # a connection that was found closed
    pg.ReadOnlySqlTransaction,  # a standby, or a primary that has run full
    TimeoutError,
)

STATEMENTS = Histogram(
    "inventory_database_statement_duration_seconds",
    "Time a statement took on its connection, also one that failed; the one without a name is the health check's.",
    ["statement"],
    [*((file.name.removesuffix(".sql"),) for file in files("sql")), ("ping",)],
)
FAILURES = Counter(
    "inventory_database_failures_total",
    "Statements that failed: PostgreSQL unavailable, a row locked for too long, a deadlock lost, a value refused.",
    ["kind"],
    [("unavailable",), ("row_locked",), ("deadlock",), ("refused",)],
)
POOL = Gauge(
    "inventory_database_pool",
    "Connections of the RPCs' pool: the most there may be, those there are, those not in use; and who waits for one.",
    ["what"],
    [("max",), ("open",), ("idle",), ("waiting",)],
)
POOL_WAITED = Counter("inventory_database_pool_wait_seconds_total", "Time spent waiting for a connection of the pool.")
POOL_ERRORS = Counter(
    "inventory_database_pool_errors_total",
    "Waits for a connection that ended in vain, attempts to connect that failed, connections that were lost.",
    ["kind"],
    [("timeout",), ("connect",), ("lost",)],
)


def first_line(error: BaseException) -> str:
    """What a failure comes to; PostgreSQL goes on with hints, and with where in a function it happened."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class BadItem(Exception):
    """PostgreSQL refused a value of the batch: one item is to blame. `constraint` names the rule, where it has one."""

    def __init__(self, error: psycopg.Error) -> None:
        super().__init__(str(error))
        self.constraint = error.diag.constraint_name
        self.detail = error.diag.message_detail
        self._ids = _UUID.findall(self.detail or "")

    def names(self, item: object) -> bool:
        """Tell whether PostgreSQL names an id of this item, as it does where one was used before."""
        text = str(item) if self._ids else ""
        return any(each in text for each in self._ids)


class RowLocked(DatabaseUnavailable):
    """Somebody held a row of the batch for longer than the lock timeout; nothing was done."""


class _Connection(psycopg.AsyncConnection[tuple[Any, ...]]):
    """A connection for one statement at a time."""

    @cached_property
    def reused(self) -> psycopg.AsyncCursor[tuple[Any, ...]]:
        """One cursor for all statements: a new one looks all types up again, which takes longer than to send them."""
        return self.cursor()


class Database:
    """Runs single statements, each a transaction of its own, on pooled connections that heal by themselves."""

    def __init__(self, url: str, settings: Settings, *, size: int, name: str) -> None:
        self._timeout = settings.statement_timeout + _GRACE_SECONDS
        self._prepared = settings.prepared_statements
        self._limits = _session_limits(settings) if self._prepared else None
        self._checking: asyncio.Task[None] | None = None
        self._pool = AsyncConnectionPool(
            url,
            connection_class=_Connection,
            min_size=1,
            max_size=size,
            open=False,
            name=name,
            timeout=settings.pool_timeout,
            max_idle=300,
            reconnect_timeout=10,
            configure=self._configure,
            kwargs={
                "autocommit": True,
                "prepare_threshold": 0 if self._prepared else None,
                "connect_timeout": max(1, round(settings.connect_timeout)),
                "client_encoding": "utf8",
                "application_name": f"inventory-server {name}",
                # A peer that vanished without a word is noticed within the bound of a statement.
                "tcp_user_timeout": round(self._timeout * 1000),
                "keepalives_idle": 10,
                "keepalives_interval": 5,
                "keepalives_count": 3,
            },
        )

    async def open(self) -> None:
        """Start connecting; safe while PostgreSQL is away."""
        await self._pool.open(wait=False)

    async def close(self) -> None:
        if self._checking is not None:
            self._checking.cancel()
        await self._pool.close()

    async def ping(self) -> None:
        """Make sure that PostgreSQL answers and takes writes; DatabaseUnavailable is raised if not."""
        ((standby,),) = await self.fetch("SELECT pg_is_in_recovery()")
        if standby:
            raise DatabaseUnavailable

    def measure_pool(self) -> None:
        """Say how the pool is, and what happened since the last time."""
        now = self._pool.pop_stats()
        POOL.set("max", to=now["pool_max"])
        POOL.set("open", to=now["pool_size"])
        POOL.set("idle", to=now["pool_available"])
        POOL.set("waiting", to=now["requests_waiting"])
        POOL_WAITED.inc(by=now.get("requests_wait_ms", 0) / 1000)
        POOL_ERRORS.inc("timeout", by=now.get("requests_errors", 0))
        POOL_ERRORS.inc("connect", by=now.get("connections_errors", 0))
        POOL_ERRORS.inc("lost", by=now.get("connections_lost", 0))

    async def fetch(self, query: LiteralString, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run one statement and return its rows.

        Raises DatabaseUnavailable where PostgreSQL did not answer (the statement may have been committed all the
        same) and BadItem where a value is to blame.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                async with asyncio.timeout(self._timeout):
                    return await self._run(query, parameters)
            except _RETRIABLE:
                FAILURES.inc("deadlock")
                log.warning("a statement lost a deadlock, attempt %d of %d", attempt, _ATTEMPTS)
            except pg.LockNotAvailable as error:
                FAILURES.inc("row_locked")
                log.warning("a row was locked for too long: %s", first_line(error))
                raise RowLocked from error
            except _UNAVAILABLE as error:
                FAILURES.inc("unavailable")
                self._heal()
                log.warning("PostgreSQL is unavailable: %s", first_line(error))
                raise DatabaseUnavailable from error
            except (psycopg.DataError, psycopg.IntegrityError) as error:
                FAILURES.inc("refused")
                raise BadItem(error) from error
        raise DatabaseUnavailable

    async def _run(self, query: LiteralString, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        # Not pool.connection(): it ends with a commit, which costs time even where there is nothing to commit.
        connection = await self._pool.getconn()
        began = time.perf_counter()
        try:
            cursor = await connection.reused.execute(query, parameters or None)
            return await cursor.fetchall()
        except pg.ReadOnlySqlTransaction:
            # Somebody else is the primary now: a new connection finds it.
            await connection.close()
            raise
        finally:
            STATEMENTS.observe(NAMES.get(query, "ping"), of=time.perf_counter() - began)
            await self._pool.putconn(connection)

    async def _configure(self, connection: psycopg.AsyncConnection[Any]) -> None:
        if self._limits is not None:
            await connection.execute(sql.SQL(self._limits), prepare=False)
            return
        cursor = await connection.execute("SHOW default_transaction_isolation")
        if await cursor.fetchone() != (_ISOLATION,):
            raise psycopg.NotSupportedError(f"default_transaction_isolation of the role must be '{_ISOLATION}'")

    def _heal(self) -> None:
        """Have the pool look at every idle connection: where one broke, its neighbours probably did too."""
        if self._checking is None or self._checking.done():
            self._checking = asyncio.create_task(self._check())

    async def _check(self) -> None:
        try:
            await self._pool.check()
        except (psycopg.Error, OSError) as error:
            log.debug("the pool could not be checked: %s", error)


def _session_limits(settings: Settings) -> str:
    limits = {
        "statement_timeout": settings.statement_timeout,
        "lock_timeout": settings.lock_timeout,
        "idle_in_transaction_session_timeout": settings.statement_timeout,
    }
    timeouts = [f"SET {name} = {round(seconds * 1000)}" for name, seconds in limits.items()]
    # Before version 18 a plan whose scan is discouraged counts as dear enough to be compiled, for every single batch.
    return "; ".join([*timeouts, "SET jit = off", f"SET default_transaction_isolation = '{_ISOLATION}'"])

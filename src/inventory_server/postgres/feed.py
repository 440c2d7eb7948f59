"""The ledger as a feed: pages of it in an order that no transaction can slip into, and a sleep that its growth ends."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import psycopg

from inventory_server.domain import FeedChange, Movement, Position
from inventory_server.postgres.arrays import texts
from inventory_server.postgres.database import first_line
from inventory_server.postgres.queries import query

if TYPE_CHECKING:
    from collections.abc import Collection
    from types import TracebackType

    from inventory_server.postgres.database import Database
    from inventory_server.settings import Settings

log = logging.getLogger(__name__)

_FEED = query("feed")
_FEED_NOW = query("feed_now")
_FEED_SLEEP = query("feed_sleep")

# A server that cannot be reached is asked again this much later: without the alarm the feed is only slower.
_RETRY_SECONDS = 5.0


class UnknownPosition(Exception):
    """The ledger has no such position: it is of another database, or a crash or failover took the movement back."""


class Page(NamedTuple):
    """Changes in the order of their positions. No transaction can add any up to `end`, also after a crash.

    A `full` page ends before the ledger does.
    """

    changes: list[FeedChange]
    end: Position
    full: bool


class FeedRepository:
    """Reads the ledger of all products."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def now(self) -> Position:
        """Give the position of the last movement; whatever commits from now on comes after it."""
        _, last = await self._end()
        return last

    async def beginning(self, mark: Position) -> Position:
        """Give the position to go on from after a mark, which is of no movement: those before it have been told.

        Servers once told the horizon as a mark. Where no movement has come after it, the last one before says the same,
        and holds after a crash. A mark ahead of the horizon is from before a crash, or of another database: what has
        been written since then may lie below it.
        """
        horizon, last = await self._end()
        if mark.transaction_id > horizon:
            raise UnknownPosition
        return min(mark, last)

    async def page(
        self, after: Position, changes_max: int, product_ids: Collection[str] | None = None, *, again: bool = False
    ) -> Page:
        """Read on after a position, by default for all products; or `again` the movement there, too.

        The last change may be one that is not wanted. Raises UnknownPosition.
        """
        wanted = None if product_ids is None else texts(product_ids)
        parameters = (str(after[0]), after[1], str(after[2]), again, wanted, changes_max)
        rows = await self._database.fetch(_FEED, parameters)
        if not rows[0][0]:
            raise UnknownPosition
        changes = [_change(*row[2:]) for row in rows if row[1] is not None]
        end = changes[-1].position if changes else after
        return Page(changes, end, full=rows[-1][1] == changes_max)

    async def _end(self) -> tuple[int, Position]:
        """Give the horizon, below which every transaction has ended, and the position of the last movement there."""
        ((horizon, transaction_id, product_id, version),) = await self._database.fetch(_FEED_NOW)
        return int(horizon), Position(int(transaction_id or 0), product_id or "", version or 0)


def _change(transaction_id: str, product_id: str, version: int, *row: Any) -> FeedChange:
    return FeedChange(Position(int(transaction_id), product_id, version), Movement(product_id, version, *row))


class Alarm:
    """A connection of its own that PostgreSQL wakes when the ledger grows, while `sleep` says that it may.

    Nothing is lost where it fails or is not usable, behind a pooler: one only sleeps longer.
    """

    def __init__(self, url: str, settings: Settings) -> None:
        self._url = url
        self._usable = settings.prepared_statements
        self._timeout = settings.connect_timeout
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self._armed = False
        self._retry_at = 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def sleep(self, seconds: float) -> bool:
        """Sleep until the ledger grows, and tell if it did; for `seconds` at most.

        What was about to commit when this began is told by the next read only: the first sleep must be a short one.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        if self._usable and loop.time() >= self._retry_at:
            try:
                connection = await self._arm()
                return [_ async for _ in connection.notifies(timeout=until - loop.time(), stop_after=1)] != []
            except (psycopg.Error, OSError, TimeoutError) as error:
                await self._fail(error)
        await asyncio.sleep(until - loop.time())
        return False

    async def stay_awake(self) -> None:
        """Have nobody wake us, which costs them time, as long as we look often anyway."""
        if not self._armed or self._connection is None:
            return
        self._armed = False
        try:
            await self._tell(self._connection, asleep=False)
        except (psycopg.Error, OSError, TimeoutError) as error:
            await self._fail(error)

    async def _arm(self) -> psycopg.AsyncConnection[Any]:
        if self._connection is None:
            async with asyncio.timeout(self._timeout):
                self._connection = await self._connect()
                await self._check(self._connection)
                await self._connection.execute("LISTEN inventory_movements")
        if not self._armed:
            await self._tell(self._connection, asleep=True)
            self._armed = True
        return self._connection

    async def _connect(self) -> psycopg.AsyncConnection[Any]:
        return await psycopg.AsyncConnection.connect(
            self._url,
            autocommit=True,
            prepare_threshold=None,
            connect_timeout=max(1, round(self._timeout)),
            application_name="inventory-server feed",
            # A peer that vanished without a word is noticed, though it never answers.
            tcp_user_timeout=round(self._timeout * 1000),
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
        )

    async def _check(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """Give up before a pooler: our lock and our ear would stay in sessions that others use."""
        cursor = await connection.execute("SELECT pg_backend_pid()")
        if await cursor.fetchone() != (connection.info.backend_pid,):
            self._usable = False
            raise psycopg.NotSupportedError("a pooler stands before PostgreSQL")

    async def _tell(self, connection: psycopg.AsyncConnection[Any], *, asleep: bool) -> None:
        async with asyncio.timeout(self._timeout):
            await connection.execute(_FEED_SLEEP, (asleep,))

    async def _fail(self, error: Exception) -> None:
        log.warning("nobody wakes the feed: %s", first_line(error))
        self._retry_at = asyncio.get_running_loop().time() + _RETRY_SECONDS
        await self._close()

    async def _close(self) -> None:
        connection, self._connection, self._armed = self._connection, None, False
        if connection is not None:
            await connection.close()

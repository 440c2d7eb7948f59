"""The live feed: one reader of the ledger tells every watcher, and each watcher may come from the past.

A watcher that resumes reads its backlog from the database, a page at a time and as fast as its caller takes it, until
it stands where the reader stands or further on. From then on the reader tells it, and it ignores what it has seen.
Reader and watchers share one event loop, and between a look at both positions and the joining nothing is awaited: so
there is neither a gap nor a repeat.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import TYPE_CHECKING

from inventory_server.errors import DatabaseUnavailable, InternalError, Overloaded, ValidationError, Violation
from inventory_server.postgres.feed import Page, UnknownPosition

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Sequence

    from inventory_server.domain import FeedChange, Position
    from inventory_server.errors import InventoryError
    from inventory_server.postgres.feed import Alarm, FeedRepository

log = logging.getLogger(__name__)

# One page is decoded at once, while everybody else waits.
_PAGE_CHANGES_MAX = 500
# While the ledger grows it is read this often, and half as often after each time in vain.
_PAUSE_SECONDS_MIN = 0.01
# From this pause on it is better to be woken. What was about to commit just then waits so long, too.
_ALARM_SECONDS_MIN = 0.04
_RETRY_SECONDS = 0.5


class _Watcher:
    """What waits for one caller; `position` is how far it has seen the ledger before it joined the others."""

    def __init__(self, product_ids: frozenset[str] | None, position: Position, queue_size: int) -> None:
        self.product_ids = product_ids
        self.position = position
        self.queue: deque[FeedChange] = deque()
        self.failure: InventoryError | None = None
        self.news = asyncio.Event()
        self._queue_size = queue_size

    def wants(self, change: FeedChange) -> bool:
        return self.product_ids is None or change.position.product_id in self.product_ids

    def tell(self, change: FeedChange) -> None:
        if self.failure is not None or change.position <= self.position:
            return
        if len(self.queue) >= self._queue_size:
            self.fail(Overloaded("The changes are read too slowly; go on from the last resume token."))
        else:
            self.queue.append(change)
            self.news.set()

    def fail(self, error: InventoryError) -> None:
        """Tell it nothing more; the caller gets what waits for it, and then the error."""
        self.failure = error
        self.news.set()


class _Audience:
    """The watchers that the reader tells, by what they want."""

    def __init__(self) -> None:
        self._all: set[_Watcher] = set()
        self._of_all_products: set[_Watcher] = set()
        self._by_product: dict[str, set[_Watcher]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def add(self, watcher: _Watcher) -> None:
        self._all.add(watcher)
        if watcher.product_ids is None:
            self._of_all_products.add(watcher)
        for product_id in watcher.product_ids or ():
            self._by_product.setdefault(product_id, set()).add(watcher)

    def remove(self, watcher: _Watcher) -> None:
        """Forget a watcher; safe for one that never joined."""
        if watcher not in self._all:
            return
        self._all.remove(watcher)
        self._of_all_products.discard(watcher)
        for product_id in watcher.product_ids or ():
            self._by_product[product_id].remove(watcher)
            if not self._by_product[product_id]:
                del self._by_product[product_id]

    def tell(self, changes: Iterable[FeedChange]) -> None:
        for change in changes:
            for watcher in self._of_all_products:
                watcher.tell(change)
            for watcher in self._by_product.get(change.position.product_id, ()):
                watcher.tell(change)

    def fail(self, error: InventoryError) -> None:
        for watcher in self._all:
            watcher.fail(error)


class Feed:
    """Streams of changes, any number of them. Reads and listens only while somebody watches.

    `came_back` is told of each product of which units became available, as long as the feed reads. A watcher that has
    heard nothing for `mark_interval` seconds is told how far the others have come.
    """

    def __init__(
        self,
        repository: FeedRepository,
        new_alarm: Callable[[], Alarm],
        interval: float,
        queue_size: int,
        came_back: Callable[[str], None] = lambda _: None,
        mark_interval: float = 30.0,
    ) -> None:
        self._repository = repository
        self._new_alarm = new_alarm
        self._interval = interval
        self._queue_size = queue_size
        self._came_back = came_back
        self._mark_interval = mark_interval
        self._audience = _Audience()
        # How far the reader has told its audience; None while nobody is there.
        self._position: Position | None = None
        self._reader: asyncio.Task[None] | None = None
        self._read_at = 0.0  # when it last stood at the ledger's end, in monotonic seconds
        # Whoever resumes waits for the others, so that a crowd that comes back takes one connection and not the pool.
        self._backlog = asyncio.Semaphore(1)

    @property
    def watchers(self) -> int:
        """How many watchers have caught up."""
        return len(self._audience)

    @property
    def lag(self) -> float:
        """How long ago the reader stood at the ledger's end, in seconds; 0 while nobody watches."""
        return 0.0 if self._position is None else time.monotonic() - self._read_at

    async def watch(
        self, product_ids: frozenset[str] | None = None, after: Position | None = None, *, again: bool = False
    ) -> AsyncGenerator[FeedChange | Position]:
        """Stream the changes of some products or all, from now on or after a position, in the ledger's order.

        With `again` the change at the position comes first. A position among the changes says that whoever goes on
        after it misses nothing: at the start of a stream that begins now, and after a while in which something happened
        but nothing that is wanted.

        When this returns the start is fixed. Raises ValidationError for a position that this database does not have,
        and DatabaseUnavailable; the stream itself waits for a database that is away. It raises Overloaded where its
        changes are taken too slowly, and DatabaseUnavailable where the database that comes back lacks changes that were
        told: then another watch finds out whether they are among those before its position. Close it to free what it
        holds.
        """
        if after is None:
            page = Page([], await self._repository.now(), full=False)
        else:
            page = await self._read_first(after, product_ids, again=again)
        return self._changes(_Watcher(product_ids, page.end, self._queue_size), page, after)

    async def close(self) -> None:
        """Stop reading; watchers that are left hear nothing more."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)

    async def _changes(
        self, watcher: _Watcher, page: Page, known: Position | None
    ) -> AsyncGenerator[FeedChange | Position]:
        try:
            if known is None:
                yield page.end
            while True:
                for change in filter(watcher.wants, page.changes):
                    yield change
                watcher.position = page.end
                if self._join(watcher, at_end=not page.full):
                    break
                page = await self._read_on(watcher)
            while True:
                while watcher.queue:
                    yield watcher.queue.popleft()
                if watcher.failure is not None:
                    raise watcher.failure
                watcher.news.clear()
                known = self._position
                if not await _within(self._mark_interval, watcher.news) and self._position not in (None, known):
                    yield self._position
        finally:
            self._audience.remove(watcher)

    def _join(self, watcher: _Watcher, *, at_end: bool) -> bool:
        """Have the reader tell a watcher, if it has seen all that the reader has; start one where there is none."""
        if self._position is None and at_end:
            self._position = watcher.position
            self._read_at = time.monotonic()
            self._reader = asyncio.create_task(self._follow(watcher.position))
        if self._position is None or watcher.position < self._position:
            return False
        self._audience.add(watcher)
        return True

    async def _read_first(self, after: Position, product_ids: frozenset[str] | None, *, again: bool) -> Page:
        try:
            async with self._backlog:
                if after.version == 0:
                    after = await self._repository.beginning(after)
                return await self._repository.page(after, _PAGE_CHANGES_MAX, product_ids, again=again)
        except UnknownPosition as error:
            raise ValidationError([Violation("resume_token", "is not of this database")]) from error

    async def _read_on(self, watcher: _Watcher) -> Page:
        while True:
            try:
                async with self._backlog:
                    return await self._repository.page(watcher.position, _PAGE_CHANGES_MAX, watcher.product_ids)
            except DatabaseUnavailable:
                await asyncio.sleep(_RETRY_SECONDS)
            except UnknownPosition as error:
                raise DatabaseUnavailable from error

    async def _follow(self, position: Position) -> None:
        try:
            async with self._new_alarm() as alarm:
                pause = _PAUSE_SECONDS_MIN
                while self._audience:
                    page = await self._read(position)
                    if page is not None:
                        self._tell(page.changes)
                        self._position = position = page.end
                        if page.full:
                            continue
                        self._read_at = time.monotonic()
                    pause = await self._rest(alarm, pause, grown=page is not None and bool(page.changes))
                self._position = None
        except UnknownPosition:
            log.error("PostgreSQL lost movements that were told: watchers must resume")  # noqa: TRY400 — we know where
            self._audience.fail(DatabaseUnavailable())
        except Exception:
            log.exception("the feed failed")
            self._audience.fail(InternalError())
        finally:
            # Another reader may be at work by now, if this one had told that it was leaving.
            if self._reader is asyncio.current_task():
                self._position = None

    def _tell(self, changes: Sequence[FeedChange]) -> None:
        self._audience.tell(changes)
        for product_id in {change.position.product_id for change in changes if change.movement.available_delta > 0}:
            self._came_back(product_id)

    async def _read(self, after: Position) -> Page | None:
        try:
            return await self._repository.page(after, _PAGE_CHANGES_MAX)
        except DatabaseUnavailable:
            return None

    async def _rest(self, alarm: Alarm, pause: float, *, grown: bool) -> float:
        """Rest between two reads, and give the length of the next rest."""
        if grown:
            pause = _PAUSE_SECONDS_MIN
        if pause < min(_ALARM_SECONDS_MIN, self._interval):
            await alarm.stay_awake()
            await asyncio.sleep(pause)
        elif await alarm.sleep(pause):
            return _PAUSE_SECONDS_MIN
        return min(pause * 2, self._interval)


async def _within(seconds: float, event: asyncio.Event) -> bool:
    """Wait for an event, and tell whether it came in time."""
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False

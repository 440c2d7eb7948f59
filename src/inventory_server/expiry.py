"""The expiry worker: a thread of its own, so that holds go back on time however busy the RPCs are.

Expiry itself is a rule that the statements keep; the worker only tidies up. Any number of replicas may run one.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import TYPE_CHECKING

from inventory_server.cache import ReservationCache
from inventory_server.errors import DatabaseUnavailable
from inventory_server.metrics import Counter, Gauge
from inventory_server.postgres.database import BadItem, Database, RowLocked
from inventory_server.postgres.holds import HoldRepository
from inventory_server.reach import Reach
from inventory_server.retention import retain

if TYPE_CHECKING:
    from collections.abc import Callable

    from inventory_server.settings import Settings

log = logging.getLogger(__name__)

EXPIRED = Counter(
    "inventory_expired_holds_total",
    "Expired holds that a worker looked at: released, or set aside since the stock row is inconsistent or locked.",
    ["outcome"],
    [("released",), ("inconsistent",), ("locked",)],
)
LAST_RUN = Gauge(
    "inventory_expiry_last_run_timestamp_seconds",
    "When an expiry worker last looked for expired holds and PostgreSQL answered.",
    merge=max,
)


# While there are many, the worker rests for this share of what each batch took, but no longer than between two looks:
# it keeps rows that reserves want. Nobody waits for it, since a reserve takes back what it needs.
_REST_SHARE = 0.75
# How many holds are looked at where a row is stuck, so that the turn of the others comes however many it has.
_STUCK_MAX = 10_000


class ExpiryWorker:
    """Looks for expired holds in batches, and soon again while batches are full."""

    def __init__(self, repository: HoldRepository, cache: ReservationCache, settings: Settings) -> None:
        self._repository = repository
        self._cache = cache
        self._batch_size = settings.expiry_batch_size
        self._interval = settings.expiry_interval
        self._reach = Reach()

    async def run_once(self) -> int:
        """Release up to a batch of expired holds and tell how many were looked at; may raise DatabaseUnavailable."""
        began = time.monotonic()
        reach = self._reach.seconds(began)
        looked_at = await self._repository.expire(self._batch_size, reach)
        if len(looked_at) < self._batch_size:
            self._reach.looked(reach, began)
        released = [hold.reservation_id for hold in looked_at if hold.reserved is None]
        for hold in looked_at:
            if hold.reserved is not None:
                log.error(
                    "INVALID_STOCK_STATE: product %s has %d units reserved, fewer than the %d of expired reservation"
                    " %s, which is set aside",
                    hold.product_id,
                    hold.reserved,
                    hold.quantity,
                    hold.reservation_id,
                )
        LAST_RUN.set(to=time.time())
        EXPIRED.inc("released", by=len(released))
        EXPIRED.inc("inconsistent", by=len(looked_at) - len(released))
        self._cache.forget(released)
        if released:
            log.info("released %d expired holds", len(released))
        return len(looked_at)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until told to stop; a database that is away is waited for."""
        while not stop.is_set():
            began = time.monotonic()
            more = await self._look()
            rest = _REST_SHARE * (time.monotonic() - began)
            try:
                await asyncio.wait_for(stop.wait(), min(rest, self._interval) if more else self._interval)
            except TimeoutError:
                continue

    async def _look(self) -> bool:
        """Tell whether there was a whole batch, or one that a locked row spoiled, and so perhaps more."""
        try:
            return await self.run_once() >= self._batch_size
        except RowLocked:
            return await self._set_aside()
        except DatabaseUnavailable:
            return False
        except BadItem:
            log.exception("expired holds could not be released")
            return False

    async def _set_aside(self) -> bool:
        """Let the holds of a stock row that somebody keeps locked wait, so that they do not hold up the others."""
        self._reach.forget()
        try:
            stuck = await self._repository.set_aside(_STUCK_MAX)
        except DatabaseUnavailable:
            return False
        for product_id, holds in stuck:
            log.warning("%d expired holds of product %s wait: somebody keeps its row locked", holds, product_id)
        EXPIRED.inc("locked", by=sum(holds for _, holds in stuck))
        return bool(stuck)


class ExpiryThread:
    """Runs the worker with an event loop and a connection of its own. `stop` is safe unstarted and twice."""

    def __init__(
        self,
        database_url: str,
        redis_url: str,
        settings: Settings,
        new_event_loop: Callable[[], asyncio.AbstractEventLoop],
    ) -> None:
        self._database_url = database_url
        self._redis_url = redis_url
        self._settings = settings
        self._new_event_loop = new_event_loop
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    def start(self) -> None:
        # Made here, so that a loop that cannot be had is told to the caller.
        self._loop, self._stop = self._new_event_loop(), asyncio.Event()
        self._thread = threading.Thread(target=self._main, args=(self._loop, self._stop), name="expiry", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Let the batch under way end, and wait for the thread."""
        if self._thread is None or self._loop is None or self._stop is None:
            return
        try:
            self._loop.call_soon_threadsafe(self._stop.set)
        except RuntimeError:  # the loop is closed: the thread has ended
            log.debug("the expiry worker had stopped already")
        self._thread.join()
        self._thread = None

    def _main(self, loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(self._work(stop))

    async def _work(self, stop: asyncio.Event) -> None:
        database = Database(self._database_url, self._settings, size=1, name="expiry")
        cache = ReservationCache(self._redis_url, self._settings)
        retaining = asyncio.create_task(retain(self._database_url, self._settings, stop))
        await database.open()
        try:
            while not stop.is_set():
                try:
                    await ExpiryWorker(HoldRepository(database), cache, self._settings).run(stop)
                except Exception:
                    log.exception("the expiry worker stumbled and goes on")
                    await asyncio.sleep(self._settings.expiry_interval)
        finally:
            await retaining
            await cache.close()
            await database.close()

"""Retention: what ended longer ago than INVENTORY_RETENTION is forgotten, a little at a time.

Of each product the oldest movements go, once all that they tell of is over, and with them the holds that ended then. A
CARRY_FORWARD takes their place in the ledger, so that the audit holds before, meanwhile and after. A request that is
sent again later than that is not recognised: it counts as a new one.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from typing import TYPE_CHECKING

from inventory_server.errors import DatabaseUnavailable
from inventory_server.metrics import Counter, Gauge
from inventory_server.postgres.database import BadItem, Database
from inventory_server.postgres.retaining import RetentionRepository

if TYPE_CHECKING:
    from inventory_server.postgres.retaining import Retained
    from inventory_server.settings import Settings

log = logging.getLogger(__name__)

REMOVED = Counter(
    "inventory_retention_removed_total", "Rows that retention removed.", ["what"], [("movements",), ("holds",)]
)
LAST_RUN = Gauge(
    "inventory_retention_last_run_timestamp_seconds",
    "When retention last finished a batch, or found another server at it.",
    merge=max,
)

# A batch takes some tens of milliseconds, so that whoever asks for one of its holds meanwhile does not notice.
_MOVEMENTS_MAX = 1000
_PRODUCTS_MAX = 500
# Nothing here is urgent: a batch that takes longer gives up, and one that would wait for a lock does not.
_STATEMENT_SECONDS = 2.0
_LOCK_SECONDS = 0.1
# Pauses as multiples of what the batch before took: half the time where there is something to do, a tenth where not.
_PAUSE_BUSY = 1.0
_PAUSE_IDLE = 9.0


class RetentionWorker:
    """Goes round all products in batches. `keep` is in seconds."""

    def __init__(self, repository: RetentionRepository, keep: float, interval: float) -> None:
        self._repository = repository
        self._keep_us = round(keep * 1_000_000)
        self._interval = interval
        self._after = ""

    async def run_once(self) -> Retained | None:
        """Do one batch, and tell what went; None where another server is at it. May raise DatabaseUnavailable."""
        retained = await self._repository.retain(self._after, self._keep_us, _PRODUCTS_MAX, _MOVEMENTS_MAX)
        LAST_RUN.set(to=time.time())
        if retained is not None:
            REMOVED.inc("movements", by=retained.movements)
            REMOVED.inc("holds", by=retained.holds)
            self._after = "" if retained.last else retained.product_id
            if retained.movements:
                log.info("retention removed %d movements and %d holds", retained.movements, retained.holds)
        return retained

    async def run(self, stop: asyncio.Event) -> None:
        """Work until told to stop, at most half the time."""
        while not stop.is_set():
            try:
                await asyncio.wait_for(stop.wait(), await self._step())
            except TimeoutError:
                continue

    async def _step(self) -> float:
        """Do one batch, and tell how long to pause."""
        began = time.monotonic()
        try:
            retained = await self.run_once()
        except (DatabaseUnavailable, BadItem) as error:
            log.warning("retention waits: %s", error)
            return self._interval
        except Exception:
            log.exception("retention stumbled and goes on")
            return self._interval
        took = time.monotonic() - began
        if retained is None:
            return self._interval
        pause = took * (_PAUSE_BUSY if retained.movements else _PAUSE_IDLE)
        return max(pause, self._interval) if retained.last else pause


async def retain(database_url: str, settings: Settings, stop: asyncio.Event) -> None:
    """Run the worker on a connection of its own until told to stop; return at once where retention is off."""
    if settings.retention is None:
        return
    limits = dataclasses.replace(settings, statement_timeout=_STATEMENT_SECONDS, lock_timeout=_LOCK_SECONDS)
    database = Database(database_url, limits, size=1, name="retention")
    await database.open()
    try:
        await RetentionWorker(RetentionRepository(database), settings.retention, settings.expiry_interval).run(stop)
    finally:
        await database.close()

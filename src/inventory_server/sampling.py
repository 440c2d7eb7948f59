"""What is measured from time to time rather than counted: queues, pools, watchers, memory, and how late expiry is.

Runs only where somebody asks for metrics.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from inventory_server.batcher import measure_depths
from inventory_server.errors import InventoryError
from inventory_server.metrics import Counter, Gauge, Histogram
from inventory_server.postgres.queries import query
from inventory_server.reach import Reach

if TYPE_CHECKING:
    from inventory_server.feed import Feed
    from inventory_server.inventory import Inventory
    from inventory_server.postgres.database import Database
    from inventory_server.rpc.boundary import Calls

log = logging.getLogger(__name__)

_OVERDUE = query("overdue")

_PAUSE_SECONDS = 0.5
# Each is a short look at the front of an index.
_OVERDUE_PAUSE_SECONDS = 2.0
_STATM = Path("/proc/self/statm")

WORKERS = Gauge("inventory_workers", "Server processes that run, the supervisor aside.")
IN_FLIGHT = Gauge("inventory_requests_in_flight", "Calls under way, streams aside.")
WAITERS = Gauge("inventory_waiters", "Orders that wait for units to come back.")
BULK = Gauge("inventory_bulk_calls", "Bulk calls under way or waiting; more than 64 reads, or 64 changes, are refused.")
WATCHERS = Gauge("inventory_feed_watchers", "Callers of WatchStock that have caught up with the ledger.")
FEED_LAG = Gauge(
    "inventory_feed_lag_seconds",
    "Time since the feed last stood at the end of the ledger; 0 while nobody watches.",
    merge=max,
)
EXPIRY_LAG = Gauge(
    "inventory_expiry_lag_seconds",
    "For how long the oldest hold has been due that no worker has released yet, whoever runs one.",
    merge=max,
)
LOOP_LAG = Histogram("inventory_event_loop_lag_seconds", "How late the event loop of the RPCs wakes up.")
CPU = Counter("inventory_workers_cpu_seconds_total", "Processor time of the server processes, the supervisor aside.")
MEMORY = Gauge(
    "inventory_workers_resident_memory_bytes", "Memory of the server processes, the supervisor aside (Linux)."
)


async def sample(database: Database, inventory: Inventory, feed: Feed, calls: Calls) -> None:
    """Measure for ever."""
    loop = asyncio.get_running_loop()
    overdue = asyncio.create_task(_measure_overdue(database))
    used = 0.0
    WORKERS.set(to=1)
    try:
        while True:
            due = loop.time() + _PAUSE_SECONDS
            IN_FLIGHT.set(to=calls.in_flight)
            WAITERS.set(to=inventory.waiting)
            BULK.set(to=inventory.bulk_waiting)
            WATCHERS.set(to=feed.watchers)
            FEED_LAG.set(to=feed.lag)
            measure_depths()
            database.measure_pool()
            _measure_memory()
            now = time.process_time()
            CPU.inc(by=now - used)
            used = now
            await asyncio.sleep(due - loop.time())
            LOOP_LAG.observe(of=max(0.0, loop.time() - due))
    except Exception:
        log.exception("metrics are measured no longer")
    finally:
        overdue.cancel()


async def _measure_overdue(database: Database) -> None:
    reaching = Reach()
    while True:
        began = time.monotonic()
        reach = reaching.seconds(began)
        try:
            ((seconds,),) = await database.fetch(_OVERDUE, (reach,))
            EXPIRY_LAG.set(to=seconds)
            reaching.looked(reach, began, left=seconds)
        except InventoryError:
            EXPIRY_LAG.forget()  # nobody knows
        await asyncio.sleep(_OVERDUE_PAUSE_SECONDS)


def _measure_memory() -> None:
    try:
        pages = int(_STATM.read_text().split()[1])
    except OSError:
        return
    MEMORY.set(to=pages * os.sysconf("SC_PAGE_SIZE"))

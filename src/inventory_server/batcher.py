"""Lanes: requests of one kind that arrive while a batch is under way form the next batch."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import WeakSet

from inventory_server.attempts import attempt
from inventory_server.errors import InventoryError, Overloaded
from inventory_server.metrics import Counter, Gauge, Histogram
from inventory_server.metrics.instruments import SIZES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Sequence

    from inventory_server.postgres.database import BadItem

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Value = TypeVar("Value")

OPERATIONS = (
    "initialize",
    "read_stock",
    "change_stock",
    "reserve",
    "settle",
    "settle_order",
    "extend",
    "extend_order",
    "read_reservation",
    "find_locked",
    "tidy",
)
# A batch gathers until this share of those under way is back: the database serves one half while the loop serves the
# other. With all of them each had to wait for the other; few callers got half as much done.
_GATHER_UNTIL = 0.5
# How many times as long as it was meant to a pause takes in a busy loop; timers of milliseconds may take twice that.
_BUSY = 2.5
_SERIES = [(operation,) for operation in OPERATIONS]

DEPTH = Gauge(
    "inventory_lane_depth", "Requests that wait for their batch; INVENTORY_QUEUE_SIZE a lane.", ["operation"], _SERIES
)
BATCH = Histogram("inventory_batch_size", "Requests of a batch.", ["operation"], _SERIES, bounds=SIZES)
TOOK = Histogram("inventory_batch_duration_seconds", "Time a batch was under way.", ["operation"], _SERIES)
DROPPED = Counter(
    "inventory_lane_overloaded_total", "Requests refused since the lane's queue was full.", ["operation"], _SERIES
)


class _Entry(Generic[Item, Value]):
    """A request in a lane: what it asks, where its answer goes, and until when it is wanted (in the loop's time)."""

    __slots__ = ("deadline", "future", "item")

    def __init__(self, item: Item, future: asyncio.Future[Value], deadline: float | None) -> None:
        self.item = item
        self.future = future
        self.deadline = deadline


class Lane(Generic[Item, Value]):
    """Collects requests into batches and runs one batch at a time.

    A request that finds the lane idle starts at once; between two batches the lane waits until half of its callers are
    back, for as long as each `gather_pause` brings another one, up to the time of the batch before, and `gather_max`
    seconds. `key` tells which requests must not share a batch: of those with one key the later waits for the next
    batch; without `key` any may share one. `weight` tells how many ordinary requests one is worth: a batch takes no
    more once it weighs `batch_size`. `after` sees the values of a batch once they have been handed out.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Awaitable[Sequence[Value | InventoryError]]],
        *,
        name: str,
        key: Callable[[Item], Hashable] | None,
        refusal: Callable[[Item, BadItem], InventoryError],
        after: Callable[[Sequence[Value]], None] | None = None,
        weight: Callable[[Item], int] = lambda _: 1,
        batch_size: int,
        queue_size: int,
        gather_pause: float = 0.0,
        gather_max: float = 0.0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.name = name
        self._run = run
        self._key = key
        self._refusal = refusal
        self._after = after
        self._weight = weight
        self._batch_size = batch_size
        self._queue_size = queue_size
        self._gather_pause = gather_pause
        self._gather_max = gather_max
        self._clock = clock
        self._queue: deque[_Entry[Item, Value]] = deque()
        self._task: asyncio.Task[None] | None = None
        _lanes.add(self)

    @property
    def depth(self) -> int:
        return len(self._queue)

    async def submit(self, item: Item, deadline: float | None = None) -> Value:
        """Have a request answered.

        Raises its error, Overloaded where too many are waiting, or TimeoutError where the deadline passed before its
        batch began.
        To cancel the caller drops the request if its batch has not started; a batch under way goes on.
        """
        if len(self._queue) >= self._queue_size:
            DROPPED.inc(self.name)
            raise Overloaded
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Value] = loop.create_future()
        self._queue.append(_Entry(item, future, deadline))
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._drain())
        return await future

    async def _drain(self) -> None:
        while batch := self._take():
            began = self._clock()
            outcomes = await attempt(self._run, [entry.item for entry in batch], self._refusal)
            took = self._clock() - began
            TOOK.observe(self.name, of=took)
            BATCH.observe(self.name, of=len(batch))
            _answer(batch, outcomes)
            self._follow(outcomes)
            if len(batch) > 1 or self._queue:
                await self._gather(took, len(batch) + len(self._queue))

    def _follow(self, outcomes: Sequence[Value | InventoryError]) -> None:
        try:
            if self._after is not None:
                self._after([outcome for outcome in outcomes if not isinstance(outcome, InventoryError)])
        except Exception:
            log.exception("what follows a batch failed")

    async def _gather(self, took: float, callers: int) -> None:
        """Let the next batch grow while requests keep coming in.

        The last one took so many seconds; so many callers were answered by it, or wait.

        The callers just answered come back together. Without this the first of them would start a batch alone, and a
        busy server would spend its time on the overhead of small batches. A lane with one caller never waits here.

        A pause that took far longer than it was meant to says that the loop is busy with requests on their way here:
        nobody is kept waiting then who would not wait for the processor anyway.
        """
        loop = asyncio.get_running_loop()
        now = loop.time()
        end = now + min(self._gather_max, took)
        enough = _GATHER_UNTIL * callers
        seen, busy = -1, False
        while (len(self._queue) > seen or busy) and len(self._queue) < enough and now < end:
            seen, before = len(self._queue), now
            await asyncio.sleep(self._gather_pause)
            now = loop.time()
            busy = now - before > _BUSY * self._gather_pause > 0

    def _take(self) -> list[_Entry[Item, Value]]:
        """Take the next batch off the queue; what nobody waits for any more is dropped."""
        batch: list[_Entry[Item, Value]] = []
        postponed: list[_Entry[Item, Value]] = []
        keys: set[Hashable] = set()
        now = asyncio.get_running_loop().time()
        room = self._batch_size
        while self._queue and room > 0:
            entry = self._queue.popleft()
            if entry.future.done():
                continue
            if entry.deadline is not None and entry.deadline <= now:
                entry.future.set_exception(TimeoutError())
                continue
            if self._key is not None:
                key = self._key(entry.item)
                if key in keys:
                    postponed.append(entry)
                    continue
                keys.add(key)
            batch.append(entry)
            room -= self._weight(entry.item)
        self._queue.extendleft(reversed(postponed))
        return batch


_lanes: WeakSet[Lane[Any, Any]] = WeakSet()


def measure_depths() -> None:
    """Say how many requests wait for their batches at this moment."""
    depths = dict.fromkeys(OPERATIONS, 0)
    for lane in _lanes:
        depths[lane.name] += lane.depth
    for operation, depth in depths.items():
        DEPTH.set(operation, to=depth)


def _answer(batch: Sequence[_Entry[Item, Value]], outcomes: Sequence[Value | InventoryError]) -> None:
    for entry, outcome in zip(batch, outcomes, strict=True):
        if entry.future.done():
            continue
        if isinstance(outcome, InventoryError):
            entry.future.set_exception(outcome)
        else:
            entry.future.set_result(outcome)

"""Several worker processes that serve one address, and the process that keeps them running.

Python runs one thread at a time, so one process serves what one core can. The kernel shares the connections out among
the workers (SO_REUSEPORT); each is a whole server, and the database keeps them in step as it does replicas.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

from inventory_server import stopping
from inventory_server.metrics import Counter
from inventory_server.metrics.page import DESCRIPTOR

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from inventory_server.metrics.page import Page

log = logging.getLogger(__name__)

# A worker that ends sooner than this has not served: it waits longer and longer before it is started again.
_STEADY_SECONDS = 10.0
_BACKOFF_SECONDS_MAX = 10.0
_POLL_SECONDS = 0.2
# What a worker gets beyond its own drain before it is killed.
_GRACE_SECONDS = 5.0
# A worker that has served and is not heard for so long serves nobody: it is frozen, and the kernel goes on giving it
# connections. Counted in looks of ours, because whatever stops us may have stopped it, too.
_SILENT_SECONDS_MAX = 30.0
# Names the descriptor of a pipe to a worker. It writes there as long as it is well, and stops when nobody reads.
PULSE = "INVENTORY_PULSE_DESCRIPTOR"

DEATHS = Counter("inventory_worker_deaths_total", "Workers that ended although nobody told them to.")


class WorkersFailedError(Exception):
    """A worker ended before it had ever served; its own log says why."""


class Supervisor:
    """Runs a worker for each page until told to stop, and starts anew those that die. No metrics, no page: None."""

    def __init__(self, pages: Sequence[Page | None], environment: Mapping[str, str], grace: float) -> None:
        self._workers = [_Worker(environment, page) for page in pages]
        self._grace = grace + _GRACE_SECONDS
        self._stop = threading.Event()

    def run(self) -> None:
        """Serve until told to stop. Call it from the main thread; WorkersFailedError ends it early."""
        stopping.on_signal(self._stop.set)
        try:
            for worker in self._workers:
                worker.start()
            while not self._stop.wait(_POLL_SECONDS):
                for worker in self._workers:
                    worker.look()
        finally:
            self._end()

    def _end(self) -> None:
        for worker in self._workers:
            worker.signal(signal.SIGTERM)
        deadline = time.monotonic() + self._grace
        for worker in self._workers:
            worker.wait(deadline)


class _Worker:
    """One worker process, over all its lives."""

    def __init__(self, environment: Mapping[str, str], page: Page | None) -> None:
        self._page = page
        self._heard, self._pulse = os.pipe()
        for end in (self._heard, self._pulse):
            os.set_blocking(end, False)
        self._descriptors = [self._pulse] if page is None else [self._pulse, page.descriptor]
        self._environment = {**environment, PULSE: str(self._pulse)}
        if page is not None:
            self._environment[DESCRIPTOR] = str(page.descriptor)
        self._process: subprocess.Popen[bytes] | None = None
        self._was_steady = False
        self._backoff = 0.5
        self._start_at = 0.0

    def start(self) -> None:
        self._started = time.monotonic()
        self._silent_seconds: float | None = None  # until it is heard for the first time
        _is_written_to(self._heard)  # by the one before, of which nothing is left then
        # A group of its own, so that the terminal's Ctrl-C reaches the supervisor alone, which then has them drain.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "inventory_server", "serve"],
            env=self._environment,
            process_group=0,
            pass_fds=self._descriptors,
        )
        log.info("worker %d started", self._process.pid)

    def look(self) -> None:
        """Start the worker anew if it has died and has waited long enough."""
        now = time.monotonic()
        if self._process is None:
            if now >= self._start_at:
                self.start()
            return
        status = self._process.poll()
        steady = now - self._started >= _STEADY_SECONDS
        self._was_steady = self._was_steady or steady
        if status is None:
            self._listen(self._process)
            return
        DEATHS.inc()
        if self._page is not None:
            self._page.forget_gauges()
        if status > 0 and not self._was_steady:
            raise WorkersFailedError(f"A worker could not serve (exit status {status}).")
        self._backoff = 0.5 if steady else min(self._backoff * 2, _BACKOFF_SECONDS_MAX)
        self._start_at = now + self._backoff
        log.error("worker %d ended with %d and is started again in %.1f s", self._process.pid, status, self._backoff)
        self._process = None

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        """Kill it if it has been silent for too long; the next look finds it dead."""
        if _is_written_to(self._heard):
            self._silent_seconds = 0.0
        elif self._silent_seconds is not None:
            self._silent_seconds += _POLL_SECONDS
            if self._silent_seconds >= _SILENT_SECONDS_MAX:
                log.error("worker %d has been silent for %.0f s and is killed", process.pid, self._silent_seconds)
                process.kill()

    def signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def wait(self, deadline: float) -> None:
        """Wait for the end, and kill what does not end in time."""
        if self._process is None:
            return
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.error("worker %d did not drain in time and is killed", self._process.pid)  # noqa: TRY400 — no bug
            self._process.kill()
            self._process.wait()


def _is_written_to(pipe: int) -> bool:
    try:
        return os.read(pipe, 4096) != b""
    except BlockingIOError:
        return False

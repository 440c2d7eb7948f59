"""Pages: the numbers of one process in a row of memory, which the supervisor may read although it never asks.

A worker's page outlives it: the next worker goes on counting there, so that a counter never goes backwards whatever
was killed. prometheus-client's own way, files named after processes, grows with each process that ever ran, needs a
directory that can be written, and takes several times as long for every increment.
"""

from __future__ import annotations

import logging
import math
import mmap
import os
import tempfile
import threading
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

log = logging.getLogger(__name__)

# Names the descriptor of a worker's page to the worker.
DESCRIPTOR = "INVENTORY_METRICS_DESCRIPTOR"

_CELLS_MAX = 8192
_BYTES = _CELLS_MAX * 8


class Page:
    """A row of numbers; a file behind a `descriptor` makes it shared."""

    def __init__(self, descriptor: int = -1) -> None:
        self.descriptor = descriptor
        self.cells: memoryview[float] = memoryview(mmap.mmap(descriptor, _BYTES)).cast("d")

    @classmethod
    def shared(cls) -> Page:
        """Make a page for a worker to come; its memory is free again when nobody has it open any longer."""
        if hasattr(os, "memfd_create"):  # a container may have no directory that can be written
            descriptor = os.memfd_create("inventory metrics")
            os.ftruncate(descriptor, _BYTES)
        else:
            with tempfile.TemporaryFile() as file:
                file.truncate(_BYTES)
                descriptor = os.dup(file.fileno())
        page = cls(descriptor)
        page.cells[0] = _layout.fingerprint()
        page.forget_gauges()
        return page

    def forget_gauges(self) -> None:
        """Forget what was true of a process that has ended; what it counted stays."""
        for cell in _layout.gauges:
            self.cells[cell] = math.nan

    def copy(self) -> Sequence[float]:
        """All numbers at this moment."""
        return memoryview(self.cells[: _layout.used].tobytes()).cast("d")


class _Layout:
    """Who has which cells, the same in every process of one version. The first cell tells the version."""

    def __init__(self) -> None:
        self.used = 1
        self.gauges: list[int] = []
        self._names: list[tuple[str, object]] = []

    def take(self, name: str, series: object, count: int, *, gauge: bool) -> int:
        first = self.used
        self.used += count
        if self.used > _CELLS_MAX:
            raise ValueError(f"no cells are left for {name}")
        self._names.append((name, series))
        if gauge:
            cells = range(first, self.used)
            self.gauges += cells
            for cell in cells:
                own.cells[cell] = math.nan
        return first

    def fingerprint(self) -> float:
        return float(zlib.crc32(repr(self._names).encode()))


# Two threads write: the one of the RPCs and the expiry worker's.
lock = threading.Lock()
own = Page()
_layout = _Layout()


def take(name: str, series: object, count: int, *, gauge: bool = False) -> int:
    """Reserve cells on every page, and give the first."""
    return _layout.take(name, series, count, gauge=gauge)


def is_ours() -> bool:
    """Whether this process is a worker, whose numbers the supervisor tells."""
    return DESCRIPTOR in os.environ


def adopt() -> None:
    """Count on the page that the supervisor gave us, if it did and if it is laid out as this version does."""
    if not is_ours():
        return
    page = Page(int(os.environ[DESCRIPTOR]))
    if page.cells[0] != _layout.fingerprint():
        log.error("the supervisor is of another version: nobody is told this worker's metrics until it starts anew")
        return
    page.forget_gauges()
    own.cells = page.cells

"""Counters, gauges and histograms. Every series they may ever have is named when they are made: none is about an id."""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import TYPE_CHECKING, NamedTuple

from inventory_server.metrics import page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from inventory_server.metrics.page import Page

# What one thing in a service takes, in seconds: from an idle machine's answer to the longest timeout.
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# How much is done at once.
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

_ONE = ((),)


class Instrument:
    """What all have: `series` are the values of `labels` that occur; everything is safe in any thread."""

    kind: str

    def __init__(
        self,
        name: str,
        about: str,
        labels: Sequence[str] = (),
        series: Iterable[tuple[str, ...]] = _ONE,
        *,
        cells: int = 1,
    ) -> None:
        self.name = name
        self.about = about
        self.labels = tuple(labels)
        values = list(series)
        first = page.take(name, values, cells * len(values), gauge=self.kind == "gauge")
        self.cells = {value: first + number * cells for number, value in enumerate(values)}
        INSTRUMENTS.append(self)


# All of this process, in the order in which they were made.
INSTRUMENTS: list[Instrument] = []


class Counter(Instrument):
    """Counts upwards, also across the deaths of workers."""

    kind = "counter"

    def inc(self, *values: str, by: float = 1) -> None:
        cell = self.cells[values]
        with page.lock:
            page.own.cells[cell] += by


class Gauge(Instrument):
    """Says how things are; `merge` makes one of the workers' values. What was never set, or is unknown, is not told."""

    kind = "gauge"

    def __init__(
        self,
        name: str,
        about: str,
        labels: Sequence[str] = (),
        series: Iterable[tuple[str, ...]] = _ONE,
        *,
        merge: Callable[[Iterable[float]], float] = math.fsum,
    ) -> None:
        super().__init__(name, about, labels, series)
        self.merge = merge

    def set(self, *values: str, to: float) -> None:
        page.own.cells[self.cells[values]] = to

    def forget(self, *values: str) -> None:
        page.own.cells[self.cells[values]] = math.nan


class Histogram(Instrument):
    """Counts by size; `bounds` are the largest values of its buckets."""

    kind = "histogram"

    def __init__(
        self,
        name: str,
        about: str,
        labels: Sequence[str] = (),
        series: Iterable[tuple[str, ...]] = _ONE,
        *,
        bounds: Sequence[float] = SECONDS,
    ) -> None:
        super().__init__(name, about, labels, series, cells=len(bounds) + 2)
        self.bounds = bounds

    def observe(self, *values: str, of: float) -> None:
        cell = self.cells[values]
        bucket = cell + 1 + bisect_left(self.bounds, of)
        with page.lock:
            page.own.cells[bucket] += 1
            page.own.cells[cell] += of


class Total(NamedTuple):
    """A histogram's series: how many fell into each bucket, the last one without a bound, and their sum."""

    counts: list[float]
    sum: float


def total(histogram: Histogram, values: tuple[str, ...], pages: Sequence[Sequence[float]]) -> Total:
    first = histogram.cells[values]
    cells = range(first + 1, first + len(histogram.bounds) + 2)
    return Total([sum(each[cell] for each in pages) for cell in cells], sum(each[first] for each in pages))


def value(instrument: Counter | Gauge, values: tuple[str, ...], pages: Sequence[Sequence[float]]) -> float | None:
    """Give the service's value of a series, None where no process knows it."""
    cell = instrument.cells[values]
    known = [each[cell] for each in pages if not math.isnan(each[cell])]
    if isinstance(instrument, Counter):
        return sum(known)
    return instrument.merge(known) if known else None


def copies(pages: Iterable[Page]) -> list[Sequence[float]]:
    return [each.copy() for each in pages]

"""The numbers of all processes as Prometheus reads them."""

from __future__ import annotations

import gzip
import platform
import time
from importlib import metadata
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from inventory_server.metrics.instruments import INSTRUMENTS, Counter, Gauge, Histogram, copies, total, value

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prometheus_client.core import Metric

    from inventory_server.metrics.instruments import Instrument
    from inventory_server.metrics.page import Page


class Exposition:
    """The sum of some pages, beside what the operating system and the interpreter say of this process."""

    def __init__(self, pages: Sequence[Page]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Service(pages))
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def render(self, accept: str, *, compressed: bool) -> tuple[bytes, str]:
        """Give the text and its content type, in the format that an Accept header prefers."""
        try:
            encode, content_type = choose_encoder(accept)
        except (TypeError, ValueError):  # a version that is none
            encode, content_type = choose_encoder("")
        body = encode(self._registry)
        return (gzip.compress(body, 1) if compressed else body), content_type


class _Service(Collector):
    def __init__(self, pages: Sequence[Page]) -> None:
        self._pages = pages

    def describe(self) -> list[Metric]:
        """Let the registry not collect just to learn the names."""
        return []

    def collect(self) -> Iterator[Metric]:
        pages = copies(self._pages)
        for instrument in INSTRUMENTS:
            yield _family(instrument, pages)
            time.sleep(0)  # in a single process the loop of the RPCs waits for this thread
        version = metadata.version("inventory-reservation")
        build = GaugeMetricFamily("inventory_build_info", "The version of the service.", labels=["version", "python"])
        build.add_metric([version, platform.python_version()], 1)
        yield build


def _family(instrument: Instrument, pages: Sequence[Sequence[float]]) -> Metric:
    match instrument:
        case Histogram():
            return _histogram(instrument, pages)
        case Counter():
            family: CounterMetricFamily | GaugeMetricFamily = CounterMetricFamily(
                instrument.name, instrument.about, labels=instrument.labels
            )
        case Gauge():
            family = GaugeMetricFamily(instrument.name, instrument.about, labels=instrument.labels)
        case _:
            raise TypeError(instrument)
    for values in instrument.cells:
        number = value(instrument, values, pages)
        if number is not None:
            family.add_metric(values, number)
    return family


def _histogram(histogram: Histogram, pages: Sequence[Sequence[float]]) -> Metric:
    family = HistogramMetricFamily(histogram.name, histogram.about, labels=histogram.labels)
    bounds = [*(f"{float(bound)}" for bound in histogram.bounds), "+Inf"]
    for values in histogram.cells:
        counts, summed = total(histogram, values, pages)
        # Some hundreds of operations and statements never happen on a given server.
        if any(counts):
            family.add_metric(values, list(zip(bounds, accumulate(counts), strict=True)), summed)
    return family

"""What the figures should be, and what they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.bench.book import expiry, memory
from tests.bench.book.pgbench import ONE_HOLD
from tests.bench.book.results import Results, Row, median, ratio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

BUSY = 128


@dataclass(frozen=True)
class Goal:
    """A figure that should be at least, or at most, so much; None where it was not measured."""

    what: str
    bound: float
    figure: Callable[[Results], float | None]
    most: bool = False

    def met(self, figure: float) -> bool:
        return figure <= self.bound if self.most else figure >= self.bound

    def wanted(self) -> str:
        return f"{'≤' if self.most else '≥'} {self.bound:g}"


def goals() -> Iterator[Goal]:
    """List all, in the order of the page."""
    for load in ("hot", "spread"):
        yield Goal(f"reserve, {load}: service ÷ empty handler", 0.65, _against("empty", load, "spread"))
    yield Goal("reserve, hot: service ÷ transaction per request", 4.5, _against("per-request", "hot", "hot"))
    yield Goal("reserve, spread: service ÷ transaction per request", 2.7, _against("per-request", "spread", "spread"))
    yield Goal("reserve: hot ÷ spread", 0.85, _hot_to_spread)
    for load in ("hot", "spread"):
        yield Goal(f"reserve and deduct, {load}: pairs ÷ calls of the empty handler", 0.3, _pairs(f"cycle-{load}"))
        yield Goal(f"reserve, {load}, at half of the peak: p99 ÷ p50", 5, _tail(load), most=True)
    for load in ("hot", "spread"):
        yield Goal(f"bulk, {load}: holds/s", 20_000, _bulk(f"holds, {load}"))
        yield Goal(f"bulk, {load}: holds and deducts/s", 20_000, _bulk(f"holds and deducts, {load}"))
    alone = "reserve, 1 in flight: p50 ÷"
    yield Goal(f"{alone} (empty handler + the same hold by pgbench)", 1.3, _alone("empty", ONE_HOLD), most=True)
    yield Goal(f"{alone} the same statement behind gRPC", 1.3, _alone("bare"), most=True)
    for load in ("hot", "spread"):
        yield Goal(f"reserve, {load}: with cache ÷ without", 0.9, _compared("cache", load, "service", "no-cache"))
    for load in ("spread", "cycle-spread"):
        yield Goal(f"{load}: 5 000 000 old holds ÷ none", 0.9, _compared("full", load, "full", "service"))
    for load in ("hot", "spread"):
        yield Goal(f"reserve, {load}: 2 processes ÷ 1", 1.0, _compared("processes", load, "2-workers", "service"))
    yield Goal(
        "100 000 holds expire at once: seconds until all are gone", 15, lambda r: expiry.gone_after(r.expiry), most=True
    )
    yield Goal("meanwhile: throughput of others ÷ before", 0.7, lambda r: expiry.share_of_others(r.expiry))
    yield Goal(
        "1 000 000 requests: most memory ÷ memory once settled", 1.1, lambda r: memory.growth(r.memory), most=True
    )


def _compared(chapter: str, load: str, target: str, other: str) -> Callable[[Results], float | None]:
    return lambda r: ratio(r.of(chapter, load, BUSY, target), r.of(chapter, load, BUSY, other))


def _against(other: str, load: str, load_of_other: str) -> Callable[[Results], float | None]:
    # The empty handler looks at no product, so that one load of it serves all.
    return lambda r: ratio(r.of("curves", load, BUSY, "service"), r.of("curves", load_of_other, BUSY, other))


def _bulk(load: str) -> Callable[[Results], float | None]:
    return lambda r: median(row.per_second for row in r.rows.get("bulk", ()) if row.load == load)


def _hot_to_spread(results: Results) -> float | None:
    return ratio(*(results.of("curves", load, BUSY, "service") for load in ("hot", "spread")))


def _pairs(load: str) -> Callable[[Results], float | None]:
    def figure(results: Results) -> float | None:
        calls = _against("empty", load, "spread")(results)
        return None if calls is None else calls / 2

    return figure


def _tail(load: str) -> Callable[[Results], float | None]:
    def figure(results: Results) -> float | None:
        levels = _by_level(
            [row for row in results.rows.get("curves", ()) if (row.load, row.target) == (load, "service")]
        )
        if not levels:
            return None
        half = max(_rate(rows) for rows in levels) / 2
        return median(row.p99_ms / row.p50_ms for row in min(levels, key=lambda rows: abs(_rate(rows) - half)))

    return figure


def _alone(*others: str) -> Callable[[Results], float | None]:
    """Compare with what others take together, measured in turn."""

    def figure(results: Results) -> float | None:
        together: dict[int, float] = {}
        for other in others:
            for row in results.of("alone", "spread", 1, other):
                together[row.round] = together.get(row.round, 0) + row.p50_ms
        service = results.of("alone", "spread", 1, "service")
        return median(row.p50_ms / together[row.round] for row in service if row.round in together)

    return figure


def _by_level(rows: Sequence[Row]) -> list[list[Row]]:
    return [[row for row in rows if row.in_flight == level] for level in dict.fromkeys(row.in_flight for row in rows)]


def _rate(rows: Sequence[Row]) -> float:
    return median(row.per_second for row in rows) or 0.0

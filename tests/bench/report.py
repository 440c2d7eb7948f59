"""The figures of all rounds as text: medians, with the least and the greatest in brackets where they matter.

The last three columns are µs of processor time per request: of the server, of PostgreSQL, of the load generator.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tests.bench.measure import Measure

# What the others are compared with, in this order.
YARDSTICKS = ("empty", "per-request")
WIDTHS = (14, 24, 9, 9, 22, 22, 10, 10, 10)
HEAD = ("", "requests/s", "p50 ms", "p99 ms", *(f"÷ {name}" for name in YARDSTICKS), "server µs", "pg µs", "load µs")

Key = tuple[str, int, str]


def text(measures: Sequence[Measure]) -> str:
    """Lay out a table per load and number in flight, then the comparison of the loads."""
    grouped: dict[Key, list[Measure]] = defaultdict(list)
    for measure in measures:
        grouped[measure.load, measure.in_flight, measure.target].append(measure)
    places = dict.fromkeys((load, in_flight) for load, in_flight, _ in grouped)
    lines: list[str] = []
    for load, in_flight in places:
        targets = [target for at, callers, target in grouped if (at, callers) == (load, in_flight)]
        lines += ["", f"{load}, {in_flight} in flight", _line(HEAD)]
        lines += [_row(grouped, (load, in_flight, target)) for target in targets]
    return "\n".join([*lines, "", *_hot_to_spread(grouped), *_complaints(measures)])


def _row(grouped: dict[Key, list[Measure]], key: Key) -> str:
    measures = grouped[key]
    cells = [
        key[2],
        _spread([measure.outcome.per_second for measure in measures], 0),
        _median(2, (measure.outcome.p50_ms for measure in measures)),
        _median(2, (measure.outcome.p99_ms for measure in measures)),
        *(_ratio(measures, grouped.get((key[0], key[1], name), [])) for name in YARDSTICKS),
        _median(0, (measure.server_cpu_us for measure in measures)),
        _median(0, (measure.postgres_cpu_us for measure in measures)),
        _median(0, (measure.outcome.generator_cpu_us for measure in measures)),
    ]
    return _line(cells)


def _line(cells: Iterable[str]) -> str:
    return "".join(f"{cell:<{width}}" for cell, width in zip(cells, WIDTHS, strict=True)).rstrip()


def _ratio(measures: Sequence[Measure], others: Sequence[Measure]) -> str:
    """Compare rates within each round: what the machine did in another round is no matter."""
    rates = {other.round: other.outcome.per_second for other in others}
    return _spread([m.outcome.per_second / rates[m.round] for m in measures if rates.get(m.round)], 2)


def _spread(values: Sequence[float], digits: int) -> str:
    if not values:
        return "-"
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} … {max(values):.{digits}f})"


def _median(digits: int, values: Iterable[float]) -> str:
    return f"{statistics.median(values):.{digits}f}"


def _hot_to_spread(grouped: dict[Key, list[Measure]]) -> Iterator[str]:
    for (load, in_flight, target), measures in grouped.items():
        if load == "hot" and target != "empty" and (spread := grouped.get(("spread", in_flight, target))):
            yield f"{target}, {in_flight} in flight: hot ÷ spread {_ratio(measures, spread)}"


def _complaints(measures: Sequence[Measure]) -> Iterator[str]:
    for measure in measures:
        if measure.complaint:
            yield f"WRONG: {measure.target}, {measure.load}, {measure.in_flight} in flight: {measure.complaint}"

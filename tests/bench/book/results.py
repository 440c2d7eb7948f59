"""What was measured, as the file says it that the page and the plots are made from."""

from __future__ import annotations

import dataclasses
import json
import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tests.bench.measure import Measure


@dataclass(frozen=True, kw_only=True)
class Row:
    """One run of one load. Processor times are µs per request."""

    round: int
    load: str
    in_flight: int
    target: str
    per_second: float
    p50_ms: float = 0
    p99_ms: float = 0
    server_us: float = 0
    postgres_us: float = 0
    complaint: str = ""


@dataclass
class Results:
    """Chapter → rows; what is no row is in `expiry` and `memory`."""

    environment: dict[str, str] = field(default_factory=dict)
    rows: dict[str, list[Row]] = field(default_factory=dict)
    expiry: dict[str, Any] = field(default_factory=dict)
    # [requests so far, bytes of memory]
    memory: list[tuple[int, int]] = field(default_factory=list)

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(dataclasses.asdict(self), indent=None, separators=(",", ":"))
        path.write_text(text.replace("{", "\n{").lstrip() + "\n")

    @classmethod
    def load(cls, path: Path) -> Results:
        if not path.exists():
            return cls()
        found = json.loads(path.read_text())
        found["rows"] = {chapter: [Row(**row) for row in rows] for chapter, rows in found["rows"].items()}
        return cls(**found)

    def of(self, chapter: str, load: str, in_flight: int, target: str) -> list[Row]:
        return [
            row
            for row in self.rows.get(chapter, ())
            if (row.load, row.in_flight, row.target) == (load, in_flight, target)
        ]


def row_of(measure: Measure) -> Row:
    outcome = measure.outcome
    return Row(
        round=measure.round,
        load=measure.load,
        in_flight=measure.in_flight,
        target=measure.target,
        per_second=round(outcome.per_second, 1),
        p50_ms=round(outcome.p50_ms, 3),
        p99_ms=round(outcome.p99_ms, 3),
        server_us=round(measure.server_cpu_us),
        postgres_us=round(measure.postgres_cpu_us),
        complaint=measure.complaint,
    )


def median(values: Iterable[float]) -> float | None:
    """Give the median, or None of nothing."""
    known = list(values)
    return statistics.median(known) if known else None


def ratio(rows: Iterable[Row], others: Iterable[Row]) -> float | None:
    """Compare rates within each round, since what the machine did in another round is no matter: the median."""
    rates = {other.round: other.per_second for other in others}
    return median(row.per_second / rates[row.round] for row in rows if rates.get(row.round))

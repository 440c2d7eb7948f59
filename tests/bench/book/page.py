"""The page that shows the figures: goals, pictures and tables, in Markdown."""

from __future__ import annotations

import statistics
from collections import defaultdict
from typing import TYPE_CHECKING

from tests.bench.book.goals import BUSY, goals

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tests.bench.book.results import Results, Row

INTRODUCTION = """\
# Benchmarks

All of this page, its figures and its pictures are written by one command, which takes an hour:

```sh
make benchmarks
```

Figures of another machine or another run do not compare; ratios within a run do. So everything that is compared takes
turns in short runs, ratios are taken within a round, and medians are reported. Load generator, server, PostgreSQL and
Redis share the cores: a server that has them for itself does more. After each run the holds in the database are counted
against the answers that the generator saw. [results.json](results.json) has every single run.

- *empty handler*: grpc.aio as it comes, on the same event loop, that answers at once, without a database. What gRPC
  itself costs. It lets one call in after the other, this service 32 at once, which is why it comes so near.
- *per-request*: the same stack, written as one writes it first: BEGIN, SELECT FOR UPDATE, UPDATE, INSERT, COMMIT for
  each request, then Redis. No ledger, no replays.
- *bare*: the same stack, which sends this service's statement for each request and does nothing else: no checks, no
  pool, no cache, one request at a time.
- *pgbench*: PostgreSQL's own load generator, in C and without gRPC: what the database alone allows.
- *hot*: all for one product; *zipf*: of 10 000, the second half as often as the first, the third a third as often and
  so on; *spread*: all equally often.
"""
CAPTIONS = {
    "curves": (
        "Throughput and latency",
        "![Latency against throughput](latency.svg)\n\n![Throughput by requests in flight](throughput.svg)",
    ),
    "alone": (
        "One request at a time",
        "What a call takes that meets no other: gRPC's share, PostgreSQL's, the two put together, and the service's.",
    ),
    "bulk": (
        "Bulk calls",
        """Calls of 500 items; `per second` counts items, a hold and its deduct as two. COPY writes the same rows into
the same tables and answers nobody.""",
    ),
    "pgbench": (
        "PostgreSQL alone",
        """`in flight` are sessions. The function is the one that this service calls for each batch; with 100 holds a
call it is what a busy server asks for, and its latency is that of all 100.""",
    ),
    "cache": ("With and without the cache", "`no-cache` is INVENTORY_REDIS_URL=none://."),
    "processes": (
        "Several processes",
        """INVENTORY_WORKERS behind one port. They share out the cores that one process leaves idle: on two, which
PostgreSQL and the load generator share, there are none.""",
    ),
    "full": (
        "Five million old holds",
        "`full` has 5 000 000 ended holds and 10 000 000 movements in its tables, and autovacuum running.",
    ),
}


def text(results: Results) -> str:
    """Write the page."""
    parts = [INTRODUCTION, " · ".join(f"{name} {value}" for name, value in results.environment.items())]
    parts += ["## Goals", _table(("what", "goal", "measured", "met"), _goals(results))]
    for chapter, (title, caption) in CAPTIONS.items():
        if rows := results.rows.get(chapter):
            parts += [f"## {title}", caption, _table(_HEAD, _rows(_shown(chapter, rows)))]
    if results.expiry:
        parts += ["## 100 000 holds expire at once", "![Expired holds and the others' throughput](expiry.svg)"]
    if results.memory:
        parts += ["## Memory", "![Memory by requests served](memory.svg)"]
    complaints = [f"- {row.target}, {row.load}, {row.in_flight} in flight: {row.complaint}" for row in _wrong(results)]
    parts += ["## Wrong", "\n".join(complaints)] if complaints else []
    return "\n\n".join(part.strip() for part in parts) + "\n"


_HEAD = ("load", "in flight", "", "per second", "p50 ms", "p99 ms", "server µs", "PostgreSQL µs")


def _goals(results: Results) -> Iterator[Sequence[str]]:
    for goal in goals():
        figure = goal.figure(results)
        if figure is not None:
            yield (
                goal.what,
                goal.wanted(),
                f"{figure:.0f}" if figure > 1000 else f"{figure:.2f}",
                "yes" if goal.met(figure) else "**no**",
            )


def _shown(chapter: str, rows: Sequence[Row]) -> Sequence[Row]:
    # The pictures show the other levels.
    return [row for row in rows if row.in_flight in (1, BUSY)] if chapter == "curves" else rows


def _rows(rows: Iterable[Row]) -> Iterator[Sequence[str]]:
    grouped: dict[tuple[str, int, str], list[Row]] = defaultdict(list)
    for row in rows:
        grouped[row.load, row.in_flight, row.target].append(row)
    for (load, in_flight, target), group in sorted(grouped.items(), key=lambda item: item[0][:2]):
        cells = [
            _median([row.per_second for row in group], 0),
            _median([row.p50_ms for row in group], 2),
            _median([row.p99_ms for row in group], 2),
            _median([row.server_us for row in group], 0),
            _median([row.postgres_us for row in group], 0),
        ]
        yield load, str(in_flight), target, *("-" if float(cell.replace(" ", "")) == 0 else cell for cell in cells)


def _median(values: Sequence[float], digits: int) -> str:
    return f"{statistics.median(values):,.{digits}f}".replace(",", " ")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _wrong(results: Results) -> list[Row]:
    return [row for rows in results.rows.values() for row in rows if row.complaint]

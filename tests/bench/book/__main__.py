"""Measure everything, and write docs/benchmarks: the figures, the plots and the page that shows them.

It takes an hour on two cores and wants the machine for itself. Each chapter's targets take turns in
short runs, so that what the machine does meets all of them; ratios are taken within a round, and medians reported.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from tests.bench import bulk, stores
from tests.bench.book import expiry, memory, page, pgbench, plots
from tests.bench.book.results import Results, Row, row_of
from tests.bench.environment import describe
from tests.bench.loads import BULK
from tests.bench.measure import Runner
from tests.bench.targets import ROOT, Target

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.bench.stores import Stores

LEVELS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
BUSY = 128
BULK_CALLERS, BULK_SECONDS = 4, 3
PRODUCTS = ("hot", "zipf", "spread")
CHAPTERS = ("curves", "alone", "bulk", "pgbench", "cache", "processes", "expiry", "memory", "full")
# What is compared there differs by less than one run does from the next, so it gets more rounds than a curve does.
ROUNDS_MORE = 5
# chapter → targets, loads, numbers in flight
COMPARISONS = {
    "cache": (("service", "no-cache"), ("hot", "spread", "cycle-spread"), (1, BUSY)),
    "processes": (("service", "2-workers", "4-workers"), ("hot", "spread"), (BUSY,)),
    "full": (("service", "full"), ("hot", "spread", "cycle-spread"), (BUSY,)),
}


class Book:
    """Measures chapters; each starts the servers that it needs and no others."""

    def __init__(self, options: argparse.Namespace, opened: Stores, directory: Path) -> None:
        self._options = options
        self._stores = opened
        self._directory = directory

    def write(self, chapter: str, results: Results) -> None:
        """Measure one chapter, in place of what an earlier run of it found."""
        if chapter == "expiry":
            with self._serving("service") as (target,):
                results.expiry = expiry.measured(target)
        elif chapter == "memory":
            with self._serving("service") as (target,):
                results.memory = list(memory.measured(target))
        elif chapter == "pgbench":
            results.rows[chapter] = list(self._postgres())
        elif chapter == "alone":
            results.rows[chapter] = list(self._alone())
        elif chapter == "bulk":
            results.rows[chapter] = list(self._bulk())
        elif chapter == "curves":
            results.rows[chapter] = list(self._curves())
        else:
            results.rows[chapter] = list(self._compared(*COMPARISONS[chapter]))

    def _curves(self) -> Iterator[Row]:
        with self._serving("empty", "per-request", "service") as targets:
            runner = self._runner(targets)
            for number in range(1, self._options.rounds + 1):
                for callers in LEVELS:
                    for prefix in ("", "cycle-", "mixed-"):
                        for products in PRODUCTS:
                            for target in targets:
                                if _belongs(target.name, prefix, products):
                                    yield row_of(runner.measure(number, prefix + products, callers, target))

    def _compared(self, names: tuple[str, ...], loads: tuple[str, ...], levels: tuple[int, ...]) -> Iterator[Row]:
        with self._serving(*names) as targets:
            rounds = ROUNDS_MORE * self._options.rounds
            yield from map(row_of, self._runner(targets).rounds(rounds, loads, levels))

    def _bulk(self) -> Iterator[Row]:
        """Count items, not calls; latencies are those of calls."""
        with self._serving("service") as (target,):
            for number in range(1, self._options.rounds + 1):
                row = partial(Row, round=number, in_flight=BULK_CALLERS)
                for load, done in bulk.served(target, BULK_CALLERS, BULK_SECONDS * self._options.seconds):
                    rate = round(done.per_second * BULK)
                    yield row(load=load, target="service", per_second=rate, p50_ms=done.p50_ms, p99_ms=done.p99_ms)
                copied = bulk.copied_per_second(self._stores, target.url)
                yield row(load=bulk.COPY, target="PostgreSQL", per_second=round(copied))

    def _postgres(self) -> Iterator[Row]:
        with self._serving("per-request", "service") as targets:
            yield from self._pgbench(targets).rounds(self._options.rounds)

    def _alone(self) -> Iterator[Row]:
        """Send one request at a time, and have pgbench make the same hold in turn with that."""
        with self._serving("empty", "bare", "service") as targets:
            runner, by_pgbench = self._runner(targets), self._pgbench(targets)
            for number in range(1, ROUNDS_MORE * self._options.rounds + 1):
                yield from (row_of(runner.measure(number, "spread", 1, target)) for target in targets)
                yield by_pgbench.one_hold(number, "spread")

    def _pgbench(self, targets: list[Target]) -> pgbench.Pgbench:
        with psycopg.connect(self._stores.database_url) as connection:
            version = connection.info.server_version // 10_000
        by_name = {target.name: target for target in targets}
        return pgbench.Pgbench(by_name, version, self._directory, self._options.seconds)

    def _runner(self, targets: list[Target]) -> Runner:
        return Runner(
            targets=targets,
            postmaster=self._stores.postmaster(),
            seconds=self._options.seconds,
            around=lambda *_: contextlib.nullcontext(),
        )

    @contextlib.contextmanager
    def _serving(self, *names: str) -> Iterator[list[Target]]:
        with contextlib.ExitStack() as stack:
            yield [stack.enter_context(Target(name, self._stores, self._directory)) for name in names]


def _belongs(target: str, prefix: str, products: str) -> bool:
    """Leave out what would say nothing: the empty handler looks at no product, the per-request one only reserves."""
    return target == "service" or (products == "spread" if target == "empty" else not prefix)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.book", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--chapters", default=",".join(CHAPTERS), help="which to measure; others stay as they are (default %(default)s)"
    )
    add("--seconds", type=float, default=1.0, help="length of one run (default %(default)s)")
    add(
        "--rounds",
        type=int,
        default=3,
        help=f"how often each run is repeated, comparisons {ROUNDS_MORE} times as often (default %(default)s)",
    )
    add("--output", type=Path, default=ROOT / "docs" / "benchmarks", help="where to write (default %(default)s)")
    add("--render", action="store_true", help="measure nothing, make page and plots from the figures that are there")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    file = options.output / "results.json"
    results = Results.load(file)
    if not options.render:
        measure(options, results, file)
    plots.draw(results, options.output)
    (options.output / "README.md").write_text(page.text(results))
    return 1 if any(row.complaint for rows in results.rows.values() for row in rows) else 0


def measure(options: argparse.Namespace, results: Results, file: Path) -> None:
    parent = ROOT / ".inventory"
    parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=parent) as directory, contextlib.ExitStack() as stack:
        opened = stack.enter_context(stores.opened(Path(directory)))
        results.environment = {"day": datetime.now(UTC).date().isoformat(), **describe(opened)}
        book = Book(options, opened, Path(directory))
        for chapter in options.chapters.split(","):
            sys.stderr.write(f"{chapter}\n")
            book.write(chapter, results)
            results.save(file)


if __name__ == "__main__":
    sys.exit(main())

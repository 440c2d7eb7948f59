"""Measure bulk calls of 500 items, and beside them how fast PostgreSQL takes the same rows by COPY.

One server process, PostgreSQL (fsync on) and Redis on this machine, as `python -m tests.bench` starts them. COPY gets
the rows of 500 holds a transaction on one session, which reckons, locks and answers nothing: no server on these tables
and indexes can be faster on one session. Where holds are deducted too, each hold and each deduct counts as one.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from tests.bench import stores
from tests.bench.generator import generate
from tests.bench.loads import BULK
from tests.bench.targets import ROOT, Target

from inventory_server.postgres.migrate import migrate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.bench.generator import Outcome
    from tests.bench.stores import Stores

LOADS = {
    "holds, hot": "bulk-hot",
    "holds, spread": "bulk-spread",
    "holds and deducts, hot": "bulk-cycle-hot",
    "holds and deducts, spread": "bulk-cycle",
}
COPY = "COPY of the rows of holds"
COPY_DATABASE = "inventory_bench_copy"
COPY_HOLDS = 20_000
TABLES = ("inventory_reservations", "inventory_movements")
# `created_at` and the like are part of the rows; only what PostgreSQL computes itself is left out.
ROWS = {
    "inventory_reservations": "SELECT * FROM inventory_reservations ORDER BY reservation_id LIMIT %s",
    "inventory_movements": "SELECT * FROM inventory_movements WHERE kind = 'RESERVE' ORDER BY reservation_id LIMIT %s",
}


def copied_per_second(opened: Stores, source_url: str) -> float:
    """Copy rows that the service made into empty tables of the same shape, and give holds a second."""
    url = opened.fresh_database(COPY_DATABASE)
    try:
        migrate(url)
        with psycopg.connect(source_url) as source:
            lines = {table: _lines(source, table) for table in TABLES}
        holds = min(len(rows) for rows in lines.values())
        with psycopg.connect(url) as target:
            begun = time.perf_counter()
            for at in range(0, holds, BULK):
                for table in TABLES:
                    with target.cursor().copy(f"COPY {table} FROM STDIN".encode()) as copy:
                        copy.write(b"".join(lines[table][at : at + BULK]))
                target.commit()
            return holds / (time.perf_counter() - begun)
    finally:
        opened.drop_database(COPY_DATABASE)


def _lines(source: psycopg.Connection, table: str) -> list[bytes]:
    query = ROWS[table].replace("%s", str(COPY_HOLDS))
    with source.cursor().copy(f"COPY ({query}) TO STDOUT".encode()) as copy:
        return b"".join(bytes(block) for block in copy).splitlines(keepends=True)


def run(options: argparse.Namespace, directory: Path, stack: contextlib.ExitStack) -> None:
    opened = stack.enter_context(stores.opened(directory))
    target = stack.enter_context(Target("service", opened, directory))
    rates: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for title, outcome in served(target, options.in_flight, options.seconds):
            rates.setdefault(title, []).append(outcome.per_second * BULK)
        rates.setdefault(COPY, []).append(copied_per_second(opened, target.url))
    for title, found in rates.items():
        say(_line(title, found))


def served(target: Target, in_flight: int, seconds: float) -> Iterator[tuple[str, Outcome]]:
    """Run each load once; an outcome counts calls."""
    for title, load in LOADS.items():
        outcome = generate(target.address, load, in_flight, seconds)
        if outcome.failed:
            raise RuntimeError(f"{load}: gRPC status → requests: {outcome.failed}")
        yield title, outcome


def _line(title: str, rates: list[float]) -> str:
    return f"{title:<28}{statistics.median(rates):>10.0f}/s   ({min(rates):.0f} … {max(rates):.0f})"


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.bulk", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=3, help="length of one run (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is run (default %(default)s)")
    parser.add_argument("--in-flight", type=int, default=4, help="calls under way at once (default %(default)s)")
    options = parser.parse_args()
    parent = ROOT / ".inventory"
    parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=parent) as directory, contextlib.ExitStack() as stack:
        run(options, Path(directory), stack)


if __name__ == "__main__":
    main()

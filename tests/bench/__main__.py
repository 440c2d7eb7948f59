"""Measure ReserveStock: an empty handler, a transaction per request, and this service, in one run on one machine.

Every target is a server process; PostgreSQL (fsync on) and Redis are started for the run, or those that
INVENTORY_BENCH_DATABASE_URL and INVENTORY_BENCH_REDIS_URL name are used, PostgreSQL with databases named
inventory_bench_*. Other INVENTORY_ variables reach the service. Figures of different machines or runs do not compare,
ratios within a run do: they are taken within a round and reported as medians. After each run the holds in the database
are counted against the successes that the load generator saw.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import signal
import statistics
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench import report, stores, tools
from tests.bench.environment import describe
from tests.bench.generator import generate
from tests.bench.loads import LOADS
from tests.bench.measure import Runner
from tests.bench.targets import PLANS, ROOT, Target

from inventory_server.embedded import EmbeddedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager

    from tests.bench.measure import Measure


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    loads = [name for name in LOADS if name != "initialize" and not name.startswith("bulk")]
    add = parser.add_argument
    add("--seconds", type=float, default=1.5, help="length of one run (default %(default)s)")
    add("--rounds", type=int, default=5, help="how often everything is run (default %(default)s)")
    add("--in-flight", type=_numbers, default=[1, 128], help="requests under way at once (default 1,128)")
    add(
        "--targets",
        type=_some_of(PLANS),
        default=["empty", "per-request", "service"],
        help=f"some of {','.join(PLANS)} (default the first three)",
    )
    add(
        "--loads",
        type=_some_of(loads),
        default=["hot", "spread"],
        help=f"some of {','.join(loads)} (default hot,spread)",
    )
    add("--json", type=Path, metavar="FILE", help="write every single run there too")
    add("--profile", type=Path, metavar="DIR", help="write flame graphs of the service there (needs py-spy)")
    add("--cross-check", action="store_true", help="load the empty handler with h2load too, to judge the generator")
    return parser.parse_args()


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def _some_of(known: Iterable[str]) -> Callable[[str], list[str]]:
    def read(text: str) -> list[str]:
        words = text.split(",")
        if unknown := [word for word in words if word not in known]:
            raise argparse.ArgumentTypeError(f"{unknown[0]} is none of {', '.join(known)}")
        return words

    return read


def profiler(directory: Path | None, seconds: float) -> Callable[[Target, str], AbstractContextManager[None]]:
    """Make the wrapper of each run: a profile of the service's, where a directory is given."""
    if directory:
        directory.mkdir(parents=True, exist_ok=True)

    def around(target: Target, title: str) -> AbstractContextManager[None]:
        if directory and target.name == "service":
            return tools.profiled(target.pid, seconds, directory / f"{title}.svg")
        return contextlib.nullcontext()

    return around


def cross_check(address: str, options: argparse.Namespace) -> str:
    """Compare this load generator with h2load on the empty handler, by turns."""
    lines = ["", "empty handler, requests/s by this generator and by h2load"]
    for in_flight in options.in_flight:
        pairs = [
            (
                generate(address, "hot", in_flight, options.seconds).per_second,
                tools.h2load(address, in_flight, options.seconds),
            )
            for _ in range(options.rounds)
        ]
        ours, theirs = (statistics.median(rates) for rates in zip(*pairs, strict=True))
        ratio = statistics.median(our / their for our, their in pairs)
        lines.append(f"  {in_flight:>4} in flight {ours:>10.0f} {theirs:>10.0f}   ours ÷ h2load {ratio:.2f}")
    return "\n".join(lines)


def run(options: argparse.Namespace, directory: Path, stack: contextlib.ExitStack) -> list[Measure]:
    """Start everything, measure and print."""
    opened = stack.enter_context(stores.opened(directory))
    environment = describe(opened)
    say(" · ".join(f"{name} {value}" for name, value in environment.items()))
    targets = [stack.enter_context(Target(name, opened, directory)) for name in options.targets]
    around = profiler(options.profile, options.seconds)
    runner = Runner(targets=targets, postmaster=opened.postmaster(), seconds=options.seconds, around=around)
    measures = list(runner.rounds(options.rounds, options.loads, options.in_flight))
    say(report.text(measures))
    if options.json:
        runs = [dataclasses.asdict(measure) for measure in measures]
        options.json.write_text(json.dumps({"environment": environment, "runs": runs}, indent=1) + "\n")
    empty = next((target.address for target in targets if target.name == "empty"), None)
    if options.cross_check and empty:
        say(cross_check(empty, options))
    return measures


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    options = arguments()
    # so that servers and databases go away on `kill` too
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    parent = ROOT / ".inventory"
    parent.mkdir(exist_ok=True)
    # below the checkout, since /tmp may be memory, where fsync costs nothing
    try:
        with tempfile.TemporaryDirectory(prefix="bench-", dir=parent) as directory, contextlib.ExitStack() as stack:
            measures = run(options, Path(directory), stack)
    except (EmbeddedError, RuntimeError) as error:
        sys.exit(f"bench: {error}")
    return 1 if any(measure.complaint for measure in measures) else 0


if __name__ == "__main__":
    sys.exit(main())

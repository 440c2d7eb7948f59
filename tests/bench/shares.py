"""Give each server process a share of a core, so that a second one finds one, and compare two processes with one.

On two cores one process, PostgreSQL and the load generator leave a second process nothing, and what it costs or gains
cannot be seen. Needs Linux and root, for a control group each.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench import stores
from tests.bench.generator import generate
from tests.bench.targets import ROOT, Target

if TYPE_CHECKING:
    from collections.abc import Iterator

GROUPS = Path("/sys/fs/cgroup")
# Short, so that a process that has used its share rests for milliseconds only.
PERIOD_US = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.shares", description=__doc__)
    parser.add_argument("--cores", type=float, default=0.35, help="of each server process (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of one run (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="how often each is run (default %(default)s)")
    options = parser.parse_args()
    parent = ROOT / ".inventory"
    parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=parent) as directory, contextlib.ExitStack() as stack:
        opened = stack.enter_context(stores.opened(Path(directory)))
        targets = [stack.enter_context(Target(name, opened, Path(directory))) for name in ("service", "2-workers")]
        for pid in [targets[0].pid, *_children(targets[1].pid)]:
            stack.enter_context(_limited(pid, options.cores))
        for load in ("hot", "spread"):
            for in_flight in (32, 128):
                rounds = [
                    [generate(target.address, load, in_flight, options.seconds).per_second for target in targets]
                    for _ in range(options.rounds)
                ]
                one, two = (statistics.median(rates) for rates in zip(*rounds, strict=True))
                ratio = statistics.median(each[1] / each[0] for each in rounds)
                sys.stdout.write(
                    f"{load:8}{in_flight:>4} in flight  1: {one:.0f}/s  2: {two:.0f}/s  2 ÷ 1 {ratio:.2f}\n"
                )
                sys.stdout.flush()


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextlib.contextmanager
def _limited(pid: int, cores: float) -> Iterator[None]:
    quota = round(cores * PERIOD_US)
    first = (GROUPS / "cpu").is_dir()  # version 1 of control groups
    group = (GROUPS / "cpu" if first else GROUPS) / f"inventory-bench-{pid}"
    try:
        group.mkdir()
    except OSError as error:
        sys.exit(f"shares: no control group can be made: {error}")
    try:
        if first:
            (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(quota))
        else:
            (group / "cpu.max").write_text(f"{quota} {PERIOD_US}")
        (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        # A group that is to go must be empty.
        with contextlib.suppress(OSError):
            (group.parent / "cgroup.procs").write_text(str(pid))
        group.rmdir()


if __name__ == "__main__":
    main()

"""One run: stage, clients, faults, audit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.soak.audit import inspect, story
from tests.soak.books import Violation
from tests.soak.faults import catalogue
from tests.soak.history import Call, by_request, read
from tests.soak.schedule import Injector, plan
from tests.soak.stage import set_up
from tests.soak.workload import ATTEMPT_SECONDS, PATIENCE_SECONDS

from inventory_server.embedded.process import OURSELVES, guarded

if TYPE_CHECKING:
    from tests.soak.books import Books
    from tests.soak.schedule import Injected
    from tests.soak.stage import Stage

HERE = Path(__file__).resolve().parents[2]
PROCESSES = 3
TASKS = 5
# After the last fault the clients go on for so long, so that healing is seen.
CALM_SECONDS = 4.0
STORIES_MAX = 8


@dataclass
class Report:
    """What happened in a run. It is good when nothing was violated and nothing stayed undecided."""

    calls: list[Call] = field(default_factory=list)
    injected: list[Injected] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    stories: list[str] = field(default_factory=list)
    histories: int = 0
    undecided: int = 0
    open: int = 0  # mutations of which the client did not know for a while whether they were done
    done_unheard: int = 0  # those of them that were done by an attempt without an answer

    def __str__(self) -> str:
        answered = sum(call.answer is not None for call in self.calls)
        refused = Counter(call.reason for call in self.calls if call.reason)
        faults = Counter(fault.name for fault in self.injected)
        mutations = len({call.request_id for call in self.calls})
        lines = [
            f"{len(self.calls)} calls of {mutations} requests: {answered} answered, "
            + ", ".join(f"{count} {reason}" for reason, count in refused.most_common()),
            f"{self.open} mutations had an attempt without an answer, {self.done_unheard} were done by such a one",
            f"{len(self.injected)} faults of {len(faults)} kinds: "
            + ", ".join(f"{name} {count}" for name, count in sorted(faults.items())),
            *self.skipped,
            f"{self.histories} histories checked for linearizability, {self.undecided} undecided",
            *self.stories,
            f"{len(self.violations)} violations",
        ]
        return "\n".join(lines)


def soak(directory: Path, seconds: float, seed: str) -> Report:
    """Load, break and audit for so many seconds."""
    report = Report()
    with set_up(directory) as stage:
        begin = time.monotonic()
        until = begin + seconds
        faults, report.skipped = catalogue(stage)
        planned = plan(faults, seconds - CALM_SECONDS, seed)
        injector = Injector(stage, seed)
        with ExitStack() as stack:
            clients = [_start_client(stack, stage, index, seed, begin, until) for index in range(PROCESSES)]
            injector.run(planned, begin, until - CALM_SECONDS)
            stage.wait_until_up()
            for client in clients:
                if client.wait(seconds + PATIENCE_SECONDS + ATTEMPT_SECONDS) != 0:
                    report.violations.append(Violation("clients", f"a client ended with {client.returncode}"))
        report.injected = injector.injected
        report.calls = read(directory)
        _audit(report, stage, until)
    return report


def _audit(report: Report, stage: Stage, until: float) -> None:
    findings = inspect(report.calls, stage.postgres.url)
    report.violations += findings.violations
    report.histories, report.undecided = findings.histories, findings.undecided
    _count_open(report, findings.books)
    for number, replica in enumerate(stage.replicas):
        if replica.died:
            report.violations.append(Violation("alive", f"server {number} ended by itself: {stage.last_words()}"))
    if not any(call.answer is not None for call in report.calls if call.start > until - 1):
        report.violations.append(Violation("healed", "nothing was answered in the last second, without any fault"))
    for violation in report.violations[:STORIES_MAX]:
        report.stories.append(story(violation, report.calls, findings.books, report.injected))


def _count_open(report: Report, books: Books) -> None:
    """Tell how often the faults hit what they are for: the moment between a commit and its answer."""
    for request_id, attempts in by_request(report.calls).items():
        report.open += any(call.unknown for call in attempts)
        done_at = [row.occurred_at - books.realtime_offset for row in books.by_request.get(request_id, ())]
        heard = [call for call in attempts if call.answer is not None]
        report.done_unheard += bool(done_at) and not any(call.start <= done_at[0] <= call.end for call in heard)


def _start_client(
    stack: ExitStack, stage: Stage, index: int, seed: str, begin: float, until: float
) -> subprocess.Popen[bytes]:
    words = {
        "index": index,
        "tasks": TASKS,
        "seed": seed,
        "targets": ",".join(stage.targets),
        "directory": stage.directory,
        "begin": begin,
        "until": until,
    }
    options = [word for name, value in words.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "tests.soak.workload", *options]
    client = subprocess.Popen(
        guarded(command, user=OURSELVES, directory=HERE, death_signal=signal.SIGKILL),
        # gRPC tells of every connection that we break.
        env=os.environ | {"GRPC_VERBOSITY": "NONE"},
    )
    stack.callback(client.wait)
    stack.callback(client.kill)
    return client

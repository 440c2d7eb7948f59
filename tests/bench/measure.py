"""Rounds of short runs: each round loads every target in turn, so that what a noisy machine does meets all of them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.bench import cpu
from tests.bench.generator import Outcome, generate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from tests.bench.targets import Target


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One run of one load against one target. Processor times are µs per request."""

    round: int
    load: str
    in_flight: int
    target: str
    outcome: Outcome
    server_cpu_us: float
    postgres_cpu_us: float
    # what should not have happened, or nothing
    complaint: str = ""


@dataclass(frozen=True, kw_only=True)
class Runner:
    """Measures targets that run."""

    targets: Sequence[Target]
    postmaster: int
    seconds: float
    # wraps each run, such as in a profiler
    around: Callable[[Target, str], AbstractContextManager[object]]

    def rounds(self, count: int, loads: Sequence[str], in_flight: Sequence[int]) -> Iterator[Measure]:
        """Measure everything `count` times; the targets of one load follow each other directly."""
        for number in range(1, count + 1):
            for load in loads:
                for callers in in_flight:
                    for target in self.targets:
                        measure = self.measure(number, load, callers, target)
                        _say(measure)
                        yield measure

    def measure(self, number: int, load: str, in_flight: int, target: Target) -> Measure:
        """Run one load against one target."""
        holds = target.holds()
        server, postgres = cpu.of_family(target.pid), cpu.of_family(self.postmaster)
        with self.around(target, f"{target.name}-{load}-{in_flight}"):
            outcome = generate(target.address, load, in_flight, self.seconds)
        server, postgres = cpu.of_family(target.pid) - server, cpu.of_family(self.postmaster) - postgres
        per_request = 1e6 / max(outcome.answered, 1)
        return Measure(
            round=number,
            load=load,
            in_flight=in_flight,
            target=target.name,
            outcome=outcome,
            server_cpu_us=server * per_request,
            postgres_cpu_us=postgres * per_request,
            complaint=_complaint(outcome, holds, target.holds()),
        )


def _complaint(outcome: Outcome, before: int | None, after: int | None) -> str:
    if outcome.failed:
        return f"gRPC status → requests: {outcome.failed}"
    if before is not None and after is not None and after - before != outcome.reserved:
        return f"{outcome.reserved} reserves succeeded, but {after - before} holds were made"
    return ""


def _say(measure: Measure) -> None:
    where = f"round {measure.round}  {measure.load:<12} {measure.in_flight:>4}  {measure.target:<12}"
    outcome = measure.outcome
    sys.stderr.write(f"{where} {outcome.per_second:8.0f}/s  p99 {outcome.p99_ms:7.2f} ms  {measure.complaint}\n")

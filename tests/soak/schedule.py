"""When each fault happens: first every one alone, in a random order, then many at random together."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from tests.soak.faults import Fault
    from tests.soak.stage import Stage

# No more than this share of the time goes to faults alone: a short run has some of both.
ALONE_SHARE = 0.6
GAP_SECONDS = (0.2, 0.6)
TOGETHER_SECONDS = (0.1, 1.2)
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Planned:
    """A fault with its seconds from the beginning."""

    begin: float
    end: float
    fault: Fault


@dataclass(frozen=True)
class Injected:
    """A fault that happened, in monotonic seconds."""

    name: str
    begin: float
    end: float


def plan(faults: Sequence[Fault], seconds: float, seed: str) -> list[Planned]:
    """Choose faults until the time is over; the same seed chooses the same."""
    rng = random.Random(seed)  # noqa: S311 - to be repeatable
    planned: list[Planned] = []
    at = 0.5
    for fault in rng.sample(faults, len(faults)):
        if at > seconds * ALONE_SHARE:
            break
        end = at + rng.uniform(*fault.seconds)
        planned.append(Planned(at, end, fault))
        at = end + rng.uniform(*GAP_SECONDS)
    while at < seconds:
        busy = frozenset[str]().union(*(each.fault.parts for each in planned if each.end + GAP_SECONDS[1] > at))
        free = [each for each in faults if not each.parts & busy]
        if free:
            fault = rng.choice(free)
            planned.append(Planned(at, min(at + rng.uniform(*fault.seconds), seconds), fault))
        at += rng.uniform(*TOGETHER_SECONDS)
    return planned


class Injector:
    """Carries out a plan from one thread, late rather than never, and repairs everything in the end."""

    def __init__(self, stage: Stage, seed: str) -> None:
        self._stage = stage
        self._rng = random.Random(seed)  # noqa: S311 - to be repeatable
        self._active: list[tuple[float, Planned, AbstractContextManager[None]]] = []
        self.injected: list[Injected] = []

    def run(self, planned: Sequence[Planned], begin: float, until: float) -> None:
        """Break and repair until `until`, in monotonic seconds; servers that end by themselves are started again."""
        waiting = sorted(planned, key=lambda each: each.begin)
        try:
            while time.monotonic() < until or self._active:
                now = time.monotonic()
                for active in [each for each in self._active if each[1].end + begin <= now or now > until]:
                    self._end(active)
                while waiting and waiting[0].begin + begin <= now < until:
                    self._begin(waiting.pop(0))
                self._stage.tend()
                time.sleep(POLL_SECONDS)
        finally:
            for active in list(self._active):
                self._end(active)

    def _begin(self, planned: Planned) -> None:
        # One that was late to end may still have a part that this one needs.
        for active in [each for each in self._active if each[1].fault.parts & planned.fault.parts]:
            self._end(active)
        breaking = planned.fault.breaking(self._stage, self._rng)
        started = time.monotonic()
        breaking.__enter__()
        self._active.append((started, planned, breaking))

    def _end(self, active: tuple[float, Planned, AbstractContextManager[None]]) -> None:
        started, planned, breaking = active
        self._active.remove(active)
        breaking.__exit__(None, None, None)
        self.injected.append(Injected(planned.fault.name, started, time.monotonic()))

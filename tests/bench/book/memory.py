"""Whether the server's memory grows with the requests it has served."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.bench import cpu
from tests.bench.generator import generate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.bench.targets import Target

REQUESTS = 1_000_000
IN_FLIGHT = 128
STEP_SECONDS = 8.0
# What it takes to fill pools, caches and the allocator's own stock.
SETTLED_AFTER = REQUESTS // 10


def measured(target: Target) -> Iterator[tuple[int, int]]:
    """Give the requests so far and the bytes of memory after each step."""
    requests = 0
    while requests < REQUESTS:
        outcome = generate(target.address, "cycle-zipf", IN_FLIGHT, STEP_SECONDS)
        if outcome.failed:
            raise RuntimeError(f"gRPC status → requests: {outcome.failed}")
        requests += outcome.answered
        yield requests, cpu.memory(target.pid)


def growth(memory: Sequence[tuple[int, int]]) -> float | None:
    """Compare the most that it had with what it had when it had settled."""
    settled = [size for requests, size in memory if requests >= SETTLED_AFTER]
    return max(settled) / settled[0] if settled else None

"""The load generator: a process of its own that keeps a number of requests in flight and tells what came back."""

from __future__ import annotations

import argparse
import asyncio
import collections
import dataclasses
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.bench.http2 import Connection
from tests.bench.loads import LOADS, RESERVE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.bench.loads import Load

# More connections than this change nothing but the cost of reading them one by one.
CONNECTIONS_MAX = 8
WARM_UP_SECONDS = 0.3
# How long answers may take to come in after the last request.
DRAIN_SECONDS = 15.0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one run of load came to: rates and latencies of the measured window, counts of the whole run."""

    per_second: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    answered: int
    succeeded: int
    # those of them that made a hold
    reserved: int
    # gRPC status code -> how often
    failed: dict[str, int]
    generator_cpu_us: float
    # when the window began, in seconds since 1970, and the answers of each tenth of a second of it
    began: float
    tenths: list[int]


class Tally:
    """Counts the answers of all requests in flight between two moments of `time.perf_counter_ns`."""

    def __init__(self, seconds: float, in_flight: int) -> None:
        self.began = time.time() + WARM_UP_SECONDS
        self.start = time.perf_counter_ns() + int(WARM_UP_SECONDS * 1e9)
        self.end = self.start + int(seconds * 1e9)
        self.statuses: collections.Counter[int] = collections.Counter()
        self.reserved = 0
        self.latencies: list[int] = []
        self.tenths = [0] * (int(seconds * 10) + 1)
        self.running = in_flight
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._cpu = time.process_time()

    def leave(self) -> None:
        self.running -= 1
        if not self.running:
            self.done.set_result(None)

    def outcome(self) -> Outcome:
        cpu = time.process_time() - self._cpu
        answered = self.statuses.total()
        milliseconds = [latency / 1e6 for latency in sorted(self.latencies)] or [0.0]
        return Outcome(
            per_second=len(self.latencies) / ((self.end - self.start) / 1e9),
            p50_ms=percentile(milliseconds, 0.50),
            p90_ms=percentile(milliseconds, 0.90),
            p99_ms=percentile(milliseconds, 0.99),
            max_ms=milliseconds[-1],
            answered=answered,
            succeeded=self.statuses[0],
            reserved=self.reserved,
            failed={str(status): count for status, count in self.statuses.items() if status},
            generator_cpu_us=cpu / max(answered, 1) * 1e6,
            began=self.began,
            tenths=self.tenths[: int((self.end - self.start) / 1e8)],
        )


class Slot:
    """One request in flight: asks, takes the answer, asks again."""

    def __init__(self, connection: Connection, load: Load, tally: Tally) -> None:
        self._connection = connection
        self._load = load
        self._tally = tally

    def begin(self) -> None:
        self._ask(None)

    def answered(self, status: int, message: bytes) -> None:
        now, tally = time.perf_counter_ns(), self._tally
        tally.statuses[status] += 1
        tally.reserved += not status and self._path is RESERVE
        if tally.start <= now < tally.end:
            tally.latencies.append(now - self._asked)
            tally.tenths[(now - tally.start) // 100_000_000] += 1
        if now < tally.end:
            self._ask(None if status else message)
        else:
            tally.leave()

    def _ask(self, reply: bytes | None) -> None:
        try:
            self._path, request = self._load.send(reply)
        except StopIteration:
            self._tally.leave()
        else:
            self._asked = time.perf_counter_ns()
            self._connection.send(self._path, request, self)


def percentile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


async def run(address: str, load: str, in_flight: int, seconds: float) -> Outcome:
    """Keep `in_flight` requests under way; ConnectionError when the server hangs up, TimeoutError when it hangs."""
    loop = asyncio.get_running_loop()
    host, _, port = address.rpartition(":")
    connections = [
        (await loop.create_connection(lambda: Connection(address), host, int(port)))[1]
        for _ in range(min(in_flight, CONNECTIONS_MAX))
    ]
    make = LOADS[load]()
    tally = Tally(seconds, in_flight)
    for number in range(in_flight):
        Slot(connections[number % len(connections)], make(), tally).begin()
    for connection in connections:
        connection.flush()
    waiting = [tally.done, *(connection.lost for connection in connections)]
    timeout = WARM_UP_SECONDS + seconds + DRAIN_SECONDS
    finished, _ = await asyncio.wait(waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    if not finished:
        raise TimeoutError(f"{tally.running} requests were not answered in {timeout} s")
    for future in finished:
        future.result()
    for connection in connections:
        connection.close()
    return tally.outcome()


def generate(address: str, load: str, in_flight: int, seconds: float) -> Outcome:
    """Run the generator in a process of its own; raises RuntimeError with what it printed when it fails."""
    command = [sys.executable, "-m", "tests.bench.generator", address, load, str(in_flight), str(seconds)]
    process = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 60)
    if process.returncode:
        raise RuntimeError(f"the load generator failed:\n{process.stderr}")
    return Outcome(**json.loads(process.stdout))


def main() -> None:
    import uvloop  # noqa: PLC0415 - the parent imports this module and needs no loop

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("load", choices=LOADS)
    parser.add_argument("in_flight", type=int)
    parser.add_argument("seconds", type=float)
    options = parser.parse_args()
    outcome = uvloop.run(run(options.address, options.load, options.in_flight, options.seconds))
    sys.stdout.write(json.dumps(dataclasses.asdict(outcome)))


if __name__ == "__main__":
    main()

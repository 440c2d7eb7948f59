"""Everything that is broken on purpose: each fault begins, lasts, and ends with the part repaired.

A fault is a context manager; `parts` are what it needs for itself, so that two that overlap never fight over one part.
"""

from __future__ import annotations

import os
import signal
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from tests.soak.proxy import PASS, STALL, SWALLOW, Rule
from tests.soak.stage import SERVERS

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

    from tests.soak.stage import Stage

    Breaking = Callable[[Stage, random.Random], AbstractContextManager[None]]

HOUR = 3600.0
BALLAST = 1024 * 1024


@dataclass(frozen=True)
class Fault:
    name: str
    parts: frozenset[str]
    breaking: Breaking
    seconds: tuple[float, float] = (0.3, 2.5)


def catalogue(stage: Stage) -> tuple[list[Fault], list[str]]:
    """Give every fault that is possible here, and why others are not."""
    skipped = []
    faults = [*_server_faults(), *_postgres_faults(), *_redis_faults(), *_link_faults()]
    if stage.disk is None:
        skipped.append("the disk is never full: that needs root, to mount a small one")
    else:
        faults.append(_fault("disk full", {"postgres"}, _fill_disk, (1.0, 3.0)))
    return faults, skipped


def _fault(name: str, parts: set[str], breaking: Breaking, seconds: tuple[float, float] = (0.3, 2.5)) -> Fault:
    return Fault(name, frozenset(parts), breaking, seconds)


def _server_faults() -> Iterator[Fault]:
    for number in range(SERVERS):
        parts = {f"server{number}"}
        yield _fault(f"kill server {number}", parts, partial(_kill_servers, [number]))
        yield _fault(f"drain server {number}", parts, partial(_drain_server, number))
        yield _fault(f"pause server {number}", parts, partial(_pause_server, number), (1.0, 5.0))
        for hours in (-1, 1):
            breaking = partial(_shift_clock, number, hours * HOUR)
            yield _fault(f"clock of server {number} off by {hours:+} h", parts, breaking, (2.0, 6.0))
    everyone = list(range(SERVERS))
    yield _fault("kill all servers", {f"server{number}" for number in everyone}, partial(_kill_servers, everyone))


def _postgres_faults() -> Iterator[Fault]:
    for name, number in {
        "crash": signal.SIGKILL,
        "immediate shutdown": signal.SIGQUIT,
        "restart": signal.SIGINT,
    }.items():
        yield _fault(f"PostgreSQL: {name}", {"postgres"}, partial(_end_postgres, number), (0.1, 2.0))
    yield _fault("PostgreSQL: connections terminated", {"postgres"}, _terminate, (0.0, 0.1))
    yield _fault("PostgreSQL: read only", {"postgres"}, _read_only)
    yield _fault("PostgreSQL: rows locked by a stranger", {"postgres"}, _lock_rows, (0.5, 4.0))


def _redis_faults() -> Iterator[Fault]:
    yield _fault("Redis: killed", {"redis"}, _kill_redis)
    yield _fault("Redis: paused", {"redis"}, _pause_redis)


def _link_faults() -> Iterator[Fault]:
    for number in range(SERVERS):
        for between in ("front", "database", "redis"):
            link = f"{between}{number}"
            ways: dict[str, Breaking] = {
                "cut": partial(_cut, link),
                "flapping": partial(_flap, link),
                "refused": partial(_refuse, link),
                "delayed": partial(_delay, link),
                "throttled": partial(_treat, link, Rule(bytes_per_second=20_000), Rule(bytes_per_second=20_000)),
                "half open": partial(_treat, link, STALL, STALL),
                "requests lost": partial(_treat, link, SWALLOW, PASS),
                "replies lost": partial(_treat, link, PASS, SWALLOW),
            }
            for name, breaking in ways.items():
                yield _fault(f"{link}: {name}", {link}, breaking, (0.1, 0.8) if "lost" in name else (0.3, 2.5))


@contextmanager
def _kill_servers(numbers: list[int], stage: Stage, rng: random.Random) -> Iterator[None]:
    del rng
    stage.absent.update(numbers)
    for number in numbers:
        stage.replicas[number].kill()
    try:
        yield
    finally:
        for number in numbers:
            stage.replicas[number].launch()
        stage.absent.difference_update(numbers)


@contextmanager
def _drain_server(number: int, stage: Stage, rng: random.Random) -> Iterator[None]:
    del rng
    stage.absent.add(number)
    stage.replicas[number].terminate()
    try:
        yield
    finally:
        stage.replicas[number].wait()
        stage.replicas[number].launch()
        stage.absent.discard(number)


@contextmanager
def _pause_server(number: int, stage: Stage, rng: random.Random) -> Iterator[None]:
    del rng
    replica = stage.replicas[number]
    with suppress(ProcessLookupError):
        replica.send(signal.SIGSTOP)
    try:
        yield
    finally:
        replica.send(signal.SIGCONT)


@contextmanager
def _shift_clock(number: int, seconds: float, stage: Stage, rng: random.Random) -> Iterator[None]:
    del rng
    replica = stage.replicas[number]
    replica.kill()
    replica.launch(clock_seconds=seconds)
    try:
        yield
    finally:
        replica.kill()
        replica.launch()


@contextmanager
def _end_postgres(number: signal.Signals, stage: Stage, rng: random.Random) -> Iterator[None]:
    del rng
    if stage.postgres.pid is not None:
        os.kill(stage.postgres.pid, number)
    try:
        yield
    finally:
        stage.restart_postgres()


@contextmanager
def _terminate(stage: Stage, rng: random.Random) -> Iterator[None]:
    del rng
    with stage.connect() as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
    yield


@contextmanager
def _read_only(stage: Stage, rng: random.Random) -> Iterator[None]:
    del rng
    with stage.connect() as connection:
        connection.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        connection.execute("SELECT pg_reload_conf()")
        try:
            yield
        finally:
            connection.execute("ALTER SYSTEM RESET default_transaction_read_only")
            connection.execute("SELECT pg_reload_conf()")


@contextmanager
def _lock_rows(stage: Stage, rng: random.Random) -> Iterator[None]:
    table = rng.choice(["inventory_stock", "inventory_reservations"])
    with stage.connect() as connection:
        connection.execute("BEGIN")
        connection.execute(f"SELECT FROM {table} ORDER BY created_at DESC LIMIT 3 FOR UPDATE".encode())
        yield
        connection.execute("ROLLBACK")


@contextmanager
def _fill_disk(stage: Stage, rng: random.Random) -> Iterator[None]:
    del rng
    if stage.disk is None:
        raise RuntimeError("there is no small disk")
    ballast = stage.disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(BALLAST))
    try:
        yield
    finally:
        ballast.unlink()
        if stage.postgres.pid is None:
            stage.restart_postgres()


@contextmanager
def _kill_redis(stage: Stage, rng: random.Random) -> Iterator[None]:
    del rng
    stage.redis.kill()
    try:
        yield
    finally:
        stage.redis.start()


@contextmanager
def _pause_redis(stage: Stage, rng: random.Random) -> Iterator[None]:
    del rng
    pid = stage.redis.pid
    if pid is None:
        raise RuntimeError("Redis has ended by itself")
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def _cut(link: str, stage: Stage, rng: random.Random) -> Iterator[None]:
    for _ in range(rng.randint(1, 3)):
        stage.proxies.cut(stage.links[link])
    yield


@contextmanager
def _flap(link: str, stage: Stage, rng: random.Random) -> Iterator[None]:
    """Let connections live for moments, so that many a call loses its answer."""
    stage.proxies.change(stage.links[link], life_seconds=rng.uniform(0.03, 0.3))
    stage.proxies.cut(stage.links[link])
    try:
        yield
    finally:
        stage.proxies.change(stage.links[link])


@contextmanager
def _refuse(link: str, stage: Stage, rng: random.Random) -> Iterator[None]:
    del rng
    stage.proxies.change(stage.links[link], refusing=True)
    stage.proxies.cut(stage.links[link])
    try:
        yield
    finally:
        stage.proxies.change(stage.links[link])


@contextmanager
def _delay(link: str, stage: Stage, rng: random.Random) -> Iterator[None]:
    rule = Rule(delay_seconds=rng.uniform(0.01, 0.3))
    with _treat(link, rule, rule, stage, rng):
        yield


@contextmanager
def _treat(link: str, up: Rule, down: Rule, stage: Stage, rng: random.Random) -> Iterator[None]:
    del rng
    stage.proxies.change(stage.links[link], up=up, down=down)
    try:
        yield
    finally:
        stage.proxies.change(stage.links[link])

"""The stage: PostgreSQL, Redis and two servers of our own, and a misbehaving proxy between any two of them.

clients --front0--> server 0 --database0--> PostgreSQL
                             --redis0-----> Redis        and the same for server 1
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psycopg
from psycopg import sql
from tests.fixtures.serving import Server
from tests.fixtures.waiting import eventually
from tests.soak.proxy import Proxies

from inventory_server.embedded import EmbeddedPostgres, EmbeddedRedis
from inventory_server.embedded.process import OURSELVES, guarded
from inventory_server.postgres.migrate import migrate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from tests.soak.proxy import Link

SERVERS = 2
HEALS_SECONDS_MAX = 60.0
DISK_MEGABYTES = 640
# Short enough that a fault is over, and seen to be over, within seconds.
LIMITS = {
    "lock_timeout": "700ms",
    "statement_timeout": "1500ms",
    "pool_timeout": "700ms",
    "connect_timeout": "2s",
    "shutdown_grace": "2s",
    "expiry_interval": "1s",
    "startup_timeout": "60s",
}
CLOCK = Path(__file__).with_name("clock")


class Replica(Server):
    """A server that may be started without waiting, with its clock off, and is started again when it ends."""

    died: int = 0  # how often it ended by itself after it had served
    _clock_seconds: float = 0.0
    _log_seen: int = 0

    def launch(self, clock_seconds: float = 0.0) -> None:
        """Start the process and return at once."""
        self._clock_seconds = clock_seconds
        self._log_seen = self._log.stat().st_size if self._log.exists() else 0
        serve = [sys.executable, "-m", "inventory_server", "serve"]
        command = guarded(serve, user=OURSELVES, directory=self._directory, death_signal=signal.SIGKILL)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, env=self._environment(), stdout=log, stderr=log)

    def tend(self) -> None:
        """Start it again if it has ended by itself, as an orchestrator does."""
        if self.process.poll() is not None:
            with self._log.open("rb") as log:
                log.seek(self._log_seen)
                self.died += b"serving on" in log.read()
            self.launch()

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def _environment(self) -> dict[str, str]:
        environment = super()._environment()
        if self._clock_seconds:
            paths = [str(CLOCK), environment.get("PYTHONPATH", "")]
            environment |= {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
            environment |= {"SOAK_CLOCK_SECONDS": str(self._clock_seconds)}
        return environment


class Stage:
    """What is broken. `absent` names servers that a fault keeps down, so that nobody starts them again."""

    def __init__(self, directory: Path, postgres: EmbeddedPostgres, redis: EmbeddedRedis, proxies: Proxies) -> None:
        self.directory = directory
        self.postgres = postgres
        self.redis = redis
        self.proxies = proxies
        self.links: dict[str, Link] = {}
        self.replicas: list[Replica] = []
        self.absent: set[int] = set()
        self.disk: Path | None = None

    def add_replica(self) -> None:
        number = len(self.replicas)
        database = self._linked(f"database{number}", self.postgres.url)
        replica = Replica(database, self._linked(f"redis{number}", self.redis.url), self.directory, **LIMITS)
        self.replicas.append(replica)
        host, _, port = replica.address.rpartition(":")
        self.links[f"front{number}"] = self.proxies.link(host, int(port))
        replica.launch()

    @property
    def targets(self) -> list[str]:
        """Where clients find the servers."""
        return [f"127.0.0.1:{self.links[f'front{number}'].port}" for number in range(len(self.replicas))]

    def connect(self) -> psycopg.Connection[Any]:
        """Connect to PostgreSQL past the proxies, as an operator or a stranger does."""
        options = "-c default_transaction_read_only=off"
        return psycopg.connect(self.postgres.url, autocommit=True, connect_timeout=10, options=options)

    def restart_postgres(self) -> None:
        """Start PostgreSQL again once it has ended; by force where it does not end by itself."""
        with suppress(AssertionError):
            eventually(lambda: self.postgres.pid is None, within=5)
        self.postgres.kill()
        self.postgres.start()

    def tend(self) -> None:
        for number, replica in enumerate(self.replicas):
            if number not in self.absent:
                replica.tend()

    def wait_until_up(self) -> None:
        """Wait until both servers serve; AssertionError where they do not heal."""

        def up() -> bool:
            self.tend()
            return all(replica.health() == "SERVING" for replica in self.replicas)

        eventually(up, within=HEALS_SECONDS_MAX, otherwise=lambda: "the servers do not heal:\n" + self.last_words())

    def last_words(self) -> str:
        return "\n".join(line for replica in self.replicas for line in replica.log.splitlines()[-15:])

    def _linked(self, name: str, url: str) -> str:
        parts = urlsplit(url)
        link = self.links[name] = self.proxies.link(parts.hostname or "", parts.port or 0)
        return parts._replace(netloc=parts.netloc.replace(f":{parts.port}", f":{link.port}")).geturl()


@contextmanager
def set_up(directory: Path) -> Iterator[Stage]:
    """Build the stage below a directory, and take it down whatever happened."""
    with ExitStack() as stack:
        disk = directory / "disk"
        disk.mkdir()
        small = stack.enter_context(_small_disk(disk))
        postgres = stack.enter_context(EmbeddedPostgres(disk))
        redis = stack.enter_context(EmbeddedRedis(directory))
        stage = Stage(directory, postgres, redis, stack.enter_context(Proxies()))
        stage.disk = disk if small else None
        migrate(postgres.url)
        with stage.connect() as connection:
            # Leaves room on the small disk, and makes checkpoints, which crashes love, frequent.
            for name, value in {"max_wal_size": "96MB", "checkpoint_timeout": "30s"}.items():
                connection.execute(sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(name), sql.Literal(value)))
            connection.execute("SELECT pg_reload_conf()")
        for _ in range(SERVERS):
            stage.add_replica()
            stack.callback(_stop, stage.replicas[-1])
        stage.wait_until_up()
        yield stage


def _stop(replica: Replica) -> None:
    replica.process.kill()
    replica.process.wait()


@contextmanager
def _small_disk(directory: Path) -> Iterator[bool]:
    """Mount a file system that can be filled, where we may."""
    options = f"size={DISK_MEGABYTES}m,mode=0755"
    command = ["mount", "-t", "tmpfs", "-o", options, "inventory-soak", str(directory)]
    try:
        mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(directory)], check=True)

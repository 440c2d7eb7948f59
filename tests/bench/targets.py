"""What is measured: a server process each, with a database of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self, cast

import grpc
import psycopg
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from tests.bench.generator import generate
from tests.bench.loads import HOT, QUANTITY, SPREAD

from inventory_server.embedded.process import free_port

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from tests.bench.stores import Stores

ROOT = Path(__file__).parents[2]
START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 20.0
# The longest that creating all products may take.
INITIALIZE_SECONDS_MAX = 60.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a target is started, and how the holds that it made are counted."""

    module: tuple[str, ...]
    # run in the fresh database before the start
    schema: Path | None = None
    # whether products are created through the API after the start
    initialized_by_api: bool = False
    # run once the products are there
    filling: Path | None = None
    # beside what every target gets
    environment: Mapping[str, str] = field(default_factory=dict)
    # one row: how many holds were ever made, how many units are held, and how many are reserved
    holds: str | None = None


SERVICE = Plan(
    module=("inventory_server", "serve"),
    initialized_by_api=True,
    holds="""
        SELECT count(*), sum(quantity) FILTER (WHERE status = 'RESERVED'),
               (SELECT sum(reserved_quantity) FROM inventory_stock)
        FROM inventory_reservations
    """,
)
PLANS = {
    "empty": Plan(module=("tests.bench.servers", "empty")),
    "per-request": Plan(
        module=("tests.bench.servers", "per-request"),
        schema=Path(__file__).with_name("schema.sql"),
        holds="SELECT count(*), sum(quantity), (SELECT sum(reserved_quantity) FROM stock) FROM reservations",
    ),
    "bare": replace(SERVICE, module=("tests.bench.servers", "bare")),
    "service": SERVICE,
    "2-workers": replace(SERVICE, environment={"INVENTORY_WORKERS": "2"}),
    "4-workers": replace(SERVICE, environment={"INVENTORY_WORKERS": "4"}),
    "no-cache": replace(SERVICE, environment={"INVENTORY_REDIS_URL": "none://"}),
    "full": replace(SERVICE, filling=Path(__file__).with_name("filling.sql")),
}
"""By name. All but the first three are this service: as it comes, and in other circumstances."""


class Target:
    """A running server under test; a context manager. RuntimeError says with its log why it does not run."""

    def __init__(self, name: str, stores: Stores, directory: Path) -> None:
        self.name = name
        self._plan = PLANS[name]
        self._stores = stores
        self._database = f"inventory_bench_{name.replace('-', '_')}"
        self._log = directory / f"{name}.log"
        self.address = f"127.0.0.1:{free_port()}"

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def url(self) -> str:
        """The URL of its database."""
        return self._url

    def __enter__(self) -> Self:
        self._url = self._stores.fresh_database(self._database)
        if self._plan.schema:
            with psycopg.connect(self._url) as connection:
                connection.execute(self._plan.schema.read_bytes())
                connection.cursor().executemany(
                    "INSERT INTO stock (product_id, available_quantity) VALUES (%s, %s)",
                    [(product, QUANTITY) for product in (HOT, *SPREAD)],
                )
        with self._log.open("wb") as log:
            command = [sys.executable, "-m", *self._plan.module]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=self._environment(), cwd=ROOT)
        try:
            self._wait_until_serving()
            if self._plan.initialized_by_api:
                self._initialize()
            with psycopg.connect(self._url, autocommit=True) as connection:
                if self._plan.filling:
                    connection.execute(self._plan.filling.read_bytes())
                connection.execute("VACUUM ANALYZE")
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop()

    def holds(self) -> int | None:
        """Count the holds made; None where none are kept. RuntimeError when stock and holds disagree."""
        if self._plan.holds is None:
            return None
        with psycopg.connect(self._url) as connection:
            row = connection.execute(self._plan.holds.encode()).fetchone()
        if row is None or (row[1] or 0) != row[2]:
            raise RuntimeError(f"{self.name}: holds and reserved units differ: {row}")
        return int(row[0])

    def _environment(self) -> dict[str, str]:
        # Any other INVENTORY_ variable reaches the service too, so that a setting can be tried with `make bench`.
        defaults = {"INVENTORY_RESERVATION_TTL": "1h", "INVENTORY_LOG_LEVEL": "warning"}
        ours = {
            "INVENTORY_LISTEN": self.address,
            "INVENTORY_DATABASE_URL": self._url,
            "INVENTORY_REDIS_URL": self._stores.redis_url,
        }
        return {**defaults, **os.environ, **ours, **self._plan.environment}

    def _wait_until_serving(self) -> None:
        until = time.monotonic() + START_SECONDS_MAX
        with grpc.insecure_channel(self.address) as channel:
            while not _serves(channel):
                if self._process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"{self.name} does not serve:\n{self._log.read_text(errors='replace')[-4000:]}")
                time.sleep(0.05)

    def _initialize(self) -> None:
        outcome = generate(self.address, "initialize", 128, INITIALIZE_SECONDS_MAX)
        if outcome.succeeded != len(SPREAD) + 1:
            raise RuntimeError(
                f"{self.name}: only {outcome.succeeded} products were created, failures {outcome.failed}"
            )

    def _stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stores.drop_database(self._database)


def _serves(channel: grpc.Channel) -> bool:
    check = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=HealthCheckRequest.SerializeToString,
        response_deserializer=HealthCheckResponse.FromString,
    )
    try:
        answer = check(HealthCheckRequest(), timeout=1, wait_for_ready=True)
    except grpc.RpcError as error:
        # the servers made for comparison have no health service, but only a server can say so
        return cast("grpc.Call", error).code() == grpc.StatusCode.UNIMPLEMENTED
    return bool(answer.status == HealthCheckResponse.SERVING)

"""Health as orchestrators ask for it: `grpc.health.v1`, checked all the time and not on demand.

`""` and the service are SERVING while PostgreSQL answers; `postgresql` and `redis` tell of each store alone. `liveness`
is SERVING while the process is well, whatever the stores do: to restart it would not bring them back.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio

from inventory_server.errors import InventoryError
from inventory_server.metrics import Gauge
from inventory_server.rpc.boundary import SERVICE

if TYPE_CHECKING:
    from inventory_server.cache import ReservationCache
    from inventory_server.postgres.database import Database

log = logging.getLogger(__name__)

HEALTH_SERVICE = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

LIVENESS = "liveness"

_STATUSES = {True: health_pb2.HealthCheckResponse.SERVING, False: health_pb2.HealthCheckResponse.NOT_SERVING}

UP = Gauge(
    "inventory_store_up",
    "Server processes for which the store answers; compare with inventory_workers.",
    ["store"],
    [("postgresql",), ("redis",)],
)


class Health:
    """Keeps the names of the health service up to date."""

    def __init__(self, database: Database, cache: ReservationCache, interval: float) -> None:
        self.servicer = aio.HealthServicer()
        self._database = database
        self._cache = cache
        self._interval = interval
        self._known: dict[str, bool] = {}

    async def run(self) -> None:
        """Check for ever, with a pause of `interval` seconds between two checks."""
        while True:
            await self.check()
            await asyncio.sleep(self._interval)

    async def check(self) -> None:
        """Ask both stores once."""
        postgresql, redis = await asyncio.gather(self._postgresql_answers(), self._cache.ping())
        UP.set("postgresql", to=postgresql)
        UP.set("redis", to=redis)
        names = {"": postgresql, SERVICE: postgresql, "postgresql": postgresql, "redis": redis, LIVENESS: True}
        for name, serving in names.items():
            await self._set(name, serving=serving)

    async def stop(self) -> None:
        """Tell everybody NOT_SERVING, for good."""
        await self.servicer.enter_graceful_shutdown()

    async def _postgresql_answers(self) -> bool:
        try:
            await self._database.ping()
        except InventoryError:
            return False
        except Exception:
            log.exception("PostgreSQL answered the health check with something else")
            return False
        return True

    async def _set(self, name: str, *, serving: bool) -> None:
        if self._known.get(name) != serving:
            self._known[name] = serving
            level, told = (logging.INFO, "SERVING") if serving else (logging.WARNING, "NOT_SERVING")
            log.log(level, "health of %s is %s", name or "the server", told)
            await self.servicer.set(name, _STATUSES[serving])

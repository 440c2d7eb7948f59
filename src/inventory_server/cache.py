"""Reservations in Redis: a hint that may be slow, full, gone or wrong and costs no more than a slower answer.

Entries are `reservation:{reservationId}`, hold the documented JSON and live as long as the hold. Nothing is decided
by them: whatever is read here is compared with PostgreSQL before it is told to anybody.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import orjson
from redis.asyncio import ConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from inventory_server.domain import Replayed, Reservation, ReservationStatus
from inventory_server.metrics import Counter
from inventory_server.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Mapping, Sequence

    from inventory_server.settings import Settings

log = logging.getLogger(__name__)

LOOKUPS = Counter(
    "inventory_cache_lookups_total",
    "Holds looked up in Redis, by what was found.",
    ["result"],
    [("hit",), ("miss",), ("failure",)],
)
FAILURES = Counter("inventory_cache_failures_total", "Commands that Redis failed at, after which it is left alone.")

# Two arguments, however many holds: a line each with id, milliseconds to live and JSON of those that are held, and the
# ids of those that have ended. To have redis-py pack arguments of their own costs more than all the rest of it.
_WRITE = """
for id, ttl, json in string.gmatch(ARGV[1], '(%S+) (%d+) ([^\\n]+)') do
    redis.call('SET', 'reservation:' .. id, json, 'PX', ttl)
end
for id in string.gmatch(ARGV[2], '%S+') do
    redis.call('UNLINK', 'reservation:' .. id)
end
"""

# How long changes gather before they are written. A command costs as much processor time as thirty holds in one, and
# a copy that is missing or stale until then costs no more than the row's being read.
_GATHER_SECONDS = 0.1
# Redis does nothing else during a command, so it gets this many changes at once.
_CHANGES_MAX = 500


def check_url(url: str) -> None:
    """Raise SettingsError, which shows nothing of the URL and its password, unless Redis could be asked there."""
    if url.startswith("none:"):
        return
    try:
        parts = urlsplit(url)
        # Where a password is not escaped, its rest is taken for a port, a database or a fragment, or left out.
        clear = not parts.fragment and "@" not in parts.query
        clear = clear and (parts.scheme == "unix" or re.fullmatch(r"/?[0-9]*", parts.path) is not None)
        # It reads all of it, and does not connect.
        ConnectionPool.from_url(url).make_connection()  # type: ignore[no-untyped-call]
    except (ValueError, TypeError, RedisError):
        clear = False
    if not clear:
        raise SettingsError(
            "INVENTORY_REDIS_URL is not redis://[user[:password]@]host[:port][/number][?options], rediss:// or unix://"
            " with options that redis-py knows; in user and password @, :, /, # and ? are written as %40, %3A, %2F, %23"
            " and %3F."
        )


class ReservationCache:
    """The cache behind a circuit breaker: after a failure Redis is left alone for a while. No method raises.

    Nobody waits for what is written: changes gather and go out in one command, of those to one hold only the last.
    """

    def __init__(self, url: str, settings: Settings) -> None:
        self._timeout = settings.redis_timeout
        self._pause = settings.redis_retry
        self._closed_until = 0.0  # while the breaker is open: when to try again, in monotonic seconds
        self._changes: dict[str, Reservation | None] = {}  # to be written, by id: the hold, or None when it has ended
        self._writing: asyncio.Task[None] | None = None
        self._redis: Redis | None = None
        if not url.startswith("none:"):
            self._redis = Redis.from_url(
                url,
                socket_timeout=None,  # _guarded bounds each command, and cheaper
                socket_connect_timeout=settings.redis_timeout,
                retry=Retry(NoBackoff(), 0),
                max_connections=64,
                client_name="inventory-server",
            )
            self._script = self._redis.register_script(_WRITE)

    @property
    def enabled(self) -> bool:
        return self._redis is not None

    @property
    def usable(self) -> bool:
        """Whether asking makes sense now."""
        return self._redis is not None and self._closed_until <= time.monotonic()

    async def close(self) -> None:
        """Write what is still to be written, and let go of Redis."""
        if self._writing is not None:
            await self._writing
        if self._redis is not None:
            await self._redis.aclose()

    async def ping(self) -> bool:
        """Tell whether Redis answers, whatever the breaker says; an answer closes it."""
        if self._redis is None:
            return False
        try:
            async with asyncio.timeout(self._timeout):
                await self._redis.ping()
        except (RedisError, OSError, TimeoutError):
            return False
        self._closed_until = 0.0
        return True

    def put(self, reservations: Iterable[Reservation]) -> None:
        """Keep holds for as long as they last, also those that were extended; what was replayed may be long over."""
        self._write_soon({hold.reservation_id: hold for hold in reservations if not isinstance(hold, Replayed)})

    def forget(self, reservation_ids: Iterable[str]) -> None:
        """Drop holds that have ended."""
        self._write_soon(dict.fromkeys(reservation_ids))

    def _write_soon(self, changes: Mapping[str, Reservation | None]) -> None:
        if self.usable and changes:
            self._changes.update(changes)
            if self._writing is None or self._writing.done():
                self._writing = asyncio.ensure_future(self._write())

    async def _write(self) -> None:
        while self._changes:
            await asyncio.sleep(_GATHER_SECONDS)
            changes, self._changes = [*self._changes.items()], {}
            for first in range(0, len(changes), _CHANGES_MAX):
                await self._write_some(changes[first : first + _CHANGES_MAX])

    async def _write_some(self, changes: Sequence[tuple[str, Reservation | None]]) -> None:
        ended = [key.encode() for key, hold in changes if hold is None]
        held = [_line(hold) for _, hold in changes if hold is not None]
        if self.usable:
            await self._guarded(self._script(args=[b"\n".join(held), b"\n".join(ended)]))

    async def find(self, reservation_ids: Sequence[str]) -> dict[str, Reservation]:
        """Read what is known of holds; what is missing or makes no sense is left out."""
        if self._redis is None or not self.usable or not reservation_ids:
            return {}
        entries = await self._guarded(self._redis.mget(["reservation:" + key for key in reservation_ids]))
        found = {}
        for key, entry in zip(reservation_ids, entries or (), strict=False):
            if entry is not None and (reservation := _decoded(key, entry)) is not None:
                found[key] = reservation
        LOOKUPS.inc("hit", by=len(found))
        LOOKUPS.inc("failure" if entries is None else "miss", by=len(reservation_ids) - len(found))
        return found

    async def _guarded(self, command: Awaitable[Any]) -> Any:
        try:
            async with asyncio.timeout(self._timeout):
                return await command
        except (RedisError, OSError, TimeoutError) as error:
            self._closed_until = time.monotonic() + self._pause
            FAILURES.inc()
            log.warning("Redis is left alone for %.1f s: %s", self._pause, str(error) or type(error).__name__)
            return None


def _line(reservation: Reservation) -> bytes:
    """Write down a hold for `_WRITE`: nothing where it is over already."""
    lifetime_ms = (reservation.expires_at_us - reservation.updated_at_us) // 1000
    if lifetime_ms <= 0:
        return b""
    return b"%b %d %b" % (reservation.reservation_id.encode(), lifetime_ms, _encoded(reservation))


def _encoded(reservation: Reservation) -> bytes:
    return orjson.dumps(
        {
            "reservationId": reservation.reservation_id,
            "productId": reservation.product_id,
            "orderId": reservation.order_id,
            "quantity": reservation.quantity,
            "status": reservation.status,
            "expiresAt": _written(reservation.expires_at_us),
            "createdAt": _written(reservation.created_at_us),
            "updatedAt": _written(reservation.updated_at_us),
        }
    )


def _decoded(reservation_id: str, entry: bytes) -> Reservation | None:
    """Read an entry, which may be anything at all: only texts and a number of the right shape pass."""
    try:
        fields = orjson.loads(entry)
        texts = [fields[name] for name in ("productId", "orderId", "expiresAt", "createdAt", "updatedAt")]
        quantity = fields["quantity"]
        if not all(type(text) is str and "\0" not in text for text in texts) or type(quantity) is not int:
            return None
        product_id, order_id, *moments = texts
        expires, created, updated = map(_read, moments)
    except (ValueError, TypeError, KeyError, OverflowError):
        return None
    if not -(2**63) <= quantity < 2**63:
        return None
    status = ReservationStatus.RESERVED
    return Reservation(reservation_id, product_id, order_id, quantity, status, None, expires, created, updated)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


# The holds of one batch share their moments.
@lru_cache(maxsize=1024)
def _written(moment_us: int) -> str:
    return (_EPOCH + timedelta(microseconds=moment_us)).isoformat().replace("+00:00", "Z")


def _read(text: str) -> int:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a moment needs its zone")
    return (moment - _EPOCH) // timedelta(microseconds=1)

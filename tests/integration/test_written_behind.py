"""What is written to Redis is written behind the answers, in turn, and not lost when the server stops."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

import redis

from inventory_server.cache import ReservationCache
from inventory_server.domain import Replayed, Reservation
from inventory_server.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from inventory_server.embedded import EmbeddedRedis

MINUTE_US = 60_000_000
NOW_US = 1_800_000_000_000_000
SETTINGS = Settings(redis_timeout=5.0, redis_retry=3600.0)


def hold(quantity: int = 1, lasts_us: int = MINUTE_US) -> Reservation:
    moments = (NOW_US + lasts_us, NOW_US, NOW_US)
    return Reservation(str(uuid.uuid4()), "teapot", "order", quantity, "RESERVED", None, *moments)


def after(url: str, *steps: Callable[[ReservationCache], None], settings: Settings = SETTINGS) -> None:
    """Take the steps in one go, with no turn for the writer between them, and close the cache at once."""

    async def take() -> None:
        cache = ReservationCache(url, settings)
        for step in steps:
            step(cache)
        await cache.close()

    asyncio.run(take())


def entries(url: str) -> dict[str, int]:
    """Give the milliseconds that each hold there is kept for."""
    with redis.Redis.from_url(url, decode_responses=True) as store:
        keys: Any = store.keys("reservation:*")
        ttls: dict[str, Any] = {key.removeprefix("reservation:"): store.pttl(key) for key in keys}
    return ttls


def test_what_is_to_be_written_is_there_once_the_cache_is_closed(redis_url: str) -> None:
    holds = [hold() for _ in range(2_000)]
    after(redis_url, lambda cache: cache.put(holds))
    kept = entries(redis_url)
    assert kept.keys() == {each.reservation_id for each in holds}
    assert all(0 < ttl <= 60_000 for ttl in kept.values())
    after(redis_url, lambda cache: cache.forget(each.reservation_id for each in holds[1:]))
    assert entries(redis_url).keys() == {holds[0].reservation_id}


def test_of_several_changes_to_one_hold_the_last_counts(redis_url: str) -> None:
    ended, again = hold(), hold()
    after(
        redis_url,
        lambda cache: cache.put([ended, again]),
        lambda cache: cache.forget([ended.reservation_id, again.reservation_id]),
        lambda cache: cache.put([again]),
    )
    assert entries(redis_url).keys() == {again.reservation_id}


def test_what_was_replayed_or_is_over_is_not_written(redis_url: str) -> None:
    kept, over, replayed = hold(), hold(lasts_us=0), Replayed(*hold())
    after(redis_url, lambda cache: cache.put([over, kept, replayed]))
    assert entries(redis_url).keys() == {kept.reservation_id}


def test_a_redis_that_hangs_or_is_gone_holds_up_one_write_and_no_other(
    private_redis: EmbeddedRedis, caplog: pytest.LogCaptureFixture
) -> None:
    impatient = Settings(redis_timeout=0.2, redis_retry=3600.0)

    async def write() -> None:
        cache = ReservationCache(private_redis.url, impatient)
        cache.put([hold()])
        while cache._changes:  # noqa: ASYNC110 — nobody tells when that write is under way
            await asyncio.sleep(0)
        cache.put([hold()])
        await cache.close()
        assert not cache.usable

    with redis.Redis.from_url(private_redis.url) as store:
        store.client_pause(60_000)
    asyncio.run(write())
    private_redis.kill()
    asyncio.run(write())
    assert [record.message.partition(":")[0] for record in caplog.records] == ["Redis is left alone for 3600.0 s"] * 2


def test_without_redis_nothing_is_kept_for_later() -> None:
    after("none://", lambda cache: cache.put([hold()]), lambda cache: cache.forget(["x"]))


def test_a_write_that_is_refused_leaves_redis_alone_for_a_while(private_redis: EmbeddedRedis) -> None:
    with redis.Redis.from_url(private_redis.url) as store:
        store.config_set("maxmemory", "1")
        store.config_set("maxmemory-policy", "noeviction")
        cache = ReservationCache(private_redis.url, SETTINGS)

        async def write() -> bool:
            cache.put([hold()])
            await cache.close()
            return cache.usable

        assert not asyncio.run(write())
        store.config_set("maxmemory", "0")
        assert entries(private_redis.url) == {}

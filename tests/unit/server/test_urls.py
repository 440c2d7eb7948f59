"""URLs of stores as people write them, and as libpq and redis-py take them."""

from __future__ import annotations

import pytest

from inventory_server import cache
from inventory_server.postgres import urls


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://",
        "postgres://db",
        "postgresql://inv:a%40b%2Fc@db:5432/inv?sslmode=require",
        "postgresql://inv:what?#really@db/inv",
        "postgresql://one:5432,two:5433/inv?target_session_attrs=read-write",
        "postgresql://[::1]:5432/inv",
        "postgresql:///inv?host=/run/postgresql&user=inv@tenant",
        "postgresql://?host=/run/postgresql&user=inv@tenant",
    ],
)
def test_what_libpq_takes_is_a_url_of_postgresql(url: str) -> None:
    urls.check(url)


@pytest.mark.parametrize(
    "url",
    [
        "none://",
        "redis://cache",
        "redis://cache:6379/0?protocol=3",
        "redis://:a%40b%2Fc%23@cache/1",
        "rediss://user:secret@cache:6380?ssl_cert_reqs=none",
        "redis://[::1]:6379",
        "unix://:secret@/run/redis.sock?db=1",
    ],
)
def test_what_redis_py_takes_is_a_url_of_redis(url: str) -> None:
    cache.check_url(url)

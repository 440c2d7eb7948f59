"""Many holds that expire at one moment, while checkouts go on: how soon they are gone, and what it costs the others."""

from __future__ import annotations

import datetime as dt
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import psycopg
from tests.bench.generator import generate
from tests.bench.loads import SPREAD

from inventory_client import InventoryClient, ReserveItem

if TYPE_CHECKING:
    from tests.bench.targets import Target

HOLDS = 100_000
ITEMS = 500
CALLERS = 4
IN_FLIGHT = 128
# What making the holds may take, and how long others are measured before and after the moment.
MAKING_SECONDS_MAX = 40.0
BEFORE_SECONDS, AFTER_SECONDS = 8, 24
TENTH = 0.1
LOOK_SECONDS = 0.5
# Those of the others last an hour.
LEFT = """
    SELECT count(*) FROM inventory_reservations WHERE status = 'RESERVED' AND tidy_at < now() + interval '10 minutes'
"""


def measured(target: Target) -> dict[str, Any]:
    """Give the holds that are left at each look, and the reserves of others in each tenth of a second.

    Looks are [seconds after the moment, holds]; the tenths begin `before` seconds ahead of it.
    """
    moment = time.time() + MAKING_SECONDS_MAX + BEFORE_SECONDS
    _make(target.address, moment)
    _sleep_until(moment - BEFORE_SECONDS)
    looks: list[tuple[float, int]] = []
    with ThreadPoolExecutor(1) as side, psycopg.connect(target.url, autocommit=True) as connection:
        load = side.submit(generate, target.address, "spread", IN_FLIGHT, BEFORE_SECONDS + AFTER_SECONDS)
        while not load.done():
            looks.append((round(time.time() - moment, 2), _count(connection)))
            time.sleep(LOOK_SECONDS)
        outcome = load.result()
    if outcome.failed or looks[0][1] != HOLDS:
        raise RuntimeError(f"{looks[0][1]} of {HOLDS} holds were there, others failed with {outcome.failed}")
    return {"looks": looks, "before": round(moment - outcome.began, 2), "tenths": outcome.tenths}


def gone_after(expiry: dict[str, Any]) -> float | None:
    """Say how many seconds after the moment none was left; None if some always were."""
    return next((float(second) for second, holds in expiry.get("looks", ()) if not holds), None)


def share_of_others(expiry: dict[str, Any]) -> float | None:
    """Compare what others got while holds went with what they got before."""
    gone = gone_after(expiry)
    if gone is None:
        return None
    at = int(expiry["before"] / TENTH)
    during = expiry["tenths"][at : at + max(1, int(gone / TENTH))]
    return float(statistics.mean(during) / statistics.mean(expiry["tenths"][: at - 5]))


def _make(address: str, moment: float) -> None:
    def reserve(at: int) -> None:
        ttl = dt.timedelta(seconds=moment - time.time())
        products = [SPREAD[number % len(SPREAD)] for number in range(at, at + ITEMS)]
        client.batch_reserve_stock([ReserveItem(product, "order", 1, ttl=ttl) for product in products])

    with InventoryClient(address) as client, ThreadPoolExecutor(CALLERS) as callers:
        list(callers.map(reserve, range(0, HOLDS, ITEMS)))


def _count(connection: psycopg.Connection) -> int:
    row = connection.execute(LEFT.encode()).fetchone()
    return int(row[0]) if row else 0


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.time()))

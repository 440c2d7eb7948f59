"""The composition root: stores, schema, lanes, worker, health and gRPC, put together and taken apart in order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import time
from typing import TYPE_CHECKING

import grpc
import psycopg

from inventory_server import stopping
from inventory_server.cache import ReservationCache, check_url
from inventory_server.embedded import EmbeddedError, EmbeddedPostgres, EmbeddedRedis, kept
from inventory_server.expiry import ExpiryThread
from inventory_server.feed import Feed
from inventory_server.inventory import Inventory
from inventory_server.metrics import MetricsError, page
from inventory_server.metrics.page import Page
from inventory_server.postgres import urls
from inventory_server.postgres.database import Database, first_line
from inventory_server.postgres.feed import Alarm, FeedRepository
from inventory_server.postgres.holds import HoldRepository
from inventory_server.postgres.migrate import MigrationError, migrate
from inventory_server.postgres.reading import ReadingRepository
from inventory_server.postgres.stock import StockRepository
from inventory_server.queries import Queries
from inventory_server.rpc import boundary, reflection, reloading
from inventory_server.rpc.addresses import ListenError, claimed, held
from inventory_server.rpc.certificates import Certificates
from inventory_server.rpc.feed_servicer import FeedServicer
from inventory_server.rpc.health import HEALTH_SERVICE, Health
from inventory_server.rpc.listening import bind, build, offer_health
from inventory_server.rpc.orders_servicer import OrdersServicer
from inventory_server.rpc.queries_servicer import QueriesServicer
from inventory_server.rpc.servicer import InventoryServicer
from inventory_server.rpc.tokens import Tokens
from inventory_server.sampling import sample
from inventory_server.settings import SettingsError
from inventory_server.supervisor import PULSE, Supervisor, WorkersFailedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from inventory_server.settings import Settings

log = logging.getLogger(__name__)

_RETRY_SECONDS = 0.5
_BEAT_SECONDS = 0.5
# Objects more than there were that have the collector look at them; Python's own 700 cost a tenth of a bulk call.
_COLLECT_AFTER = 10_000


class StartError(Exception):
    """The server cannot start; the sentence says why."""


# What ends a command with one sentence.
FAILURES = (StartError, ListenError, MigrationError, EmbeddedError, WorkersFailedError, MetricsError)


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain and return."""
    page.adopt()
    # Before anything is started or changed: what is needed may be missing or wrong.
    _require_stores(settings)
    tokens = Tokens(settings.tokens_file) if settings.tokens_file is not None else None
    certificates = Certificates.of(settings)
    with _metrics(settings) as pages, _stores(settings) as (database_url, redis_url):
        if settings.migrate:
            migrate_when_up(database_url, settings.startup_timeout)
        if settings.workers > 1:
            _supervise(settings, database_url, redis_url, pages)
            return
        _spare_the_collector()
        new_event_loop = _loop_factory()
        expiry = ExpiryThread(database_url, redis_url, settings, new_event_loop)
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(_serve(settings, database_url, redis_url, expiry, tokens, certificates))


def _spare_the_collector() -> None:
    """Have the garbage collector run less often: a batch makes thousands of objects, and hardly ever a cycle."""
    gc.freeze()  # what was imported stays
    gc.set_threshold(_COLLECT_AFTER)


@contextlib.contextmanager
def _metrics(settings: Settings) -> Iterator[list[Page] | list[None]]:
    """Tell the metrics of the whole service where somebody wants them, and give a page for each worker."""
    workers = settings.workers if settings.workers > 1 else 0
    if settings.metrics_listen is None or page.is_ours():
        yield [None] * workers
        return
    from inventory_server.metrics.endpoint import Endpoint  # noqa: PLC0415 — for nobody else

    pages = [Page.shared() for _ in range(workers)]
    with Endpoint(settings.metrics_listen, [page.own, *pages]):
        yield pages


def _supervise(settings: Settings, database_url: str, redis_url: str, pages: list[Page] | list[None]) -> None:
    ours = {
        "INVENTORY_WORKERS": "1",
        "INVENTORY_SHARE_ADDRESS": "true",
        "INVENTORY_MIGRATE": "false",
        "INVENTORY_DATABASE_URL": database_url,
        "INVENTORY_REDIS_URL": redis_url,
    }
    with contextlib.ExitStack() as stack:
        for address in _addresses(settings):
            stack.enter_context(held(address, shared=settings.share_address))
        Supervisor(pages, {**os.environ, **ours}, settings.shutdown_grace).run()


def _addresses(settings: Settings) -> list[str]:
    return [each for each in (settings.listen, settings.health_listen) if each is not None]


def _require_stores(settings: Settings) -> None:
    """Make sure that what is named can be asked, and that what is not can be started."""
    try:
        if settings.database_url is None:
            EmbeddedPostgres.require()
        else:
            urls.check(settings.database_url)
        if settings.redis_url is None:
            EmbeddedRedis.require()
        else:
            check_url(settings.redis_url)
    except EmbeddedError as missing:
        raise SettingsError(str(missing)) from None


@contextlib.contextmanager
def _stores(settings: Settings) -> Iterator[tuple[str, str]]:
    """Give the URLs of PostgreSQL and Redis, of embedded ones where none are named, which are kept running."""
    with contextlib.ExitStack() as stack:
        database_url, redis_url = settings.database_url, settings.redis_url
        if database_url is None:
            postgres = EmbeddedPostgres(settings.data_dir)
            database_url = stack.enter_context(kept(postgres))
            log.info("the embedded PostgreSQL listens on %s", postgres.whereabouts)
        if redis_url is None:
            redis_url = stack.enter_context(kept(EmbeddedRedis(settings.data_dir)))
        yield database_url, redis_url


def migrate_when_up(database_url: str, patience: float) -> None:
    """Migrate, and wait for a database that is still starting, or for what else passes by itself."""
    deadline = time.monotonic() + patience
    while True:
        try:
            migrate(database_url)
        except psycopg.Error as error:
            if not _passes(error) or time.monotonic() >= deadline:
                trouble = (
                    "The schema cannot be brought up to date" if error.sqlstate else "PostgreSQL cannot be reached"
                )
                raise StartError(f"{trouble}: {str(error).strip()}") from error
            log.warning("waiting for PostgreSQL: %s", first_line(error))
            time.sleep(_RETRY_SECONDS)
        else:
            return


def _passes(error: psycopg.Error) -> bool:
    """Tell whether an error is one of a server that is away or starting, or of a lock that somebody else has."""
    return isinstance(error, psycopg.OperationalError) and (
        error.sqlstate is None or error.sqlstate.startswith(("08", "40", "55P03", "57P"))
    )


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop  # noqa: PLC0415 — optional: there is none for Windows
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


async def _serve(
    settings: Settings,
    database_url: str,
    redis_url: str,
    expiry: ExpiryThread,
    tokens: Tokens | None,
    certificates: Certificates | None,
) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    stopping.on_signal(lambda: loop.call_soon_threadsafe(stop.set))
    beat = asyncio.create_task(_beat(stop))
    database = Database(database_url, settings, size=settings.pool_size, name="rpc")
    cache = ReservationCache(redis_url, settings)
    health = Health(database, cache, settings.health_interval)
    await database.open()
    try:
        async with _listening(settings, certificates, health) as (server, address):
            inventory, feed, servicers = operations(database, database_url, cache, settings)
            calls = boundary.register(server, servicers, tokens, metered=settings.metrics_listen is not None)
            await health.check()
            await server.start()
            files = [each for each in (tokens, certificates) if each is not None]
            background = [asyncio.create_task(each) for each in (health.run(), reloading.follow(files))]
            if settings.metrics_listen is not None:
                background.append(asyncio.create_task(sample(database, inventory, feed, calls)))
            if settings.expiry:
                expiry.start()
            log.info("serving on %s", address)
            await stop.wait()
            log.info("draining for up to %.1f s", settings.shutdown_grace)
            for task in background:
                task.cancel()
            await health.stop()
            inventory.stop_waiting()
            await boundary.drain(server, calls, settings.shutdown_grace)
            await feed.close()
    finally:
        stopping.on_signal(lambda: None)  # it is under way
        await asyncio.to_thread(expiry.stop)
        await cache.close()
        await database.close()
        beat.cancel()
    log.info("stopped")


async def _beat(stop: asyncio.Event) -> None:
    """Tell the supervisor of a worker that it is well, also while it drains; stop it when that process was killed."""
    pulse = int(os.environ.get(PULSE, "-1"))
    while pulse >= 0:
        try:
            os.write(pulse, b".")
        except BlockingIOError:
            pass  # nobody has read for hours
        except BrokenPipeError:
            stop.set()
            return
        await asyncio.sleep(_BEAT_SECONDS)


def operations(
    database: Database, database_url: str, cache: ReservationCache, settings: Settings
) -> tuple[Inventory, Feed, list[object]]:
    """Put together what answers: the operations, the feed, and the servicers before them."""
    inventory = Inventory(StockRepository(database), HoldRepository(database), cache, settings)
    feed = Feed(
        FeedRepository(database),
        lambda: Alarm(database_url, settings),
        interval=settings.watch_interval,
        queue_size=settings.watch_queue_size,
        came_back=inventory.stir,
    )
    servicers = [
        InventoryServicer(inventory, settings),
        OrdersServicer(inventory, settings),
        FeedServicer(feed),
        QueriesServicer(Queries(ReadingRepository(database))),
    ]
    return inventory, feed, servicers


@contextlib.asynccontextmanager
async def _listening(
    settings: Settings, certificates: Certificates | None, health: Health
) -> AsyncIterator[tuple[grpc.aio.Server, str]]:
    """Bind every address before anything is started, and give the main one; stop what is left at the end."""
    server = build(settings)
    offer_health(server, health)
    reflection.offer(server, (boundary.SERVICE, HEALTH_SERVICE))
    async with contextlib.AsyncExitStack() as stack:
        for each in _addresses(settings):
            stack.enter_context(claimed(each, shared=settings.share_address))
        address = bind(server, settings.listen, None if certificates is None else certificates.credentials())
        stack.push_async_callback(server.stop, None)
        if settings.health_listen is not None:
            probes = grpc.aio.server(options=[("grpc.so_reuseport", int(settings.share_address))])
            offer_health(probes, health)
            log.info("health alone on %s", bind(probes, settings.health_listen))
            stack.push_async_callback(probes.stop, None)
            await probes.start()
        yield server, address

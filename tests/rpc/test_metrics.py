"""Metrics of a real server over HTTP: what was called is what is counted, whatever the number of processes."""

from __future__ import annotations

import gzip
import re
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from tests.fixtures.entries import Entries
from tests.fixtures.scraping import Metered, Scraped, fetched
from tests.fixtures.serving import Server
from tests.fixtures.shop import expire, fresh, held, locked, stocked, waiting
from tests.fixtures.waiting import eventually

from inventory_client import (
    DatabaseUnavailable,
    InsufficientStock,
    InvalidQuantity,
    ProductNotFound,
    ReserveItem,
)
from inventory_client.proto.inventory.v1 import inventory_pb2 as pb
from inventory_client.proto.inventory.v1.inventory_pb2_grpc import InventoryServiceStub
from inventory_server.metrics.endpoint import _takes_gzip

if TYPE_CHECKING:
    from tests.fixtures.serving import Connect, Serve

    from inventory_server.embedded import EmbeddedPostgres

# One client is enough to see what the server counts.
synchronous = pytest.mark.parametrize("connect", ["sync"], indirect=True)

HANDLED = "grpc_server_handled_total"


def listening(pid: int) -> set[int]:
    """Find the TCP ports that a process listens on, in Linux's /proc."""
    links = set()
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            links.add(str(each.readlink()))
    tables = [Path(f"/proc/{pid}/net/{table}").read_text() for table in ("tcp", "tcp6")]
    rows = [line.split() for table in tables for line in table.splitlines()[1:]]
    return {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in links}


@synchronous
def test_calls_are_counted_by_method_and_code_and_refusals_by_reason(
    database_url: str, redis_url: str, serve: Serve, connect: Connect
) -> None:
    metered = Metered(serve, database_url, redis_url)
    client = connect(metered.server)
    product_id = stocked(client, 5)
    for _ in range(5):
        client.get_stock(product_id)
    with pytest.raises(InsufficientStock):
        client.reserve_stock(product_id, "order", 6)
    with pytest.raises(InvalidQuantity):
        client.reserve_stock(product_id, "order", 0)
    for _ in range(2):
        with pytest.raises(ProductNotFound):
            client.get_stock(fresh())
    # A call is counted when its answer has been sent.
    eventually(lambda: metered.scrape().total(HANDLED) == 10)
    told = metered.scrape()
    assert told.total(HANDLED, grpc_method="InitializeStock", grpc_code="OK") == 1
    assert told.total(HANDLED, grpc_method="GetStock", grpc_code="OK", grpc_type="unary") == 5
    assert told.total(HANDLED, grpc_method="GetStock", grpc_code="NOT_FOUND") == 2
    assert told.total(HANDLED, grpc_method="ReserveStock", grpc_code="FAILED_PRECONDITION") == 1
    assert told.total(HANDLED, grpc_method="ReserveStock", grpc_code="INVALID_ARGUMENT") == 1
    assert told.total(HANDLED) == told.total("grpc_server_started_total") == 10
    assert told.total("grpc_server_handling_seconds_count", grpc_method="GetStock") == 7
    assert 0 < told.total("grpc_server_handling_seconds_sum", grpc_method="GetStock") < 10
    assert told.total("inventory_refusals_total", of="call") == 4
    for reason, times in {"INSUFFICIENT_STOCK": 1, "INVALID_QUANTITY": 1, "PRODUCT_NOT_FOUND": 2}.items():
        assert told.total("inventory_refusals_total", reason=reason, of="call") == times
    assert told.total("inventory_batch_size_count", operation="read_stock") == 7
    assert told.total("inventory_database_statement_duration_seconds_count", statement="stock") == 7
    assert told.total("inventory_build_info") == 1


@synchronous
def test_callers_who_ask_the_same_share_statements(database_url: str, serve: Serve, connect: Connect) -> None:
    metered = Metered(serve, database_url)
    client = connect(metered.server)
    product_id = stocked(client, 10)
    hold = client.reserve_stock(product_id, "order", 1)
    with ThreadPoolExecutor(32) as threads:
        stocks = list(threads.map(lambda _: client.get_stock(product_id), range(320)))
        holds = list(threads.map(lambda _: client.get_reservation(hold.reservation_id), range(320)))
    assert stocks == [stocks[0]] * 320
    assert holds == [hold] * 320
    for operation in ("read_stock", "read_reservation"):
        told = metered.scrape()
        assert told.total("inventory_batch_size_sum", operation=operation) == 320
        assert told.total("inventory_batch_size_count", operation=operation) < 320


@synchronous
def test_a_caller_who_leaves_and_a_deadline_that_passes_have_codes_of_their_own(
    database_url: str, serve: Serve, connect: Connect
) -> None:
    metered = Metered(serve, database_url, statement_timeout="5s", lock_timeout="5s")
    product_id = stocked(connect(metered.server), 10)
    with locked(database_url, product_id), grpc.insecure_channel(metered.server.address) as channel:
        stub = InventoryServiceStub(channel)
        request = pb.ReserveStockRequest(product_id=product_id, order_id="order", quantity=1)
        left = stub.ReserveStock.future(request)
        eventually(lambda: metered.scrape().total("inventory_requests_in_flight") == 1)
        left.cancel()
        eventually(lambda: metered.scrape().total(HANDLED, grpc_code="CANCELLED", grpc_method="ReserveStock") == 1)
        with pytest.raises(grpc.RpcError):
            stub.ReserveStock(request, timeout=0.2)
        eventually(
            lambda: metered.scrape().total(HANDLED, grpc_code="DEADLINE_EXCEEDED", grpc_method="ReserveStock") == 1
        )
    eventually(lambda: metered.scrape().total("inventory_requests_in_flight") == 0)


@synchronous
def test_items_of_bulk_calls_are_refused_by_reason_too(database_url: str, serve: Serve, connect: Connect) -> None:
    metered = Metered(serve, database_url)
    client = connect(metered.server)
    product_id = stocked(client, 1)
    client.batch_reserve_stock([ReserveItem(product_id, "order", quantity) for quantity in (1, 2, 3)])
    told = metered.scrape()
    assert told.total("inventory_refusals_total", reason="INSUFFICIENT_STOCK", of="item") == 2
    assert told.total(HANDLED, grpc_method="BatchReserveStock", grpc_code="OK") == 1


@synchronous
def test_queues_and_waits_show_while_a_row_is_stuck(database_url: str, serve: Serve, connect: Connect) -> None:
    metered = Metered(serve, database_url, statement_timeout="20s", lock_timeout="20s", pool_size=3)
    product_id = stocked(connect(metered.server), 100)
    with locked(database_url, product_id) as stranger, grpc.insecure_channel(metered.server.address) as channel:
        stub = InventoryServiceStub(channel)
        request = pb.ReserveStockRequest(product_id=product_id, order_id="order", quantity=1)
        calls = [stub.ReserveStock.future(request)]
        eventually(lambda: waiting(database_url) == 1)
        calls += [stub.ReserveStock.future(request) for _ in range(7)]
        eventually(lambda: metered.scrape().total("inventory_lane_depth", operation="reserve") == 7)
        told = metered.scrape()
        assert told.total("inventory_requests_in_flight") == 8
        assert told.total("inventory_database_pool", what="max") == 3
        stranger.rollback()
        for call in calls:
            call.result(timeout=20)
    told = metered.scrape()
    assert told.total("inventory_batch_size_bucket", operation="reserve", le="1.0") == 1
    assert told.total("inventory_batch_size_sum", operation="reserve") == 8
    eventually(lambda: metered.scrape().total("inventory_lane_depth") == 0)


@synchronous
def test_hits_and_misses_of_the_cache_are_told_apart(
    database_url: str, redis_url: str, serve: Serve, connect: Connect
) -> None:
    metered = Metered(serve, database_url, redis_url)
    client = connect(metered.server)
    hold, entries = held(client), Entries(redis_url)
    entries.of(hold)
    client.get_reservation(hold.reservation_id)
    client.release_reservation(hold.reservation_id)
    assert entries.gone(hold)
    client.get_reservation(hold.reservation_id)
    told = metered.scrape()
    assert told.total("inventory_cache_lookups_total", result="hit") == 1
    assert told.total("inventory_cache_lookups_total", result="miss") == 1
    assert told.total("inventory_cache_failures_total") == 0
    assert told.total("inventory_store_up", store="redis") == 1


@synchronous
def test_expiry_tells_how_late_it_is_whoever_runs_it(database_url: str, serve: Serve, connect: Connect) -> None:
    idle = Metered(serve, database_url, expiry=False)
    expire(database_url, held(connect(idle.server)).reservation_id)
    eventually(lambda: idle.scrape().total("inventory_expiry_lag_seconds") > 1)
    assert not idle.scrape().known("inventory_expiry_last_run_timestamp_seconds")
    busy = Metered(serve, database_url)
    eventually(lambda: busy.scrape().total("inventory_expired_holds_total", outcome="released") == 1)
    assert busy.scrape().known("inventory_expiry_last_run_timestamp_seconds")
    eventually(lambda: idle.scrape().total("inventory_expiry_lag_seconds") == 0)


@synchronous
def test_a_database_that_is_away_shows(private_postgres: EmbeddedPostgres, serve: Serve, connect: Connect) -> None:
    metered = Metered(serve, private_postgres.url, pool_timeout="300ms")
    client = connect(metered.server)
    eventually(lambda: metered.scrape().total("inventory_store_up", store="postgresql") == 1)
    private_postgres.stop()
    with pytest.raises(DatabaseUnavailable):
        client.get_stock("teapot")
    eventually(lambda: metered.scrape().total("inventory_store_up", store="postgresql") == 0)
    eventually(lambda: not metered.scrape().known("inventory_expiry_lag_seconds"))
    told = metered.scrape()
    assert told.total("inventory_database_failures_total", kind="unavailable") > 0
    assert told.total("inventory_refusals_total", reason="DATABASE_UNAVAILABLE", of="call") == 1
    assert told.total(HANDLED, grpc_code="UNAVAILABLE") == 1
    assert told.total("inventory_workers") == 1
    private_postgres.start()
    eventually(lambda: metered.scrape().total("inventory_store_up", store="postgresql") == 1)


@synchronous
def test_watchers_show(database_url: str, serve: Serve, connect: Connect) -> None:
    metered = Metered(serve, database_url)
    product_id = stocked(connect(metered.server), 1)
    with grpc.insecure_channel(metered.server.address) as channel:
        stream = InventoryServiceStub(channel).WatchStock(pb.WatchStockRequest(product_ids=[product_id]))
        eventually(lambda: metered.scrape().total("inventory_feed_watchers") == 1)
        assert metered.scrape().total("inventory_feed_lag_seconds") < 5
        stream.cancel()
        eventually(lambda: metered.scrape().total("inventory_feed_watchers") == 0)
    eventually(lambda: metered.scrape().total(HANDLED, grpc_method="WatchStock") == 1)
    told = metered.scrape()
    assert told.total(HANDLED, grpc_method="WatchStock", grpc_type="server_stream", grpc_code="CANCELLED") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@synchronous
def test_without_the_setting_there_are_none(database_url: str, serve: Serve, connect: Connect) -> None:
    server = serve(database_url)
    list(connect(server).list_stock())
    assert listening(server.process.pid) == {int(server.address.rpartition(":")[2])}
    metered = Metered(serve, database_url)
    assert len(listening(metered.server.process.pid)) == 2  # a test that can fail


def test_port_zero_takes_one_that_is_free_and_says_which(database_url: str, serve: Serve) -> None:
    server = serve(database_url, metrics_listen="127.0.0.1:0")
    found = re.search(r"metrics on http://(127\.0\.0\.1:\d+)/metrics", server.log)
    assert found is not None
    _, body = fetched(found[1], "/metrics", "GET", {})
    assert Scraped(body.decode()).total("inventory_build_info") == 1


def test_a_port_that_is_taken_ends_the_start_with_a_sentence(database_url: str, serve: Serve) -> None:
    first = Metered(serve, database_url)
    with pytest.raises(RuntimeError, match=rf"Cannot serve metrics on {first.metrics_address}: Address already in use"):
        serve(database_url, metrics_listen=first.metrics_address)


def test_an_address_that_makes_no_sense_is_told_with_its_setting(database_url: str, serve: Serve) -> None:
    for address in ("9464", "unix:/tmp/metrics"):
        with pytest.raises(RuntimeError, match=r"ended with status 2:\n.*INVENTORY_METRICS_LISTEN must be host:port"):
            serve(database_url, metrics_listen=address)


def test_a_host_that_makes_no_sense_ends_the_start_with_a_sentence(database_url: str, serve: Serve) -> None:
    with pytest.raises(RuntimeError, match=r"Cannot serve metrics on \.x:9464: that is no name of a host\.\n$"):
        serve(database_url, metrics_listen=".x:9464")


@pytest.mark.parametrize(
    ("accepted", "compressed"),
    [
        ("gzip", True),
        ("deflate, GZIP;q=0.5", True),
        ("br;q=1.0,gzip;q=1", True),
        ("gzip;q=0.001", True),
        ("gzip;q=0", False),
        ("gzip ; q = 0.000, identity", False),
        ("deflate", False),
        ("xgzip", False),
    ],
)
def test_what_wants_no_gzip_gets_none(*, accepted: str, compressed: bool) -> None:
    assert _takes_gzip(accepted) is compressed


def test_the_answer_to_head_has_no_body_whatever_its_path(database_url: str, serve: Serve) -> None:
    metered = Metered(serve, database_url)
    host, _, port = metered.metrics_address.partition(":")
    for path, status in (("/metrics", b"200"), ("/elsewhere", b"404")):
        with socket.create_connection((host, int(port)), 10) as connection:
            connection.sendall(f"HEAD {path} HTTP/1.1\r\n\r\n".encode())
            with connection.makefile("rb") as answer:
                head, _, body = answer.read().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 " + status)
        assert body == b""


def test_formats_are_negotiated(database_url: str, serve: Serve) -> None:
    metered = Metered(serve, database_url)
    answer, body = metered.get(Accept="application/openmetrics-text;version=1.0.0", Accept_Encoding="gzip")
    assert (answer.headers["Content-Type"] or "").startswith("application/openmetrics-text")
    assert gzip.decompress(body).endswith(b"# EOF\n")
    answer, body = metered.get()
    assert (answer.headers["Content-Type"] or "").startswith("text/plain; version=0.0.4")
    answer, nothing = metered.get(method="HEAD")
    assert (answer.status, nothing) == (200, b"")


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/", 404), ("POST", "/metrics", 405)])
def test_only_the_metrics_are_there(database_url: str, serve: Serve, method: str, path: str, status: int) -> None:
    metered = Metered(serve, database_url)
    answer, _ = metered.get(path, method=method)
    assert answer.status == status


def test_an_address_is_free_again_after_a_stop(database_url: str, serve: Serve, tmp_path: Path) -> None:
    first = Metered(serve, database_url)
    first.scrape()
    first.server.terminate()
    assert first.server.wait() == 0
    again = Server(database_url, "none://", tmp_path, metrics_listen=first.metrics_address)
    try:
        again.start()
    finally:
        again.stop()

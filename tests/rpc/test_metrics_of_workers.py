"""The metrics of several workers are one service's: summed, never going backwards, and told whatever else happens."""

from __future__ import annotations

import os
import random
import signal
import socket
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import grpc
import pytest
from tests.fixtures.processes import children, connected_apart
from tests.fixtures.scraping import Metered, Scraped
from tests.fixtures.serving import connected
from tests.fixtures.shop import locked, stocked, waiting
from tests.fixtures.waiting import at_once, eventually

from inventory_client import Stock
from inventory_client.proto.inventory.v1 import inventory_pb2 as pb
from inventory_client.proto.inventory.v1.inventory_pb2_grpc import InventoryServiceStub

if TYPE_CHECKING:
    from tests.fixtures.serving import Serve, Server

HANDLED = "grpc_server_handled_total"


def product_of(server: Server) -> str:
    with connected(server, attempts=12) as client:
        return stocked(client, 1000)


def read(server: Server, product_id: str, times: int) -> None:
    with connected_apart(server.address, attempts=12) as clients:
        answers = at_once([partial(client.get_stock, product_id) for client in clients for _ in range(times // 16)])
    assert all(isinstance(answer, Stock) for answer in answers)


def gone_back(before: Scraped, after: Scraped) -> dict[tuple[str, ...], tuple[float, float | None]]:
    then, now = before.counters(), after.counters()
    assert then
    return {name: (value, now.get(name)) for name, value in then.items() if now.get(name, -1.0) < value}


def knock(metered: Metered) -> socket.socket:
    host, _, port = metered.metrics_address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def test_two_workers_are_summed_and_nothing_goes_backwards_when_both_are_killed(
    database_url: str, serve: Serve
) -> None:
    metered = Metered(serve, database_url, workers=2)
    server = metered.server
    product_id = product_of(server)
    eventually(lambda: metered.scrape().total("inventory_workers") == 2)
    read(server, product_id, 80)
    before = metered.scrape()
    assert before.total(HANDLED, grpc_method="GetStock", grpc_code="OK") == 80
    assert before.total("grpc_server_handling_seconds_count", grpc_method="GetStock") == 80
    for worker in children(server.process.pid):
        os.kill(worker, signal.SIGKILL)
    seen = [before]

    def both_are_new() -> bool:
        seen.append(metered.scrape())
        assert gone_back(seen[-2], seen[-1]) == {}
        return seen[-1].total("inventory_worker_deaths_total") == 2 and seen[-1].total("inventory_workers") == 2

    eventually(both_are_new, within=20)
    assert min(told.total("inventory_workers") for told in seen) == 0
    assert seen[-1].total(HANDLED, grpc_method="GetStock", grpc_code="OK") == 80
    read(server, product_id, 32)
    eventually(lambda: metered.scrape().total(HANDLED, grpc_method="GetStock", grpc_code="OK") == 112)


def test_a_stopped_process_is_not_asked(database_url: str, serve: Serve) -> None:
    metered = Metered(serve, database_url, workers=2)
    eventually(lambda: metered.scrape().total("inventory_workers") == 2)
    stuck = children(metered.server.process.pid)
    for worker in stuck:
        os.kill(worker, signal.SIGSTOP)
    try:
        began = time.monotonic()
        assert metered.scrape().total("inventory_workers") == 2
        assert time.monotonic() - began < 2
    finally:
        for worker in stuck:
            os.kill(worker, signal.SIGCONT)


def garbage(length: int) -> bytes:
    return random.Random(length).randbytes(length)  # noqa: S311 — not a secret


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        (b"GET /metrics HTTP/1.1\r\n" + b"X-Long: " + b"x" * 1_000_000 + b"\r\n\r\n", b"HTTP/1.1 431 "),
        (b"GET /" + b"x" * 6_000 + b" HTTP/1.1\r\n\r\n", b"HTTP/1.1 404 "),
        (b"\r\n\r\n", b"HTTP/1.1 400 "),
        (b"GET /metrics\r\n\r\n", b"HTTP/1.1 400 "),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"HTTP/1.1 400 "),
        (b"GET /metrics HTTP/1.1\r\nAccept: ;;,=,\xff;version=\r\nAccept-Encoding:\r\n:::\r\n\r\n", b"HTTP/1.1 200 "),
        (b"GET /metrics HTTP/1.1\r\nAccept: application/openmetrics-text;version=x.y\r\n\r\n", b"HTTP/1.1 200 "),
        (b"\x16\x03\x01" + garbage(4_000) + b"\r\n\r\n", b"HTTP/1.1 400 "),
        (garbage(500_000), None),
    ],
    ids=["long header", "long path", "empty", "HTTP/0.9", "HTTP/2", "odd headers", "odd version", "TLS", "garbage"],
)
def test_whatever_is_sent_is_refused_and_the_next_scrape_answered(
    metered: Metered, sent: bytes, answered: bytes | None
) -> None:
    with knock(metered) as connection:
        try:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            got = connection.recv(64)
        except OSError:  # it hung up on what it had not read
            got = None
    if answered is not None and got is not None:
        assert got.startswith(answered)
    assert metered.scrape().total("inventory_workers") == 1
    assert "Traceback" not in metered.server.log


def test_those_who_dawdle_keep_nobody_from_scraping_or_calling(metered: Metered) -> None:
    with ExitStack() as stack, connected(metered.server) as client:
        for number in range(200):
            connection = stack.enter_context(knock(metered))
            if number % 2:
                connection.sendall(b"GET /metrics HTT")
        began = time.monotonic()
        for _ in range(20):
            list(client.list_stock())
        assert metered.scrape().total("inventory_workers") == 1
        assert time.monotonic() - began < 2


def test_who_reads_nothing_is_cut_off(metered: Metered) -> None:
    with knock(metered) as connection:
        began = time.monotonic()
        assert connection.recv(1) == b""
        assert 4 < time.monotonic() - began < 8


def test_a_server_that_drains_still_tells_and_those_who_dawdle_do_not_hold_up_its_end(
    database_url: str, metered: Metered
) -> None:
    request = pb.ReserveStockRequest(order_id="order", quantity=1)
    with connected(metered.server) as client, ExitStack() as stack:
        request.product_id = stocked(client, 10)
        channel = stack.enter_context(grpc.insecure_channel(metered.server.address))
        with locked(database_url, request.product_id) as stranger:
            hanging = InventoryServiceStub(channel).ReserveStock.future(request)
            eventually(lambda: waiting(database_url) == 1)
            metered.server.terminate()
            eventually(lambda: metered.server.health() != "SERVING")
            told = metered.scrape()
            assert told.total("grpc_server_started_total", grpc_method="ReserveStock") == 1
            assert told.total(HANDLED, grpc_method="ReserveStock") == 0
            for _ in range(20):
                stack.enter_context(knock(metered)).sendall(b"GET /metrics HTTP/1.1\r\n")
            stranger.rollback()
        assert hanging.result(timeout=10).reservation.quantity == 1
        # Sooner than a dawdler is cut off.
        assert metered.server.process.wait(4) == 0


@pytest.fixture
def metered(database_url: str, serve: Serve) -> Metered:
    made = Metered(serve, database_url)
    eventually(lambda: made.scrape().total("inventory_workers") == 1)
    return made

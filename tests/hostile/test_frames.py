"""Peers that speak no gRPC, or speak it wrongly or too much: they are hung up on or ignored, and all others served."""

from __future__ import annotations

import os
import resource
import socket
import struct
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from tests.bench import cpu
from tests.bench.http2 import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
)
from tests.fixtures.shop import balance, stocked
from tests.fixtures.waiting import eventually

from inventory_client import InventoryClient
from inventory_client.proto.inventory.v1 import inventory_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fixtures.serving import Serve, Server

# How long a server may keep silent before we take it that it ignores what it got.
SILENCE_SECONDS = 0.3
READ_SECONDS_MAX = 10.0
# What a server may need to answer somebody else meanwhile.
SERVED_SECONDS_MAX = 5.0
LONG = "INVENTORY_FUZZ_EXAMPLES" in os.environ
CONNECTIONS = 10_000 if LONG else 1000
STREAMS = 100_000 if LONG else 10_000
GROWTH_MAX = 96 * 2**20
# What many connections may cost while they are open.
CONNECTION_BYTES_MAX = 100_000
CANCEL = struct.pack(">I", 8)
HELLO = PREFACE + frame(SETTINGS, 0, 0, b"")


def header(name: str, value: str) -> bytes:
    """Write a header in HPACK's plainest form: never indexed, no compression."""
    return b"\0" + _length(len(name)) + name.encode() + _length(len(value)) + value.encode()


def _length(number: int) -> bytes:
    if number < 127:
        return bytes([number])
    rest, more = number - 127, b"\x7f"
    while rest >= 128:
        more, rest = more + bytes([rest & 127 | 128]), rest >> 7
    return more + bytes([rest])


REQUEST = b"".join(
    header(name, value)
    for name, value in {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/inventory.v1.InventoryService/GetStock",
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
    }.items()
)
MESSAGE = pb.GetStockRequest(product_id="nothing").SerializeToString()


def asked(stream: int, headers: bytes = REQUEST, *, end: int = 0) -> bytes:
    return frame(HEADERS, END_HEADERS | end, stream, headers)


def told(body: bytes, stream: int = 1) -> bytes:
    return HELLO + asked(stream) + frame(DATA, END_STREAM, stream, body)


def prefixed(length: int, compressed: int = 0) -> bytes:
    return struct.pack(">BI", compressed, length) + MESSAGE


NONSENSE = {
    "HTTP/1": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 500,
    "noise": bytes(range(256)) * 64,
    "half a preface": PREFACE[:10],
    "a preface twice": PREFACE + PREFACE,
    "no settings": PREFACE + asked(1, end=END_STREAM),
    "a frame too long": HELLO + b"\xff\xff\xff" + bytes([DATA, 0]) + b"\0\0\0\x01" + b"x" * 1000,
    "half a frame": HELLO + asked(1)[:12],
    "data of no stream": HELLO + frame(DATA, 0, 0, b"x"),
    "data of a stream that is not open": HELLO + frame(DATA, 0, 7, b"x"),
    "a stream of the server": HELLO + asked(2, end=END_STREAM),
    "streams in the wrong order": HELLO + asked(5, end=END_STREAM) + asked(3, end=END_STREAM),
    "one stream twice": HELLO + asked(1, end=END_STREAM) * 2,
    "a window of nothing more": HELLO + frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\0"),
    "a window too large": HELLO + frame(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff") * 3,
    "settings of five bytes": HELLO + frame(SETTINGS, 0, 0, b"12345"),
    "settings that make no sense": HELLO + frame(SETTINGS, 0, 0, b"\0\x04\xff\xff\xff\xff" + b"\0\x05\0\0\0\x01"),
    "a ping of seven bytes": HELLO + frame(PING, 0, 0, b"1234567"),
    "a continuation of nothing": HELLO + frame(CONTINUATION, END_HEADERS, 1, REQUEST),
    "an unknown frame": HELLO + frame(0xBE, 0xFF, 1, b"x" * 100),
    "headers that are no HPACK": HELLO + asked(1, b"\xff" * 200, end=END_STREAM),
    "no path": HELLO + asked(1, header(":method", "POST"), end=END_STREAM),
    "a path twice": HELLO + asked(1, REQUEST + header(":path", "/x"), end=END_STREAM),
    "headers too many": HELLO + asked(1, REQUEST + header("x", "y" * 1000) * 15, end=END_STREAM),
    "no message": HELLO + asked(1, end=END_STREAM),
    "a message longer than it says": told(prefixed(len(MESSAGE) - 3)),
    "a message shorter than it says": told(prefixed(len(MESSAGE) + 3)),
    "a message of 4 GB": told(prefixed(2**32 - 1)),
    "two messages": told(prefixed(len(MESSAGE)) * 2),
    "a message compressed by nothing known": told(prefixed(len(MESSAGE), compressed=1)),
    "half a prefix": told(b"\0\0"),
    "a timeout that is no number": HELLO + asked(1, REQUEST + header("grpc-timeout", "soon"), end=END_STREAM),
    "another content": HELLO + asked(1, REQUEST.replace(b"application/grpc", b"application/json"), end=END_STREAM),
}
FLOODS = {
    "continuations": HELLO + frame(HEADERS, 0, 1, REQUEST) + frame(CONTINUATION, 0, 1, header("x", "y" * 900)) * 4000,
    "resets": HELLO
    + b"".join(asked(n, end=END_STREAM) + frame(RST_STREAM, 0, n, CANCEL) for n in range(1, 2 * STREAMS, 2)),
    "streams never ended": HELLO + b"".join(asked(n) for n in range(1, 2 * STREAMS, 2)),
    "settings": HELLO + frame(SETTINGS, 0, 0, b"\0\x04\0\0\xff\xff") * STREAMS,
    "pings": HELLO + frame(PING, 0, 0, b"12345678") * STREAMS,
    "empty data": HELLO + asked(1) + frame(DATA, 0, 1, b"") * STREAMS,
    "windows": HELLO + asked(1) + frame(WINDOW_UPDATE, 0, 1, b"\0\0\0\x01") * STREAMS,
}


@pytest.fixture
def crowd() -> int:
    """How many connections both ends may open here, of those wanted."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # the server inherits it
    return CONNECTIONS if most == resource.RLIM_INFINITY else min(CONNECTIONS, most - 300)


@contextmanager
def connected(server: Server) -> Iterator[socket.socket]:
    host, _, port = server.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=READ_SECONDS_MAX) as peer:
        yield peer


def send(server: Server, text: bytes) -> None:
    """Send it, and read until the server hangs up or keeps silent."""
    with connected(server) as peer:
        try:
            peer.sendall(text)
            peer.settimeout(SILENCE_SECONDS)
            while peer.recv(65536):
                pass
        except (TimeoutError, ConnectionError):
            pass


def memory(server: Server) -> int:
    return cpu.memory(server.process.pid) or pytest.skip("memory is read from /proc")


def handles(server: Server) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def served(server: Server) -> None:
    """A stranger on a new connection is served, and no call of the past left a trace."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(server.address, options) as channel, InventoryClient(channel=channel) as client:
        product_id = stocked(client, 3)
        client.reserve_stock(product_id, "order", 1, timeout=SERVED_SECONDS_MAX)
        assert balance(client, product_id) == (2, 1)
    assert "Traceback" not in server.log, server.log[server.log.index("Traceback") - 300 :][:4000]


@pytest.mark.parametrize("name", NONSENSE)
def test_a_peer_that_talks_nonsense_harms_nobody(server: Server, name: str) -> None:
    send(server, NONSENSE[name])
    served(server)


def test_the_frames_of_these_tests_would_be_understood(server: Server) -> None:
    with connected(server) as peer:
        peer.sendall(told(prefixed(len(MESSAGE))))
        got = b""
        while b"grpc-status" not in got:
            received = peer.recv(65536)
            assert received, got
            got += received
    assert b"PRODUCT_NOT_FOUND" in got or b"nothing" in got


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_costs_no_memory_that_lasts(server: Server, name: str) -> None:
    served(server)
    before = memory(server)
    for _ in range(2):
        send(server, FLOODS[name])
        served(server)
    assert memory(server) - before < GROWTH_MAX


def test_a_crowd_of_silent_connections_leaves_room_for_others(
    database_url: str, redis_url: str, serve: Serve, crowd: int
) -> None:
    server = serve(database_url, redis_url)
    served(server)
    open_before, before = handles(server), memory(server)
    with ExitStack() as stack:
        peers = [stack.enter_context(connected(server)) for _ in range(crowd)]
        for peer in peers[::2]:
            peer.sendall(HELLO)
        eventually(
            lambda: handles(server) > open_before + crowd - 20,
            otherwise=lambda: f"{handles(server) - open_before} connections",
        )
        served(server)
        assert memory(server) - before < crowd * CONNECTION_BYTES_MAX
    eventually(lambda: handles(server) < open_before + 50, otherwise=lambda: f"{handles(server) - open_before} left")
    served(server)


def test_a_crowd_of_streams_that_are_dropped_leaves_nothing_behind(
    database_url: str, redis_url: str, serve: Serve
) -> None:
    server = serve(database_url, redis_url)
    served(server)
    before = memory(server)
    with grpc.insecure_channel(server.address) as channel:
        watch: grpc.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(
            "/inventory.v1.InventoryService/WatchStock"
        )
        for _ in range(STREAMS // 500):
            streams = [watch(b"") for _ in range(500)]
            for stream in streams[::50]:
                stream.initial_metadata()  # it has begun
            for stream in streams:
                stream.cancel()
    served(server)
    assert memory(server) - before < GROWTH_MAX


def test_a_caller_who_reads_nothing_is_not_remembered_without_bound(
    database_url: str, redis_url: str, serve: Serve
) -> None:
    server = serve(database_url, redis_url, max_concurrent_streams=100)
    with InventoryClient(server.address) as client:
        for number in range(1000):
            client.initialize_stock(f"{number:04}" + "x" * 200, 1)
    before = memory(server)
    body = pb.ListStockRequest(page_size=1000).SerializeToString()
    list_stock = REQUEST.replace(
        header(":path", "/inventory.v1.InventoryService/GetStock"),
        header(":path", "/inventory.v1.InventoryService/ListStock"),
    )
    with connected(server) as peer:
        # The caller grants the server no byte of any answer.
        peer.sendall(PREFACE + frame(SETTINGS, 0, 0, b"\0\x04\0\0\0\0"))
        for number in range(1, 2001, 2):
            ask = struct.pack(">BI", 0, len(body)) + body
            peer.sendall(asked(number, list_stock) + frame(DATA, END_STREAM, number, ask))
        served(server)
        assert memory(server) - before < GROWTH_MAX
    served(server)

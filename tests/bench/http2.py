"""A client's side of HTTP/2 with just what unary gRPC needs, cheap enough to load a server from Python.

grpc.aio as a client costs more than the server under test. Here a request is two frames made of prepared bytes, and of
an answer only the frame headers are read. This is no general client: it trusts the server and fails loudly otherwise.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Iterable

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 5, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
WINDOW_MAX = 2**31 - 1
# What a server grants at first, per stream and per connection; HTTP/2 says so.
WINDOW_FIRST = 65_535
FRAME_MAX = 16_384
# The first index after HPACK's static table.
DYNAMIC_INDEX_MIN = 62
UNKNOWN_STATUS = 2


class Caller(Protocol):
    """Who waits for the answer of one stream."""

    def answered(self, status: int, message: bytes) -> None:
        """Take the gRPC status and the reply's bytes; may call `Connection.send` at once."""


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload) << 8 | kind) + struct.pack(">BI", flags, stream) + payload


def grpc_status(block: bytes) -> int:
    """Find the status in a trailer block: no decoder is needed, since we forbid the server its dynamic table."""
    _, found, rest = block.partition(b"\x0bgrpc-status")
    if not found or rest[0] & 0x80:
        return UNKNOWN_STATUS
    return int(rest[1 : 1 + rest[0]])


class HeaderTable:
    """The HPACK table of our requests: a header is spelt out once and is one byte from then on, as real clients do."""

    def __init__(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self._common = tuple(headers)
        self._entries: list[tuple[bytes, bytes]] = []
        self._blocks: dict[bytes, bytes] = {}

    def block(self, path: bytes) -> bytes:
        """Encode the headers of a call of `path`. Every block made must be sent, in this order."""
        if path not in self._blocks:
            headers = (*self._common, (b":path", path))
            first = b"".join(map(self._encode, headers))
            # New entries moved the old ones.
            self._blocks = {
                known: b"".join(map(self._encode, (*self._common, (b":path", known)))) for known in self._blocks
            }
            self._blocks[path] = b"".join(map(self._encode, headers))
            return first
        return self._blocks[path]

    def _encode(self, header: tuple[bytes, bytes]) -> bytes:
        if header in self._entries:
            return bytes([0x80 | DYNAMIC_INDEX_MIN + len(self._entries) - 1 - self._entries.index(header)])
        self._entries.append(header)
        return b"\x40" + b"".join(bytes([len(text)]) + text for text in header)


class Connection(asyncio.Protocol):
    """One connection with any number of calls in flight. Frames are gathered and written once per read."""

    def __init__(self, authority: str, timeout_seconds: int = 10) -> None:
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._table = HeaderTable(
            (
                (b":method", b"POST"),
                (b":scheme", b"http"),
                (b":authority", authority.encode()),
                (b"te", b"trailers"),
                (b"content-type", b"application/grpc"),
                (b"user-agent", b"inventory-bench"),
                # The typed client sends a deadline with every call too, so servers shall pay for it.
                (b"grpc-timeout", b"%dS" % timeout_seconds),
            )
        )
        self._streams: dict[int, Caller] = {}
        self._replies: dict[int, bytes] = {}
        self._next_stream = 1
        self._window = WINDOW_FIRST
        self._received = 0
        self._waiting: deque[tuple[str, bytes, Caller]] = deque()
        self._rest = b""
        self._out: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        # HEADER_TABLE_SIZE 0, ENABLE_PUSH 0, INITIAL_WINDOW_SIZE as large as it goes
        settings = struct.pack(">HIHIHI", 1, 0, 2, 0, 4, WINDOW_MAX)
        grant = struct.pack(">I", WINDOW_MAX - WINDOW_FIRST)
        self._transport.write(PREFACE + frame(SETTINGS, 0, 0, settings) + frame(WINDOW_UPDATE, 0, 0, grant))

    def send(self, path: str, message: bytes, caller: Caller) -> None:
        """Call `path` with a message of at most 64 KiB; it leaves with the next `flush` that the server allows."""
        size = len(message) + 5
        if size > WINDOW_FIRST:
            raise ValueError(f"a message of {size} bytes is more than a fresh stream may take")
        if size > self._window or self._waiting:
            self._waiting.append((path, message, caller))
            return
        self._window -= size
        stream = self._next_stream
        self._next_stream += 2
        self._streams[stream] = caller
        self._out.append(frame(HEADERS, END_HEADERS, stream, self._table.block(path.encode())))
        body = b"\0" + struct.pack(">I", len(message)) + message
        for start in range(0, size, FRAME_MAX):
            end = END_STREAM if start + FRAME_MAX >= size else 0
            self._out.append(frame(DATA, end, stream, body[start : start + FRAME_MAX]))

    def flush(self) -> None:
        if self._out:
            self._transport.write(b"".join(self._out))
            self._out.clear()

    def close(self) -> None:
        self.lost.cancel()
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        at, end = 0, len(data)
        while end - at >= 9:
            length = data[at] << 16 | data[at + 1] << 8 | data[at + 2]
            if end - at - 9 < length:
                break
            stream = int.from_bytes(data[at + 5 : at + 9], "big")
            payload = data[at + 9 : at + 9 + length]
            if stream and data[at + 3] != WINDOW_UPDATE:
                self._stream_frame(data[at + 3], data[at + 4], stream, payload)
            else:
                self._connection_frame(data[at + 3], data[at + 4], stream, payload)
            at += 9 + length
        self._rest = data[at:]
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_exception(exc or ConnectionError("the server closed the connection"))

    def _stream_frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == DATA:
            self._received += len(payload)
            self._replies[stream] = self._replies.get(stream, b"") + payload
            if self._received > WINDOW_MAX // 2:
                self._out.append(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", self._received)))
                self._received = 0
        elif kind == HEADERS and flags & END_STREAM:
            # a unary reply's DATA holds one message behind five bytes of prefix
            self._streams.pop(stream).answered(grpc_status(payload), self._replies.pop(stream, b"")[5:])
        elif kind == RST_STREAM:
            self._replies.pop(stream, None)
            if caller := self._streams.pop(stream, None):
                caller.answered(UNKNOWN_STATUS, b"")
        elif kind in (PUSH_PROMISE, CONTINUATION):
            raise ConnectionError(f"a frame of type {kind} is more HTTP/2 than is spoken here")

    def _connection_frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == WINDOW_UPDATE and not stream:
            self._window += int.from_bytes(payload, "big")
            waiting, self._waiting = self._waiting, deque()
            for path, message, caller in waiting:
                self.send(path, message, caller)
        elif kind in (SETTINGS, PING) and not flags & ACK:
            self._out.append(frame(kind, ACK, 0, payload if kind == PING else b""))
        elif kind == GOAWAY:
            raise ConnectionError(f"the server said goodbye: {payload[8:].decode(errors='replace')}")

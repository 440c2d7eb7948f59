"""`/metrics` over HTTP, on a thread with an event loop of its own: whoever asks, however often, holds up no request."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
import threading
from http import HTTPStatus
from typing import TYPE_CHECKING, Self

from inventory_server.metrics import MetricsError
from inventory_server.metrics.exposition import Exposition

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from inventory_server.metrics.page import Page

log = logging.getLogger(__name__)

# The whole of one exchange, from the connection to the last byte.
_EXCHANGE_SECONDS_MAX = 5.0
_HEAD_BYTES_MAX = 8192
# Beyond these the oldest is cut off: an honest scrape takes milliseconds, and who dawdles has no claim.
_CONNECTIONS_MAX = 32


class Endpoint:
    """Serves the sum of some pages while it is entered. The address is taken at once, or MetricsError is raised."""

    def __init__(self, address: str, pages: Sequence[Page]) -> None:
        self._socket = _bound(address)
        self._exposition = Exposition(pages)
        self._open: dict[asyncio.StreamWriter, None] = {}
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._main, name="metrics", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        host, port, *_ = self._socket.getsockname()
        log.info("metrics on http://%s/metrics", f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(RuntimeError):  # the thread has failed, and said why
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _main(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._exchange, sock=self._socket, limit=_HEAD_BYTES_MAX)
        await self._stop.wait()
        server.close()
        for writer in self._open:
            writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= _CONNECTIONS_MAX:
            oldest = next(iter(self._open))
            del self._open[oldest]
            oldest.transport.abort()
        self._open[writer] = None
        try:
            async with asyncio.timeout(_EXCHANGE_SECONDS_MAX):
                writer.write(self._answer(await _head(reader)))
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            log.debug("somebody asked for metrics and left: %r", error)
        except Exception:
            log.exception("the metrics cannot be told")
        finally:
            self._open.pop(writer, None)
            writer.transport.abort()

    def _answer(self, head: str | None) -> bytes:
        if head is None:
            return _response(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        first, *lines = head.split("\r\n")
        words = first.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return _response(HTTPStatus.BAD_REQUEST)
        method, target, _ = words
        if target.partition("?")[0] != "/metrics":
            return _response(HTTPStatus.NOT_FOUND, with_body=method != "HEAD")
        if method not in {"GET", "HEAD"}:
            return _response(HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": "GET, HEAD"})
        pairs = (line.partition(":") for line in lines)
        headers = {name.strip().lower(): " ".join(text.split()) for name, _, text in pairs}
        compressed = _takes_gzip(headers.get("accept-encoding", ""))
        body, content_type = self._exposition.render(headers.get("accept", ""), compressed=compressed)
        told = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
        if compressed:
            told["Content-Encoding"] = "gzip"
        return _response(HTTPStatus.OK, told, body, with_body=method == "GET")


async def _head(reader: asyncio.StreamReader) -> str | None:
    """Read up to the empty line that ends the headers; None where they are too long."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        return None
    return head.decode("latin-1").removesuffix("\r\n\r\n")


def _takes_gzip(accepted: str) -> bool:
    """Tell whether gzip is among the encodings, and not with the weight that says never."""
    return re.search(r"(^|[, ])gzip\b(?! ?; ?q ?= ?0(\.0*)? ?(,|$))", accepted.lower()) is not None


def _response(
    status: HTTPStatus, headers: dict[str, str] | None = None, body: bytes = b"", *, with_body: bool = True
) -> bytes:
    if not body:
        body = f"{status.phrase}. The metrics are at /metrics.\n".encode()
    told = {"Content-Type": "text/plain; charset=utf-8", **(headers or {})}
    told |= {"Content-Length": str(len(body)), "Connection": "close"}
    lines = [f"HTTP/1.1 {status.value} {status.phrase}", *(f"{name}: {text}" for name, text in told.items())]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (body if with_body else b"")


def _bound(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        with contextlib.ExitStack() as stack:
            family, *_, where = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
            bound = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(where)
            bound.listen(_CONNECTIONS_MAX)
            stack.pop_all()
            return bound
    except UnicodeError:
        raise MetricsError(f"Cannot serve metrics on {address}: that is no name of a host.") from None
    except OSError as error:
        raise MetricsError(f"Cannot serve metrics on {address}: {error.strerror or error}.") from None

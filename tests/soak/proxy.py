"""A TCP proxy that misbehaves on demand: what stands between two parts of the service while it is broken on purpose.

One `Link` forwards one local port to one address. Each direction passes, delays, throttles, stalls (the bytes stay in
the sender's buffers: a half-open connection) or swallows (the bytes vanish) until `heal()`, which cuts every connection
that was wronged, since a stream with a hole in it must not go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any, Self

    Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]

T = TypeVar("T")

CHUNK_BYTES = 16_384


@dataclass(frozen=True)
class Rule:
    """What happens to the bytes of one direction."""

    delay_seconds: float = 0.0
    bytes_per_second: float | None = None
    stalled: bool = False
    swallowed: bool = False

    @property
    def spoils(self) -> bool:
        """Whether a connection that this happened to cannot go on."""
        return self.stalled or self.swallowed


PASS = Rule()
STALL = Rule(stalled=True)
SWALLOW = Rule(swallowed=True)


class Link:
    """One port forwarded. `up` is from whoever connects to us, `down` are the answers. Call it from its loop."""

    def __init__(self, host: str, port: int) -> None:
        self._upstream = (host, port)
        self.port = 0
        self.connections = 0  # that anybody made so far
        self.up = PASS
        self.down = PASS
        self.refusing = False
        self.life_seconds: float | None = None
        self._healed = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        self.cut()

    def cut(self) -> None:
        """Reset every connection, without a goodbye."""
        for writer in list(self._writers):
            writer.transport.abort()

    def treat(self, up: Rule, down: Rule, *, refusing: bool, life_seconds: float | None) -> None:
        """Treat bytes and new connections like this until `heal`."""
        self._healed.clear()
        self.up, self.down, self.refusing, self.life_seconds = up, down, refusing, life_seconds

    def heal(self) -> None:
        if self.up.spoils or self.down.spoils:
            self.cut()
        self.up = self.down = PASS
        self.refusing = False
        self.life_seconds = None
        self._healed.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            if self.refusing:
                return
            onward, outward = await asyncio.open_connection(*self._upstream)
        except OSError:
            return
        else:
            self._writers.add(outward)
            try:
                await self._forward((reader, outward), (onward, writer))
            finally:
                self._forget(outward)
        finally:
            self._forget(writer)

    async def _forward(self, upward: Pair, downward: Pair) -> None:
        """Forward both ways until either side ends: a peer that is half gone is gone to both."""
        ways = [asyncio.create_task(self._pump(*upward, "up")), asyncio.create_task(self._pump(*downward, "down"))]
        try:
            await asyncio.wait(ways, timeout=self.life_seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    def _forget(self, writer: asyncio.StreamWriter) -> None:
        self._writers.discard(writer)
        writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str) -> None:
        with contextlib.suppress(OSError):
            while True:
                await self._flow(way)
                chunk = await reader.read(CHUNK_BYTES)
                if not chunk:
                    return
                rule = self._rule(way)
                pause = rule.delay_seconds + (len(chunk) / rule.bytes_per_second if rule.bytes_per_second else 0.0)
                if pause:
                    await asyncio.sleep(pause)
                await self._flow(way)
                if not self._rule(way).swallowed:
                    writer.write(chunk)
                    await writer.drain()

    async def _flow(self, way: str) -> None:
        if self._rule(way).stalled:
            await self._healed.wait()

    def _rule(self, way: str) -> Rule:
        return self.up if way == "up" else self.down


class Proxies:
    """Runs links in a thread of its own, so that faults may be injected by code that blocks."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxies", daemon=True)
        self._links: list[Link] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for link in self._links:
            self._run(link.close())
        self._run(_end_tasks())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def link(self, host: str, port: int) -> Link:
        """Open a link to an address."""
        link = Link(host, port)
        self._run(link.open())
        self._links.append(link)
        return link

    def change(
        self,
        link: Link,
        *,
        up: Rule = PASS,
        down: Rule = PASS,
        refusing: bool = False,
        life_seconds: float | None = None,
    ) -> None:
        """Have a link treat its bytes differently from now on, refuse new connections, or soon end them.

        Without arguments it is healed.
        """

        async def apply() -> None:
            link.heal()
            link.treat(up, down, refusing=refusing, life_seconds=life_seconds)

        self._run(apply())

    def cut(self, link: Link) -> None:
        """Reset the connections of a link."""

        async def apply() -> None:
            link.cut()

        self._run(apply())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)


async def _end_tasks() -> None:
    """Let the connections end that were cut, so that the loop closes without a complaint."""
    ours = asyncio.current_task()
    others = [task for task in asyncio.all_tasks() if task is not ours]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)

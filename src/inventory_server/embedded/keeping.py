"""Embedded servers that are started again when they end by themselves."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from inventory_server.embedded.process import EmbeddedError, LastingThread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inventory_server.embedded.server import EmbeddedServer

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
# One that ends sooner than this waits longer and longer before it is started again.
_STEADY_SECONDS = 10.0
_PAUSE_SECONDS = 0.5
_PAUSE_SECONDS_MAX = 10.0


@contextmanager
def kept(server: EmbeddedServer) -> Iterator[str]:
    """Give the URL of a server that runs for as long as the block lasts, and is started again whenever it ends.

    A thread of its own does that, since a start takes seconds. It lasts as long as the block, so what it started ends
    with this process, too, and it alone uses the server meanwhile.
    """
    stop = threading.Event()
    with server:
        keeper = LastingThread(target=_keep, args=(server, stop), name=f"keeper of {server.name}", daemon=True)
        keeper.start()
        try:
            yield server.url
        finally:
            stop.set()
            keeper.join()


def _keep(server: EmbeddedServer, stop: threading.Event) -> None:
    pause, began = 0.0, time.monotonic()
    while not stop.wait(_POLL_SECONDS):
        if server.pid is None:
            pause = 0.0 if time.monotonic() - began >= _STEADY_SECONDS else _longer(pause)
            told = "the embedded %s ended with %s and is started again; what it said is in %s"
            log.error(told, server.name, server.exit_status, server.log_before)
            _bring_back(server, stop, pause)
            began = time.monotonic()


def _bring_back(server: EmbeddedServer, stop: threading.Event, pause: float) -> None:
    while not stop.wait(pause):
        try:
            server.start()
        except EmbeddedError as error:
            pause = _longer(pause)
            log.error("%s It is tried again in %.1f s.", error, pause)  # noqa: TRY400 — no bug
        else:
            log.info("the embedded %s is back", server.name)
            return


def _longer(pause: float) -> float:
    return min(max(2 * pause, _PAUSE_SECONDS), _PAUSE_SECONDS_MAX)

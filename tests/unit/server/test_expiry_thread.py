"""The thread of the expiry worker, apart from what the worker does."""

from __future__ import annotations

import asyncio

import pytest
from tests.fixtures.waiting import eventually

from inventory_server.expiry import ExpiryThread
from inventory_server.settings import Settings

NOBODY = "postgresql://inventory@127.0.0.1:1/inventory"


def test_a_loop_that_cannot_be_had_is_told_to_whoever_starts_the_thread() -> None:
    def new_event_loop() -> asyncio.AbstractEventLoop:
        raise OSError("too many open files")

    thread = ExpiryThread(NOBODY, "none://", Settings(), new_event_loop)
    with pytest.raises(OSError, match="too many open files"):
        thread.start()
    thread.stop()


def test_it_stops_at_once_however_soon_it_is_told_to_and_as_often() -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    def new_event_loop() -> asyncio.AbstractEventLoop:
        loops.append(asyncio.new_event_loop())
        return loops[-1]

    thread = ExpiryThread(NOBODY, "none://", Settings(), new_event_loop)
    thread.stop()
    thread.start()
    thread.stop()
    thread.stop()
    eventually(lambda: [loop.is_closed() for loop in loops] == [True])

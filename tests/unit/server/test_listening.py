"""A caller that hangs: hung up on, however long its connection stays."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from inventory_server.rpc import listening
from inventory_server.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest

SECONDS_MAX = 30.0
CALLER = """
import sys, grpc
with grpc.insecure_channel(sys.argv[1]) as channel:
    for _ in channel.unary_stream("/test.Telling/Tell")(b"", wait_for_ready=True):
        pass
"""


def test_a_caller_that_hangs_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "_PING_SECONDS", 1.0)
    monkeypatch.setattr(listening, "_ANSWER_SECONDS_MAX", 1.0)
    asyncio.run(_hung_up_on())


async def _hung_up_on() -> None:
    told, over = asyncio.Event(), asyncio.Event()

    async def tell(_: bytes, __: object) -> AsyncIterator[bytes]:
        try:
            yield b""
            told.set()
            await asyncio.Event().wait()
        finally:
            over.set()

    server = listening.build(Settings())
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {"Tell": grpc.unary_stream_rpc_method_handler(tell)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Telling", handlers),))
    address = listening.bind(server, "127.0.0.1:0")
    await server.start()
    caller = await asyncio.create_subprocess_exec(sys.executable, "-c", CALLER, address)
    try:
        async with asyncio.timeout(SECONDS_MAX):
            await told.wait()
            caller.send_signal(signal.SIGSTOP)
            await over.wait()
    finally:
        caller.kill()
        await caller.wait()
        await server.stop(None)

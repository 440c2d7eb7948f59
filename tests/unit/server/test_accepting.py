"""Calls that come together: let in at once, answered each, and none forgotten as the server stops."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from inventory_server.rpc import accepting

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    import pytest

    Call = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]

SECONDS_MAX = 20.0


def serve(
    handle: Callable[[bytes, object], Awaitable[bytes]], use: Callable[[grpc.aio.Server, Call], Awaitable[None]]
) -> None:
    async def scene() -> None:
        server = accepting.server([])
        handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            "Answer": grpc.unary_unary_rpc_method_handler(handle)
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Answering", handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with asyncio.timeout(SECONDS_MAX), grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            try:
                await use(server, channel.unary_unary("/test.Answering/Answer"))
            finally:
                await server.stop(None)

    asyncio.run(scene())


async def echo(body: bytes, _: object) -> bytes:
    return body


def asked() -> int:
    return sum(getattr(task.get_coro(), "__name__", "") == "_request_call" for task in asyncio.all_tasks())


def test_as_many_calls_as_may_come_at_once_are_asked_for() -> None:
    async def use(_: grpc.aio.Server, call: Call) -> None:
        await call(b"")
        assert asked() == accepting.CALLS_AT_ONCE

    serve(echo, use)


def test_calls_beyond_those_asked_for_are_let_in_while_none_has_ended() -> None:
    many = 3 * accepting.CALLS_AT_ONCE
    all_in = asyncio.Barrier(many)

    async def meet(body: bytes, _: object) -> bytes:
        await all_in.wait()
        return body

    async def use(_: grpc.aio.Server, call: Call) -> None:
        bodies = [str(number).encode() for number in range(many)]
        assert await asyncio.gather(*map(call, bodies)) == bodies

    serve(meet, use)


def test_calls_that_have_not_begun_end_at_once_when_the_server_stops_with_a_grace() -> None:
    begun, over = asyncio.Semaphore(0), asyncio.Event()
    handled = 0

    async def wait(body: bytes, _: object) -> bytes:
        nonlocal handled
        handled += 1
        begun.release()
        await over.wait()
        return body

    async def use(server: grpc.aio.Server, call: Call) -> None:
        calls = [asyncio.ensure_future(call(b"")) for _ in range(10 * accepting.CALLS_AT_ONCE)]
        await begun.acquire()
        stopping = asyncio.create_task(server.stop(2 * SECONDS_MAX))
        await eventually_done(calls, lambda: len(calls) - handled)
        over.set()
        await stopping
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert sum(answer == b"" for answer in answers) == handled < len(calls)

    serve(wait, use)


async def eventually_done(calls: Sequence[asyncio.Future[bytes]], expected: Callable[[], int]) -> None:
    async with asyncio.timeout(SECONDS_MAX / 2):
        while sum(call.done() for call in calls) != expected():
            await asyncio.wait([call for call in calls if not call.done()], return_when=asyncio.FIRST_COMPLETED)


def test_every_call_ends_when_the_server_stops_amid_them(caplog: pytest.LogCaptureFixture) -> None:
    begun = asyncio.Event()

    async def hang(body: bytes, _: object) -> bytes:
        begun.set()
        await asyncio.Event().wait()
        return body

    async def use(server: grpc.aio.Server, call: Call) -> None:
        calls = [call(b"") for _ in range(10 * accepting.CALLS_AT_ONCE)]
        await begun.wait()
        await server.stop(None)
        codes = {await each.code() for each in calls}
        assert codes <= {grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE}
        assert asked() == 0

    serve(hang, use)
    gc.collect()
    assert "never retrieved" not in caplog.text

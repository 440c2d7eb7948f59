"""A gRPC server that lets several calls in at once."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined]

if TYPE_CHECKING:
    from collections.abc import Sequence

# Beyond this nothing was gained with 128 calls in flight; 8 were a tenth behind.
CALLS_AT_ONCE = 32


def server(options: Sequence[tuple[str, Any]]) -> grpc.aio.Server:
    """Make a server as grpc.aio.server does."""
    usual = cygrpc.AioServer
    cygrpc.AioServer = _EagerServer
    try:
        return grpc.aio.server(options=options)
    finally:
        cygrpc.AioServer = usual


class _EagerServer(cygrpc.AioServer):  # type: ignore[misc]
    """Asks gRPC for many calls ahead, where grpc.aio asks for the next one when it has taken the last.

    That is a way through a thread and some rounds of the event loop for each call, one after the other: a server with
    a hundred callers sat waiting for them a third of its time (grpc/grpc#43436, grpc/grpc#43461). What is replaced is
    private, and a grpcio that has it no longer serves as it does without this.
    """

    def _make_request_call_future(self, *method: bytes | None) -> asyncio.Future[Any]:
        if method != (None,):
            return super()._make_request_call_future(*method)  # type: ignore[no-any-return]
        if not hasattr(self, "_arrived"):
            self._arrived: deque[asyncio.Task[Any]] = deque()
            self._asked = 0  # calls that were asked for and have not arrived
        loop = asyncio.get_running_loop()
        while self._asked + len(self._arrived) < CALLS_AT_ONCE:
            self._asked += 1
            loop.create_task(self._request_call()).add_done_callback(self._take)
        self._next: asyncio.Future[Any] = loop.create_future()
        self._hand_over()
        return self._next

    def _take(self, call: asyncio.Task[Any]) -> None:
        if call.cancelled():
            return
        call.exception()  # looked at, since all that are asked for fail when the server stops
        self._asked -= 1
        self._arrived.append(call)
        self._hand_over()
        if not self.is_running():
            self._arrived.clear()  # gRPC cancels what nobody keeps

    def _hand_over(self) -> None:
        if not self._arrived or self._next.done():
            return
        call = self._arrived.popleft()
        error = call.exception()
        if error is None:
            self._next.set_result(call.result())
        else:
            self._next.set_exception(error)

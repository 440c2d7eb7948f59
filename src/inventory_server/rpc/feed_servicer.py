"""The RPC that streams: parse, watch, render."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from inventory_server.domain import Position
from inventory_server.rpc.wire import feed as wire

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from inventory_client.proto.inventory.v1 import inventory_pb2 as pb
    from inventory_server.domain import FeedChange
    from inventory_server.feed import Feed


class FeedServicer:
    """A stream is ready when its method returns; nothing that happens from then on is missed."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    async def WatchStock(
        self,
        request: pb.WatchStockRequest,
        deadline: float | None,  # noqa: ARG002 — gRPC ends a stream in time
    ) -> AsyncGenerator[pb.WatchStockResponse]:
        watch = wire.parse_watch(request)
        return _rendered(await self._feed.watch(watch.product_ids, watch.after, again=watch.half_told), watch)


async def _rendered(
    changes: AsyncGenerator[FeedChange | Position], watch: wire.Watch
) -> AsyncGenerator[pb.WatchStockResponse]:
    async with aclosing(changes):
        async for change in changes:
            if isinstance(change, Position):
                yield wire.render_mark(change)
            else:
                for answer in wire.render_change(change, watch):
                    yield answer

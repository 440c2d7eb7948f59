"""A channel for asyncio that is opened when an event loop first asks for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from inventory_client import _channel
from inventory_client._attempts import closed_here
from inventory_client.proto.inventory.v1.inventory_pb2_grpc import InventoryServiceStub

if TYPE_CHECKING:
    import grpc

    from inventory_client.config import ClientConfig
    from inventory_client.proto.inventory.v1.inventory_pb2_grpc import InventoryServiceAsyncStub


class LazyChannel:
    """A channel of the event loop that first asks for its stub, or one that was given and is not closed.

    gRPC binds a channel to an event loop when it is made, which for a client that a module makes is too early. The
    certificates are read at once all the same: a path that is wrong shows where it was written.
    """

    def __init__(self, config: ClientConfig, channel: grpc.aio.Channel | None) -> None:
        self.closed = False
        self._config = config
        self._owned = channel is None
        self._channel = channel
        self._credentials = _channel.credentials(config) if channel is None else None
        self._stub: InventoryServiceAsyncStub | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def stub(self) -> InventoryServiceAsyncStub:
        """Give the stub; the first time, open the channel."""
        loop = asyncio.get_running_loop()
        if self._stub is None:
            self._stub = InventoryServiceStub(self._opened())
            self._loop = loop
        if self._loop is not loop:
            raise RuntimeError("an AsyncInventoryClient belongs to the event loop of its first call: make one per loop")
        return self._stub

    async def close(self) -> None:
        """Close what was opened here, for good. Safe to call before and twice."""
        self.closed = True
        if self._owned and self._channel is not None:
            await self._channel.close()

    def _opened(self) -> grpc.aio.Channel:
        if self.closed:
            raise closed_here()
        if self._channel is None:
            self._channel = _channel.open_aio_channel(self._config, self._credentials)
        return self._channel

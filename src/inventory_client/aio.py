"""The client for asyncio: `client.py` with await."""
# ruff: noqa: ASYNC109 - gRPC's own deadlines reach the server, asyncio.timeout would not

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

import grpc

from inventory_client import _channel
from inventory_client._aio_operations import AsyncOperations
from inventory_client._attempts import Attempts, being_cancelled, closed_here, on_closed_channel, refusals_told
from inventory_client._block import ABANDON_TIMEOUT_SECONDS, async_block, still_reserved
from inventory_client._budget import RetryBudget
from inventory_client._lazy import LazyChannel
from inventory_client._undo import async_undoing
from inventory_client._watching import Watching
from inventory_client.hold import AsyncHold
from inventory_client.models import new_request_id
from inventory_client.order_hold import AsyncOrderHold
from inventory_client.watch import AsyncStockWatch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from datetime import timedelta
    from typing import Self
    from uuid import UUID

    from inventory_client._calls import Call
    from inventory_client.config import ClientConfig
    from inventory_client.models import OrderLine, Reservation
    from inventory_client.proto.inventory.v1 import inventory_pb2 as pb
    from inventory_client.proto.inventory.v1.inventory_pb2_grpc import InventoryServiceAsyncStub
    from inventory_client.watch import AsyncStream

T = TypeVar("T")


class AsyncInventoryClient(AsyncOperations):
    """Calls the inventory service and returns plain values.

        async with AsyncInventoryClient("localhost:50051") as client:
            await client.reserve_stock("teapot", "order-1", 2)

    Every method raises an InventoryError, one class per reason. Every mutation carries a request id, made up unless
    given, so what is transient (UNAVAILABLE, OVERLOADED) is retried on its own without ever being done twice. `timeout`
    is in seconds and covers all attempts; without it the configuration decides, and then a table per operation.

    One client serves any number of tasks of one event loop, that of its first call, and may be made before that loop
    runs. It is not for use from other threads. Cancelling a task cancels the call it awaits, whose outcome is then
    unknown.
    A `channel` that is given is used as it is (target, TLS and channel options of the configuration do not matter) and
    not closed. `stub` is the raw gRPC stub on the same channel: without deadlines, retries, request ids and token.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        config: ClientConfig | None = None,
        channel: grpc.aio.Channel | None = None,
    ) -> None:
        self.config = _channel.settle(target, config)
        self._metadata = _channel.metadata(self.config)
        self._budget = RetryBudget()
        self._lazy = LazyChannel(self.config, channel)
        self._watches: WeakSet[AsyncStockWatch] = WeakSet()

    @property
    def stub(self) -> InventoryServiceAsyncStub:
        """The raw gRPC stub, of the event loop that asks for it or calls first."""
        return self._lazy.stub()

    async def close(self) -> None:
        """Close the channel: calls under way and later ones raise Cancelled, watches end. Safe to call twice.

        On a channel that was given, which its owner closes, calls under way end in peace.
        """
        self._lazy.closed = True
        for watch in list(self._watches):
            await watch.close()
        await self._lazy.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def watch_stock(
        self,
        product_ids: Iterable[str] = (),
        *,
        resume_token: str = "",
        low_stock: int | None = None,
        timeout: float | None = None,
    ) -> AsyncStockWatch:
        """Follow the changes of some products, or of all: from now on, or from after a `resume_token`.

        With `low_stock`, also each time a product's available quantity falls to that number or below. `timeout` is
        how long the feed may be down until its reader is told, 60 seconds by default.
        """
        watching = Watching(self.config, product_ids, resume_token, low_stock, timeout)
        watch = AsyncStockWatch(self._open_watch, watching)
        self._watches.add(watch)
        return watch

    @asynccontextmanager
    async def hold(
        self,
        product_id: str,
        order_id: str,
        quantity: int,
        *,
        ttl: timedelta | None = None,
        wait: timedelta | None = None,
        request_id: str | UUID | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[AsyncHold]:
        """Hold units while a block decides about them; an exception gives them back, unless they may be sold.

            async with client.hold("teapot", "order-1", 2) as hold:
                await charge(card)
                await hold.deduct()

        A block that ends without an exception leaves the hold as it is: deducted, released, or, if it did neither,
        reserved until its ttl, so that the payment may also be confirmed later and elsewhere by the reservation id.
        The release on an exception is best effort: if it fails that is logged, your exception goes on unchanged, and
        the hold ends by its ttl. Cancellation is an exception, too. `timeout` is for the reserve.

        With a `request_id` of yours the reserve may be a repetition, which answers what the first one did. Therefore
        the hold is read, too: one that is over raises ReservationAlreadyDeducted or ReservationAlreadyReleased here.
        Deduct and release have ids that derive from the hold's: a process that does the same work once more, as after
        a message that came twice, repeats them, and its `hold.deduct()` succeeds where the first one has just sold.

        A reserve that fails or is interrupted while nobody knows whether it took place is undone before its exception
        goes on, which may take four seconds more; but not under a `request_id` of yours: repeat it, or release what it
        holds.

        Once a deduct was attempted whose outcome is unknown (see `InventoryError.outcome_unknown`), an exception
        releases nothing: the customer may have paid, and the units may be sold. That is logged as a warning with the
        request id of the deduct, under which `hold.deduct()`, also after the block, or deduct_reservation repeats it.
        """
        used_id = str(request_id or new_request_id())
        reserve = partial(self.reserve_stock, product_id, order_id, quantity, ttl=ttl, request_id=used_id)

        async def again() -> list[Reservation]:
            return [await reserve(timeout=ABANDON_TIMEOUT_SECONDS)]

        async with async_undoing(self, again, used_id, made_up=not request_id):
            held = await reserve(wait=wait, timeout=timeout)
        if request_id:
            held = still_reserved(await self.get_reservation(held.reservation_id, timeout=timeout))
        async with async_block(AsyncHold(self, held)) as hold:
            yield hold

    @asynccontextmanager
    async def hold_order(
        self,
        order_id: str,
        lines: Iterable[OrderLine | tuple[str, int]],
        *,
        ttl: timedelta | None = None,
        wait: timedelta | None = None,
        request_id: str | UUID | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[AsyncOrderHold]:
        """Hold all lines of an order while a block decides about it: `hold` for carts, with the same rules.

        The block decides about the order as a whole, so it also ends holds that the order has from elsewhere.
        """
        used_id = str(request_id or new_request_id())
        reserve = partial(self.reserve_order, order_id, tuple(lines), ttl=ttl, request_id=used_id)
        again = partial(reserve, timeout=ABANDON_TIMEOUT_SECONDS)
        async with async_undoing(self, again, used_id, made_up=not request_id):
            held = await reserve(wait=wait, timeout=timeout)
        if request_id:
            held = tuple(
                [still_reserved(await self.get_reservation(each.reservation_id, timeout=timeout)) for each in held]
            )
        async with async_block(AsyncOrderHold(self, order_id, used_id, held)) as hold:
            yield hold

    async def _run(self, call: Call[T], timeout: float | None) -> T:
        attempts = Attempts(call, self.config, timeout, self._budget)
        while not self._lazy.closed:
            send: grpc.aio.UnaryUnaryMultiCallable[Any, Any] = getattr(self.stub, call.rpc)
            try:
                answer = await send(call.request, timeout=attempts.begin(), metadata=self._metadata)
            except grpc.RpcError as failure:
                pause = attempts.pause_after(failure)
            except grpc.aio.UsageError as refusal:
                if not on_closed_channel(refusal):
                    raise
                raise attempts.closed(sent=False) from refusal
            except asyncio.CancelledError:
                if being_cancelled():
                    raise
                raise attempts.closed() from None
            else:
                attempts.answered()
                return call.read(answer)
            await asyncio.sleep(pause)
        raise attempts.closed()

    def _open_watch(self, request: pb.WatchStockRequest) -> AsyncStream:
        if self._lazy.closed:
            raise closed_here()
        with refusals_told():
            return self.stub.WatchStock(request, metadata=self._metadata)

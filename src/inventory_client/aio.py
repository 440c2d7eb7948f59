"""The client for asyncio: `client.py` with await."""
# ruff: noqa: ASYNC109 - gRPC's own deadlines reach the server, asyncio.timeout would not

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from inventory_client import _calls, _channel
from inventory_client.errors import ReservationAlreadyDeducted, ReservationAlreadyReleased
from inventory_client.models import ReservationStatus
from inventory_client.proto.inventory.v1.inventory_pb2_grpc import InventoryServiceStub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import timedelta
    from typing import Self
    from uuid import UUID

    from inventory_client.config import ClientConfig
    from inventory_client.models import InitializeResult, Reservation, Stock

T = TypeVar("T")


class AsyncInventoryClient:
    """Calls the inventory service and returns plain values.

        async with AsyncInventoryClient("localhost:50051") as client:
            await client.reserve_stock("teapot", "order-1", 2)

    Every method raises an InventoryError, one class per reason. Every mutation carries a request id, made up unless
    given, so what is transient (UNAVAILABLE, OVERLOADED) is retried on its own without ever being done twice. `timeout`
    is in seconds and covers all attempts; without it the configuration decides, and then a table per operation.

    One client serves any number of tasks of one event loop: make it while that loop runs, and share it. It is not for
    use from other threads. Cancelling a task cancels the call it awaits, whose outcome is then unknown.
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
        self._owned = channel is None
        self._channel = _channel.open_aio_channel(self.config) if channel is None else channel
        self.stub = InventoryServiceStub(self._channel)

    async def close(self) -> None:
        """Close the channel, and with it the calls under way on it. Safe to call twice."""
        if self._owned:
            await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def initialize_stock(
        self, product_id: str, quantity: int, *, request_id: str | UUID | None = None, timeout: float | None = None
    ) -> InitializeResult:
        """Create the record of a product; one that exists comes back unchanged, with `created` false."""
        return await self._run(_calls.initialize_stock(product_id, quantity, request_id), timeout)

    async def get_stock(self, product_id: str, *, timeout: float | None = None) -> Stock:
        """Read the balances of a product."""
        return await self._run(_calls.get_stock(product_id), timeout)

    async def add_stock(
        self,
        product_id: str,
        quantity: int,
        *,
        reason: str = "",
        request_id: str | UUID | None = None,
        timeout: float | None = None,
    ) -> Stock:
        """Add units to the available quantity; the reason is for the ledger."""
        return await self._run(_calls.add_stock(product_id, quantity, reason, request_id), timeout)

    async def reserve_stock(
        self,
        product_id: str,
        order_id: str,
        quantity: int,
        *,
        ttl: timedelta | None = None,
        request_id: str | UUID | None = None,
        timeout: float | None = None,
    ) -> Reservation:
        """Hold units for an order, for `ttl` (1 s to 24 h) or as long as the server does by default."""
        return await self._run(_calls.reserve_stock(product_id, order_id, quantity, ttl, request_id), timeout)

    async def get_reservation(self, reservation_id: str, *, timeout: float | None = None) -> Reservation:
        """Read a hold; one past its `expires_at` reads RELEASED."""
        return await self._run(_calls.get_reservation(reservation_id), timeout)

    async def release_reservation(
        self, reservation_id: str, *, request_id: str | UUID | None = None, timeout: float | None = None
    ) -> Reservation:
        """Give a hold back: its units are available again."""
        return await self._run(_calls.release_reservation(reservation_id, request_id), timeout)

    async def deduct_reservation(
        self, reservation_id: str, *, request_id: str | UUID | None = None, timeout: float | None = None
    ) -> Reservation:
        """Sell a hold: its units are gone for good."""
        return await self._run(_calls.deduct_reservation(reservation_id, request_id), timeout)

    @asynccontextmanager
    async def hold(
        self,
        product_id: str,
        order_id: str,
        quantity: int,
        *,
        ttl: timedelta | None = None,
        request_id: str | UUID | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[AsyncHold]:
        """Hold units while a block decides about them; an exception gives them back.

            async with client.hold("teapot", "order-1", 2) as hold:
                await charge(card)
                await hold.deduct()

        A block that ends without an exception leaves the hold as it is: deducted, released, or, if it did neither,
        reserved until its ttl, so that the payment may also be confirmed later and elsewhere by the reservation id.
        The release on an exception is best effort: if it fails that is logged, your exception goes on unchanged, and
        the hold ends by its ttl. Cancellation is an exception, too. `timeout` is for the reserve.
        """
        hold = AsyncHold(
            self,
            await self.reserve_stock(product_id, order_id, quantity, ttl=ttl, request_id=request_id, timeout=timeout),
        )
        try:
            yield hold
        except BaseException:
            await hold._abandon()  # noqa: SLF001 - only a failed block may do this
            raise

    async def _run(self, call: _calls.Call[T], timeout: float | None) -> T:
        send: grpc.aio.UnaryUnaryMultiCallable[Any, Any] = getattr(self.stub, call.rpc)
        attempts = _calls.Attempts(call, self.config, timeout)
        while True:  # until an answer, or pause_after() raises
            try:
                answer = await send(call.request, timeout=attempts.remaining(), metadata=self._metadata)
            except grpc.RpcError as failure:
                pause = attempts.pause_after(failure)
            else:
                return call.read(answer)
            await asyncio.sleep(pause)


class AsyncHold:
    """A reservation in the hands of a block; `reservation` is its state as last answered.

    Deduct and release may be called again when their outcome is unknown: the second call repeats the same request.
    """

    def __init__(self, client: AsyncInventoryClient, reservation: Reservation) -> None:
        self.reservation = reservation
        self._client = client
        self._deduct_id = _calls.new_request_id()
        self._release_id = _calls.new_request_id()

    async def deduct(self, *, timeout: float | None = None) -> Reservation:
        """Sell the hold. ReservationAlreadyReleased says that it has expired or was given back."""
        self.reservation = await self._client.deduct_reservation(
            self.reservation.reservation_id, request_id=self._deduct_id, timeout=timeout
        )
        return self.reservation

    async def release(self, *, timeout: float | None = None) -> Reservation:
        """Give the hold back before the block ends."""
        self.reservation = await self._client.release_reservation(
            self.reservation.reservation_id, request_id=self._release_id, timeout=timeout
        )
        return self.reservation

    async def _abandon(self) -> None:
        if self.reservation.status is not ReservationStatus.RESERVED:
            return
        try:
            await self.release(timeout=_calls.ABANDON_TIMEOUT_SECONDS)
        except (ReservationAlreadyReleased, ReservationAlreadyDeducted):
            pass  # there is nothing left to give back
        except Exception:  # noqa: BLE001 - whatever it is, the exception of the block matters more
            _calls.log_abandoned(self.reservation)

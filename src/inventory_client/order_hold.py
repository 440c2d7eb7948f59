"""A whole order in the hands of a block, for threads and for asyncio."""
# ruff: noqa: ASYNC109 - gRPC's own deadlines reach the server, asyncio.timeout would not

from __future__ import annotations

from typing import TYPE_CHECKING

from inventory_client._block import AsyncReleasable, Deduct, Releasable
from inventory_client.models import derived_request_id

if TYPE_CHECKING:
    from datetime import timedelta

    from inventory_client.aio import AsyncInventoryClient
    from inventory_client.client import InventoryClient
    from inventory_client.models import Reservation


class OrderHold(Releasable):
    """An order in the hands of a block; `reservations` are its holds as last answered.

    Deduct and release end the whole order. Either may be called again when its outcome is unknown: the second call
    repeats the same request.
    """

    def __init__(
        self, client: InventoryClient, order_id: str, request_id: str, reservations: tuple[Reservation, ...]
    ) -> None:
        self.order_id = order_id
        self.reservations = reservations
        self._client = client
        self._deduct = Deduct(request_id)
        self._release_id = derived_request_id(request_id, "release")

    def deduct(self, *, skip_released: bool = False, timeout: float | None = None) -> tuple[Reservation, ...]:
        """Sell the order. ReservationAlreadyReleased says that one of its holds has expired or was given back.

        With `skip_released` one that was given back does not count, such as a line that an earlier attempt still had.
        """
        with self._deduct.attempt():
            self.reservations = self._client.deduct_order(
                self.order_id, skip_released=skip_released, request_id=self._deduct.request_id, timeout=timeout
            )
        return self.reservations

    def release(self, *, timeout: float | None = None) -> tuple[Reservation, ...]:
        """Give the order back before the block ends."""
        self.reservations = self._client.release_order(self.order_id, request_id=self._release_id, timeout=timeout)
        return self.reservations

    def extend(self, ttl: timedelta, *, timeout: float | None = None) -> tuple[Reservation, ...]:
        """Let the order last for `ttl` from now on. ReservationAlreadyReleased says that it is too late for that."""
        self.reservations = self._client.extend_order(self.order_id, ttl, timeout=timeout)
        return self.reservations

    def _holds(self) -> tuple[Reservation, ...]:
        return self.reservations

    def _named(self) -> str:
        return f"order {self.order_id}"


class AsyncOrderHold(AsyncReleasable):
    """An order in the hands of a block; `reservations` are its holds as last answered.

    Deduct and release end the whole order. Either may be called again when its outcome is unknown: the second call
    repeats the same request.
    """

    def __init__(
        self, client: AsyncInventoryClient, order_id: str, request_id: str, reservations: tuple[Reservation, ...]
    ) -> None:
        self.order_id = order_id
        self.reservations = reservations
        self._client = client
        self._deduct = Deduct(request_id)
        self._release_id = derived_request_id(request_id, "release")

    async def deduct(self, *, skip_released: bool = False, timeout: float | None = None) -> tuple[Reservation, ...]:
        """Sell the order. ReservationAlreadyReleased says that one of its holds has expired or was given back.

        With `skip_released` one that was given back does not count, such as a line that an earlier attempt still had.
        """
        with self._deduct.attempt():
            self.reservations = await self._client.deduct_order(
                self.order_id, skip_released=skip_released, request_id=self._deduct.request_id, timeout=timeout
            )
        return self.reservations

    async def release(self, *, timeout: float | None = None) -> tuple[Reservation, ...]:
        """Give the order back before the block ends."""
        self.reservations = await self._client.release_order(
            self.order_id, request_id=self._release_id, timeout=timeout
        )
        return self.reservations

    async def extend(self, ttl: timedelta, *, timeout: float | None = None) -> tuple[Reservation, ...]:
        """Let the order last for `ttl` from now on. ReservationAlreadyReleased says that it is too late for that."""
        self.reservations = await self._client.extend_order(self.order_id, ttl, timeout=timeout)
        return self.reservations

    def _holds(self) -> tuple[Reservation, ...]:
        return self.reservations

    def _named(self) -> str:
        return f"order {self.order_id}"

"""A reservation in the hands of a block, for threads and for asyncio."""
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


class Hold(Releasable):
    """A reservation in the hands of a block; `reservation` is its state as last answered.

    Deduct and release may be called again when their outcome is unknown: the second call repeats the same request.
    """

    def __init__(self, client: InventoryClient, reservation: Reservation) -> None:
        self.reservation = reservation
        self._client = client
        self._deduct = Deduct(reservation.reservation_id)
        self._release_id = derived_request_id(reservation.reservation_id, "release")

    def deduct(self, *, timeout: float | None = None) -> Reservation:
        """Sell the hold. ReservationAlreadyReleased says that it has expired or was given back."""
        with self._deduct.attempt():
            self.reservation = self._client.deduct_reservation(
                self.reservation.reservation_id, request_id=self._deduct.request_id, timeout=timeout
            )
        return self.reservation

    def release(self, *, timeout: float | None = None) -> Reservation:
        """Give the hold back before the block ends."""
        self.reservation = self._client.release_reservation(
            self.reservation.reservation_id, request_id=self._release_id, timeout=timeout
        )
        return self.reservation

    def extend(self, ttl: timedelta, *, timeout: float | None = None) -> Reservation:
        """Let the hold last for `ttl` from now on. ReservationAlreadyReleased says that it is too late for that."""
        self.reservation = self._client.extend_reservation(self.reservation.reservation_id, ttl, timeout=timeout)
        return self.reservation

    def _holds(self) -> tuple[Reservation, ...]:
        return (self.reservation,)

    def _named(self) -> str:
        return f"reservation {self.reservation.reservation_id}"


class AsyncHold(AsyncReleasable):
    """A reservation in the hands of a block; `reservation` is its state as last answered.

    Deduct and release may be called again when their outcome is unknown: the second call repeats the same request.
    """

    def __init__(self, client: AsyncInventoryClient, reservation: Reservation) -> None:
        self.reservation = reservation
        self._client = client
        self._deduct = Deduct(reservation.reservation_id)
        self._release_id = derived_request_id(reservation.reservation_id, "release")

    async def deduct(self, *, timeout: float | None = None) -> Reservation:
        """Sell the hold. ReservationAlreadyReleased says that it has expired or was given back."""
        with self._deduct.attempt():
            self.reservation = await self._client.deduct_reservation(
                self.reservation.reservation_id, request_id=self._deduct.request_id, timeout=timeout
            )
        return self.reservation

    async def release(self, *, timeout: float | None = None) -> Reservation:
        """Give the hold back before the block ends."""
        self.reservation = await self._client.release_reservation(
            self.reservation.reservation_id, request_id=self._release_id, timeout=timeout
        )
        return self.reservation

    async def extend(self, ttl: timedelta, *, timeout: float | None = None) -> Reservation:
        """Let the hold last for `ttl` from now on. ReservationAlreadyReleased says that it is too late for that."""
        self.reservation = await self._client.extend_reservation(self.reservation.reservation_id, ttl, timeout=timeout)
        return self.reservation

    def _holds(self) -> tuple[Reservation, ...]:
        return (self.reservation,)

    def _named(self) -> str:
        return f"reservation {self.reservation.reservation_id}"

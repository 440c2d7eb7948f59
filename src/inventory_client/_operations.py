"""What a client can be asked, for threads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, TypeVar

from inventory_client import _bulk, _calls
from inventory_client.listing import Listing
from inventory_client.models import LatePolicy

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime, timedelta
    from uuid import UUID

    from inventory_client.errors import InventoryError
    from inventory_client.ledger import Movement, StockExplanation
    from inventory_client.models import (
        AdjustmentReason,
        InitializeResult,
        OrderLine,
        Page,
        Reservation,
        ReservationStatus,
        ReserveItem,
        SettleItem,
        Stock,
    )

T = TypeVar("T")


class Operations(ABC):
    """One method per operation of the service, apart from the feed; how a call is made is up to the client."""

    @abstractmethod
    def _run(self, call: _calls.Call[T], timeout: float | None) -> T:
        """Make a call, with all of its attempts."""

    def initialize_stock(
        self, product_id: str, quantity: int, *, request_id: str | UUID | None = None, timeout: float | None = None
    ) -> InitializeResult:
        """Create the record of a product; one that exists comes back unchanged, with `created` false."""
        return self._run(_calls.initialize_stock(product_id, quantity, request_id), timeout)

    def get_stock(self, product_id: str, *, timeout: float | None = None) -> Stock:
        """Read the balances of a product."""
        return self._run(_calls.get_stock(product_id), timeout)

    def add_stock(
        self,
        product_id: str,
        quantity: int,
        *,
        reason: str = "",
        request_id: str | UUID | None = None,
        timeout: float | None = None,
    ) -> Stock:
        """Add units to the available quantity; the reason is for the ledger."""
        return self._run(_calls.add_stock(product_id, quantity, reason, request_id), timeout)

    def adjust_stock(
        self,
        product_id: str,
        delta: int,
        reason: AdjustmentReason,
        *,
        expected_version: int | None = None,
        request_id: str | UUID | None = None,
        timeout: float | None = None,
    ) -> Stock:
        """Correct the available quantity by `delta` units, never below zero (InsufficientStock).

        With `expected_version`, only where the record still has it (VersionMismatch).
        """
        return self._run(_calls.adjust_stock(product_id, delta, reason, expected_version, request_id), timeout)

    def explain_stock(
        self,
        product_id: str,
        *,
        at: datetime | None = None,
        movements_max: int | None = None,
        timeout: float | None = None,
    ) -> StockExplanation:
        """Tell why a product has the balances it has, or had at a moment (a datetime with a time zone)."""
        return self._run(_calls.explain_stock(product_id, at, movements_max), timeout)

    def reserve_stock(
        self,
        product_id: str,
        order_id: str,
        quantity: int,
        *,
        ttl: timedelta | None = None,
        wait: timedelta | None = None,
        request_id: str | UUID | None = None,
        timeout: float | None = None,
    ) -> Reservation:
        """Hold units for an order, for `ttl` (1 s to 24 h) or as long as the server does by default.

        With `wait` (up to 30 s) a request that falls short waits for units to come back; the deadline grows by it,
        unless it is a `timeout` of this call.
        """
        return self._run(_calls.reserve_stock(product_id, order_id, quantity, ttl, wait, request_id), timeout)

    def get_reservation(self, reservation_id: str, *, timeout: float | None = None) -> Reservation:
        """Read a hold; one past its `expires_at` reads RELEASED."""
        return self._run(_calls.get_reservation(reservation_id), timeout)

    def release_reservation(
        self, reservation_id: str, *, request_id: str | UUID | None = None, timeout: float | None = None
    ) -> Reservation:
        """Give a hold back: its units are available again."""
        return self._run(_calls.release_reservation(reservation_id, request_id), timeout)

    def deduct_reservation(
        self,
        reservation_id: str,
        *,
        late_policy: LatePolicy = LatePolicy.STRICT,
        request_id: str | UUID | None = None,
        timeout: float | None = None,
    ) -> Reservation:
        """Sell a hold: its units are gone for good.

        One that has expired is refused as ReservationAlreadyReleased, or, with REACQUIRE, sold from free units.
        """
        return self._run(_calls.deduct_reservation(reservation_id, late_policy, request_id), timeout)

    def extend_reservation(
        self,
        reservation_id: str,
        ttl: timedelta,
        *,
        request_id: str | UUID | None = None,
        timeout: float | None = None,
    ) -> Reservation:
        """Let a hold last for `ttl` from now on; never shorter than before, and never revived once expired."""
        return self._run(_calls.extend_reservation(reservation_id, ttl, request_id), timeout)

    def reserve_order(
        self,
        order_id: str,
        lines: Iterable[OrderLine | tuple[str, int]],
        *,
        ttl: timedelta | None = None,
        wait: timedelta | None = None,
        request_id: str | UUID | None = None,
        timeout: float | None = None,
    ) -> tuple[Reservation, ...]:
        """Hold every line of an order or none, in the order of the lines; `ttl` and `wait` as for reserve_stock.

        InsufficientStock and ProductNotFound name every short and unknown product in `lines`.
        """
        return self._run(_calls.reserve_order(order_id, lines, ttl, wait, request_id), timeout)

    def release_order(
        self, order_id: str, *, request_id: str | UUID | None = None, timeout: float | None = None
    ) -> tuple[Reservation, ...]:
        """Give back every hold that an order still has, and return those."""
        return self._run(_calls.release_order(order_id, request_id), timeout)

    def deduct_order(
        self,
        order_id: str,
        *,
        late_policy: LatePolicy = LatePolicy.STRICT,
        skip_released: bool = False,
        request_id: str | UUID | None = None,
        timeout: float | None = None,
    ) -> tuple[Reservation, ...]:
        """Sell every hold that an order still has, and return those; nothing if one of its holds is gone.

        With the policy REACQUIRE those that have expired are sold too, if all of their units are available
        (InsufficientStock, whose `lines` say which are not). With `skip_released` those that were released by request,
        such as a line that the customer took out of the order, do not count as gone.
        """
        return self._run(_calls.deduct_order(order_id, late_policy, skip_released, request_id), timeout)

    def extend_order(
        self, order_id: str, ttl: timedelta, *, request_id: str | UUID | None = None, timeout: float | None = None
    ) -> tuple[Reservation, ...]:
        """Let every hold that an order still has last for `ttl` from now on; none if one of them has expired."""
        return self._run(_calls.extend_order(order_id, ttl, request_id), timeout)

    def batch_reserve_stock(
        self, items: Iterable[ReserveItem], *, timeout: float | None = None
    ) -> tuple[Reservation | InventoryError, ...]:
        """Make up to 1 000 independent holds; for each item, in order, its hold or the error that refused it.

        Items with errors that are `retryable` may be sent again as they are; only a call that fails whole is repeated.
        """
        return self._run(_bulk.batch_reserve_stock(items), timeout)

    def batch_settle_reservations(
        self, items: Iterable[SettleItem], *, timeout: float | None = None
    ) -> tuple[Reservation | InventoryError, ...]:
        """End up to 1 000 independent holds; for each item, in order, its hold or the error that refused it.

        Items with errors that are `retryable` may be sent again as they are; only a call that fails whole is repeated.
        """
        return self._run(_bulk.batch_settle_reservations(items), timeout)

    def batch_get_stock(
        self, product_ids: Iterable[str], *, timeout: float | None = None
    ) -> tuple[Stock | InventoryError, ...]:
        """Read the balances of up to 1 000 products; for each, in order, its record or its error."""
        return self._run(_bulk.batch_get_stock(product_ids), timeout)

    def list_stock(
        self, *, max_available: int | None = None, page_size: int | None = None, timeout: float | None = None
    ) -> Listing[Stock]:
        """List all balances, or those of at most `max_available` units, by product id.

        Nothing is sent until it is iterated over; each page holds up to `page_size` (1 000) and may take `timeout`.
        """
        return Listing(lambda token: self._run(_bulk.list_stock(max_available, page_size, token), timeout))

    def list_reservations(
        self,
        *,
        order_id: str | None = None,
        product_id: str | None = None,
        status: ReservationStatus | None = None,
        page_size: int | None = None,
        timeout: float | None = None,
    ) -> Listing[Reservation]:
        """List the holds of an order or of a product (give one), all or those that stand so, by their ids.

        Nothing is sent until it is iterated over; each page holds up to `page_size` (1 000) and may take `timeout`.
        """

        def turn(token: str) -> Page[Reservation]:
            call = _bulk.list_reservations(order_id, product_id, status, page_size, token)
            return self._run(call, timeout)

        return Listing(turn)

    def list_movements(
        self, product_id: str, *, page_size: int | None = None, timeout: float | None = None
    ) -> Listing[Movement]:
        """List the ledger of a product, newest first.

        Nothing is sent until it is iterated over; each page holds up to `page_size` (1 000) and may take `timeout`.
        """
        return Listing(lambda token: self._run(_bulk.list_movements(product_id, page_size, token), timeout))

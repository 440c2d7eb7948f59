"""The client for threads."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

import grpc

from inventory_client import _bulk, _calls, _channel
from inventory_client._attempts import Attempts, closed_here
from inventory_client._block import block, still_reserved
from inventory_client._watching import Watching
from inventory_client.hold import Hold
from inventory_client.listing import Listing
from inventory_client.models import LatePolicy
from inventory_client.order_hold import OrderHold
from inventory_client.proto.inventory.v1.inventory_pb2_grpc import InventoryServiceStub
from inventory_client.watch import StockWatch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime, timedelta
    from typing import Self
    from uuid import UUID

    from inventory_client.config import ClientConfig
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
    from inventory_client.proto.inventory.v1 import inventory_pb2 as pb
    from inventory_client.watch import Stream

T = TypeVar("T")


class InventoryClient:
    """Calls the inventory service and returns plain values.

        with InventoryClient("localhost:50051") as client:
            client.reserve_stock("teapot", "order-1", 2)

    Every method raises an InventoryError, one class per reason. Every mutation carries a request id, made up unless
    given, so what is transient (UNAVAILABLE, OVERLOADED) is retried on its own without ever being done twice. `timeout`
    is in seconds and covers all attempts; without it the configuration decides, and then a table per operation.

    One client serves any number of threads and needs no lock: make one per process, after forking, and share it.
    A `channel` that is given is used as it is (target, TLS and channel options of the configuration do not matter) and
    not closed. `stub` is the raw gRPC stub on the same channel: without deadlines, retries, request ids and token.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        config: ClientConfig | None = None,
        channel: grpc.Channel | None = None,
    ) -> None:
        self.config = _channel.settle(target, config)
        self._metadata = _channel.metadata(self.config)
        self._owned = channel is None
        self._closed = False
        self._channel = _channel.open_channel(self.config) if channel is None else channel
        self._watches: WeakSet[StockWatch] = WeakSet()
        self.stub = InventoryServiceStub(self._channel)

    def close(self) -> None:
        """Close the channel: calls under way and later ones raise Cancelled, watches end. Safe to call twice."""
        for watch in list(self._watches):
            watch.close()
        if self._owned:
            self._closed = True
            self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

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
        """Make up to 1 000 independent holds; for each item, in order, its hold or the error that refused it."""
        return self._run(_bulk.batch_reserve_stock(items), timeout)

    def batch_settle_reservations(
        self, items: Iterable[SettleItem], *, timeout: float | None = None
    ) -> tuple[Reservation | InventoryError, ...]:
        """End up to 1 000 independent holds; for each item, in order, its hold or the error that refused it."""
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

    def watch_stock(
        self,
        product_ids: Iterable[str] = (),
        *,
        resume_token: str = "",
        low_stock: int | None = None,
        timeout: float | None = None,
    ) -> StockWatch:
        """Follow the changes of some products, or of all: from now on, or from after a `resume_token`.

        With `low_stock`, also each time a product's available quantity falls to that number or below. `timeout` is
        how long the feed may be down until its reader is told, 60 seconds by default.
        """
        watching = Watching(self.config, product_ids, resume_token, low_stock, timeout)
        watch = StockWatch(self._open_watch, watching)
        self._watches.add(watch)
        return watch

    @contextmanager
    def hold(
        self,
        product_id: str,
        order_id: str,
        quantity: int,
        *,
        ttl: timedelta | None = None,
        wait: timedelta | None = None,
        request_id: str | UUID | None = None,
        timeout: float | None = None,
    ) -> Iterator[Hold]:
        """Hold units while a block decides about them; an exception gives them back, unless they may be sold.

            with client.hold("teapot", "order-1", 2) as hold:
                charge(card)
                hold.deduct()

        A block that ends without an exception leaves the hold as it is: deducted, released, or, if it did neither,
        reserved until its ttl, so that the payment may also be confirmed later and elsewhere by the reservation id.
        The release on an exception is best effort: if it fails that is logged, your exception goes on unchanged, and
        the hold ends by its ttl. `timeout` is for the reserve.

        With a `request_id` of yours the reserve may be a repetition, which answers what the first one did. Therefore
        the hold is read, too: one that is over raises ReservationAlreadyDeducted or ReservationAlreadyReleased here.

        Once a deduct was attempted whose outcome is unknown (see `InventoryError.outcome_unknown`), an exception
        releases nothing: the customer may have paid, and the units may be sold. That is logged as a warning with the
        request id of the deduct, under which `hold.deduct()`, also after the block, or deduct_reservation repeats it.
        """
        held = self.reserve_stock(
            product_id, order_id, quantity, ttl=ttl, wait=wait, request_id=request_id, timeout=timeout
        )
        if request_id:
            held = still_reserved(self.get_reservation(held.reservation_id, timeout=timeout))
        with block(Hold(self, held)) as hold:
            yield hold

    @contextmanager
    def hold_order(
        self,
        order_id: str,
        lines: Iterable[OrderLine | tuple[str, int]],
        *,
        ttl: timedelta | None = None,
        wait: timedelta | None = None,
        request_id: str | UUID | None = None,
        timeout: float | None = None,
    ) -> Iterator[OrderHold]:
        """Hold all lines of an order while a block decides about it: `hold` for carts, with the same rules.

        The block decides about the order as a whole, so it also ends holds that the order has from elsewhere.
        """
        held = self.reserve_order(order_id, lines, ttl=ttl, wait=wait, request_id=request_id, timeout=timeout)
        if request_id:
            held = tuple(still_reserved(self.get_reservation(each.reservation_id, timeout=timeout)) for each in held)
        with block(OrderHold(self, order_id, held)) as hold:
            yield hold

    def _run(self, call: _calls.Call[T], timeout: float | None) -> T:
        send: grpc.UnaryUnaryMultiCallable[Any, Any] = getattr(self.stub, call.rpc)
        attempts = Attempts(call, self.config, timeout)
        while not self._closed:
            try:
                answer = send(call.request, timeout=attempts.begin(), metadata=self._metadata)
            except grpc.RpcError as failure:
                pause = attempts.pause_after(failure)
            else:
                return call.read(answer)
            time.sleep(pause)
        raise attempts.closed()

    def _open_watch(self, request: pb.WatchStockRequest) -> Stream:
        if self._closed:
            raise closed_here()
        return self.stub.WatchStock(request, metadata=self._metadata)

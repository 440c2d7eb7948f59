"""The client for threads."""

from __future__ import annotations

import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast
from weakref import WeakSet

import grpc

from inventory_client import _channel
from inventory_client._attempts import Attempts, closed_here, on_closed_channel, refusals_told
from inventory_client._block import ABANDON_TIMEOUT_SECONDS, block, still_reserved
from inventory_client._budget import RetryBudget
from inventory_client._operations import Operations
from inventory_client._undo import undoing
from inventory_client._watching import Watching
from inventory_client.hold import Hold
from inventory_client.models import new_request_id
from inventory_client.order_hold import OrderHold
from inventory_client.proto.inventory.v1.inventory_pb2_grpc import InventoryServiceStub
from inventory_client.watch import StockWatch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import timedelta
    from typing import Self
    from uuid import UUID

    from inventory_client._calls import Call
    from inventory_client.config import ClientConfig
    from inventory_client.models import OrderLine
    from inventory_client.proto.inventory.v1 import inventory_pb2 as pb
    from inventory_client.watch import Stream

T = TypeVar("T")


class InventoryClient(Operations):
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
        self._budget = RetryBudget()
        self._owned = channel is None
        self._closed = False
        self._channel = _channel.open_channel(self.config) if channel is None else channel
        self._watches: WeakSet[StockWatch] = WeakSet()
        self.stub = InventoryServiceStub(cast("grpc.Channel", _channel.ByName(self._channel)))

    def close(self) -> None:
        """Close the channel: calls under way and later ones raise Cancelled, watches end. Safe to call twice.

        On a channel that was given, which its owner closes, calls under way end in peace.
        """
        self._closed = True
        for watch in list(self._watches):
            watch.close()
        if self._owned:
            self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

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
        with undoing(self, lambda: [reserve(timeout=ABANDON_TIMEOUT_SECONDS)], used_id, made_up=not request_id):
            held = reserve(wait=wait, timeout=timeout)
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
        used_id = str(request_id or new_request_id())
        reserve = partial(self.reserve_order, order_id, tuple(lines), ttl=ttl, request_id=used_id)
        again = partial(reserve, timeout=ABANDON_TIMEOUT_SECONDS)
        with undoing(self, again, used_id, made_up=not request_id):
            held = reserve(wait=wait, timeout=timeout)
        if request_id:
            held = tuple(still_reserved(self.get_reservation(each.reservation_id, timeout=timeout)) for each in held)
        with block(OrderHold(self, order_id, used_id, held)) as hold:
            yield hold

    def _run(self, call: Call[T], timeout: float | None) -> T:
        send: grpc.UnaryUnaryMultiCallable[Any, Any] = getattr(self.stub, call.rpc)
        attempts = Attempts(call, self.config, timeout, self._budget)
        while not self._closed:
            try:
                answer = send(call.request, timeout=attempts.begin(), metadata=self._metadata)
            except grpc.RpcError as failure:
                pause = attempts.pause_after(failure)
            except ValueError as refusal:
                if not on_closed_channel(refusal):
                    raise
                raise attempts.closed(sent=False) from refusal
            else:
                attempts.answered()
                return call.read(answer)
            time.sleep(pause)
        raise attempts.closed()

    def _open_watch(self, request: pb.WatchStockRequest) -> Stream:
        if self._closed:
            raise closed_here()
        with refusals_told():
            return self.stub.WatchStock(request, metadata=self._metadata)

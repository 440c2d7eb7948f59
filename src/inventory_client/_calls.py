"""The core without I/O: what is sent, how its answer is read, and whether it is sent again.

An operation is one function here that makes a Call, one row in `_channel.RULES`, and one method in each of the two
clients. `_status` reads the errors.
"""

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import uuid_utils
from google.protobuf.duration_pb2 import Duration

from inventory_client._channel import RULES
from inventory_client._status import error_of
from inventory_client.models import InitializeResult, ReleaseReason, Reservation, ReservationStatus, Stock
from inventory_client.proto.inventory.v1 import inventory_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    import grpc
    from google.protobuf.message import Message

    from inventory_client.config import ClientConfig

T = TypeVar("T")

# how long a block that failed waits for the release of its hold; the hold also ends by itself
ABANDON_TIMEOUT_SECONDS = 2.0

_log = logging.getLogger("inventory_client")


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One operation, ready to be sent as often as it takes: the request id is part of the request."""

    rpc: str
    request: Message
    read: Callable[[Any], T]

    @property
    def request_id(self) -> str | None:
        return getattr(self.request, "request_id", None)


def new_request_id() -> str:
    """Make a UUIDv7: ids that follow one another in time lie together in the server's indexes."""
    return str(uuid_utils.uuid7())


def initialize_stock(product_id: str, quantity: int, request_id: str | UUID | None) -> Call[InitializeResult]:
    def read(answer: pb.InitializeStockResponse) -> InitializeResult:
        return InitializeResult(stock=stock(answer.stock), created=answer.created)

    request = pb.InitializeStockRequest(product_id=product_id, quantity=quantity, request_id=_id(request_id))
    return Call("InitializeStock", request, read)


def get_stock(product_id: str) -> Call[Stock]:
    return Call("GetStock", pb.GetStockRequest(product_id=product_id), _stock)


def add_stock(product_id: str, quantity: int, reason: str, request_id: str | UUID | None) -> Call[Stock]:
    request = pb.AddStockRequest(product_id=product_id, quantity=quantity, reason=reason, request_id=_id(request_id))
    return Call("AddStock", request, _stock)


def reserve_stock(
    product_id: str, order_id: str, quantity: int, ttl: timedelta | None, request_id: str | UUID | None
) -> Call[Reservation]:
    request = pb.ReserveStockRequest(
        product_id=product_id,
        order_id=order_id,
        quantity=quantity,
        ttl=_duration(ttl),
        request_id=_id(request_id),
    )
    return Call("ReserveStock", request, _reservation)


def get_reservation(reservation_id: str) -> Call[Reservation]:
    return Call("GetReservation", pb.GetReservationRequest(reservation_id=reservation_id), _reservation)


def release_reservation(reservation_id: str, request_id: str | UUID | None) -> Call[Reservation]:
    request = pb.ReleaseReservationRequest(reservation_id=reservation_id, request_id=_id(request_id))
    return Call("ReleaseReservation", request, _reservation)


def deduct_reservation(reservation_id: str, request_id: str | UUID | None) -> Call[Reservation]:
    request = pb.DeductReservationRequest(reservation_id=reservation_id, request_id=_id(request_id))
    return Call("DeductReservation", request, _reservation)


def stock(message: pb.Stock) -> Stock:
    return Stock(
        product_id=message.product_id,
        available_quantity=message.available_quantity,
        reserved_quantity=message.reserved_quantity,
        version=message.version,
        created_at=message.created_at.ToDatetime(UTC),
        updated_at=message.updated_at.ToDatetime(UTC),
    )


def reservation(message: pb.Reservation) -> Reservation:
    return Reservation(
        reservation_id=message.reservation_id,
        product_id=message.product_id,
        order_id=message.order_id,
        quantity=message.quantity,
        status=_STATUSES.get(message.status, ReservationStatus.UNKNOWN),
        expires_at=message.expires_at.ToDatetime(UTC),
        created_at=message.created_at.ToDatetime(UTC),
        updated_at=message.updated_at.ToDatetime(UTC),
        release_reason=_RELEASE_REASONS.get(message.release_reason, ReleaseReason.UNKNOWN),
    )


_STATUSES = {
    pb.RESERVATION_STATUS_RESERVED: ReservationStatus.RESERVED,
    pb.RESERVATION_STATUS_RELEASED: ReservationStatus.RELEASED,
    pb.RESERVATION_STATUS_DEDUCTED: ReservationStatus.DEDUCTED,
}
_RELEASE_REASONS = {
    pb.RELEASE_REASON_UNSPECIFIED: None,
    pb.RELEASE_REASON_REQUESTED: ReleaseReason.REQUESTED,
    pb.RELEASE_REASON_EXPIRED: ReleaseReason.EXPIRED,
}


class Attempts:
    """Decides for one call how long an attempt may take, and whether and when another follows.

    This is a loop of our own, not gRPC's retryPolicy, because that one looks at status codes alone: it can neither
    tell OVERLOADED from a message that is too large (both RESOURCE_EXHAUSTED), nor wait as RetryInfo asks.

    Attempts do not set `wait_for_ready`. With it, a call to a server that is away would end as DEADLINE_EXCEEDED
    without a word about why; without it, each attempt fails at once with the reason, and the pauses in between bridge a
    restart. The last error is raised as soon as no time is left for another attempt.
    """

    def __init__(
        self,
        call: Call[Any],
        config: ClientConfig,
        timeout: float | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        rule = RULES[call.rpc]
        self._request_id = call.request_id
        self._policy = config.retry
        self._attempts = config.retry.attempts if rule.retried else 1
        self._clock = clock
        self._draw = draw
        self._made = 0
        self._deadline = clock() + next(each for each in (timeout, config.timeout, rule.timeout) if each is not None)

    def remaining(self) -> float:
        """Seconds that the next attempt may take."""
        return max(self._deadline - self._clock(), 0.0)

    def pause_after(self, failure: grpc.RpcError) -> float:
        """Seconds to wait before the next attempt; raises what the failure means when there is none."""
        error = error_of(failure)
        error.request_id = self._request_id
        self._made += 1
        pause = self._backoff() + max(error.retry_after or timedelta(), timedelta()).total_seconds()
        if not error.retryable or self._made >= self._attempts or pause >= self.remaining():
            raise error from failure
        return pause

    def _backoff(self) -> float:
        # full jitter: clients that failed together do not come back together
        ceiling = self._policy.backoff_seconds * 2.0 ** min(self._made - 1, 30)  # more would be no float at some point
        return min(ceiling, self._policy.backoff_seconds_max) * self._draw()


def log_abandoned(held: Reservation) -> None:
    """Tell that a hold outlives its failed block; to be called where the release failed."""
    _log.warning(
        "could not release reservation %s after an exception; it ends at %s",
        held.reservation_id,
        held.expires_at.isoformat(),
        exc_info=True,
    )


def _stock(answer: pb.GetStockResponse | pb.AddStockResponse) -> Stock:
    return stock(answer.stock)


def _reservation(
    answer: pb.ReserveStockResponse
    | pb.GetReservationResponse
    | pb.ReleaseReservationResponse
    | pb.DeductReservationResponse,
) -> Reservation:
    return reservation(answer.reservation)


def _id(request_id: str | UUID | None) -> str:
    return str(request_id) if request_id else new_request_id()


def _duration(value: timedelta | None) -> Duration | None:
    if value is None:
        return None
    message = Duration()
    message.FromTimedelta(value)
    return message

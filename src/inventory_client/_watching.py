"""Where a reader of the live feed stands, and whether and when it connects again."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import grpc

from inventory_client import _values
from inventory_client._attempts import asked_pause, backoff, log_retry
from inventory_client._channel import RULES
from inventory_client._status import error_of
from inventory_client.config import checked_timeout
from inventory_client.errors import InventoryError, ServiceUnavailable
from inventory_client.ledger import StockEvent
from inventory_client.proto.inventory.v1 import inventory_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from inventory_client.config import ClientConfig


# A feed that is in place this long has come up, even if nothing happened: one that breaks at once has not.
_SETTLED_SECONDS = 5.0
# A healthy service over a long line may need this long, however soon the reader wants to be told of one that is down.
_CONNECT_SECONDS_MIN = 5.0


class NoAnswer(grpc.RpcError):
    """A server took the connection, and then said nothing."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.DEADLINE_EXCEEDED

    def details(self) -> str:
        return "The server did not say in time that the feed is in place."

    def trailing_metadata(self) -> tuple[()]:
        return ()


class Watching:
    """What the watches of both clients share. `resume_token` is that of the last answer that was handed out."""

    def __init__(
        self,
        config: ClientConfig,
        product_ids: Iterable[str],
        resume_token: str,
        low_stock: int | None,
        timeout: float | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.resume_token = resume_token
        self._product_ids = _values.product_ids(product_ids)
        self._low_stock = low_stock
        self._policy = config.retry
        timeout = checked_timeout(timeout)
        self._patience = RULES["WatchStock"].timeout if timeout is None else timeout
        self._clock = clock
        self._draw = draw
        self._failures = 0
        self._down_since: float | None = None
        self._opened = clock()
        self._placed: float | None = None  # since when the feed is in place
        self._told = False  # of a change, since it was opened

    @property
    def connect_seconds(self) -> float:
        """How long a connection may take until another one is tried, which may reach another server."""
        share = self._policy.attempt_share if self._policy.attempts > 1 else 1.0
        return max(self._patience * share, _CONNECT_SECONDS_MIN)

    def request(self) -> pb.WatchStockRequest:
        """Ask for what comes after the last answer."""
        self._opened = self._clock()
        self._placed, self._told = None, False
        return pb.WatchStockRequest(
            product_ids=self._product_ids, resume_token=self.resume_token, low_stock=self._low_stock
        )

    def placed(self) -> None:
        """Take note that the feed is in place."""
        self._placed = self._clock()

    def check(self, failure: grpc.RpcError) -> None:
        """Raise what the failure of a connection means where another one would fail as well."""
        error = error_of(failure)
        if not self._survives(error):
            raise error from failure

    def read(self, answer: pb.WatchStockResponse) -> StockEvent | None:
        """Take an answer; None for one that only says where the stream stands, or that is newer than this client."""
        self._told = self._told or answer.WhichOneof("event") is not None
        if self._placed is None:
            self.placed()
        self.resume_token = answer.resume_token or self.resume_token
        match answer.WhichOneof("event"):
            case "movement":
                return StockEvent(change=_values.movement(answer.movement), resume_token=self.resume_token)
            case "low_stock":
                return StockEvent(change=_values.low_stock(answer.low_stock), resume_token=self.resume_token)
            case _:
                return None

    def pause_after(self, failure: grpc.RpcError | None) -> float:
        """Seconds to wait before the next connection (None: the server ended the stream).

        Raises what the failure means where another connection would fail as well, or the feed is down for too long.
        """
        error = ServiceUnavailable("the server ended the stream") if failure is None else error_of(failure)
        now = self._clock()
        if self._told or self._lasted(now, failure):
            self._down_since = now
            self._failures = 0
        elif self._down_since is None:
            self._down_since = self._opened
        self._failures += 1
        pause = backoff(self._policy, self._failures, self._draw) + asked_pause(error)
        if not self._survives(error) or now + pause - self._down_since >= self._patience:
            self._failures = 0
            self._down_since = None
            raise error from failure
        log_retry("WatchStock", self._failures, error, failure, pause)
        return pause

    def _lasted(self, now: float, failure: grpc.RpcError | None) -> bool:
        """Tell whether the feed was up, though nothing happened."""
        if self._placed is not None:
            return now - self._placed >= _SETTLED_SECONDS
        # One that an interceptor hides does not say that it is in place; to connect takes no such time.
        return now - self._opened >= max(self._patience, _CONNECT_SECONDS_MIN) and not isinstance(failure, NoAnswer)

    def _survives(self, error: InventoryError) -> bool:
        # a server that shuts down cancels its streams
        return self._policy.attempts > 1 and error.retryable

"""Where a reader of the live feed stands, and whether and when it connects again."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from inventory_client import _values
from inventory_client._attempts import asked_pause, backoff, log_retry
from inventory_client._channel import RULES
from inventory_client._status import error_of
from inventory_client.errors import InventoryError, ServiceUnavailable
from inventory_client.ledger import StockEvent
from inventory_client.proto.inventory.v1 import inventory_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import grpc

    from inventory_client.config import ClientConfig


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
        self._patience = RULES["WatchStock"].timeout if timeout is None else timeout
        self._clock = clock
        self._draw = draw
        self._failures = 0
        self._down_since: float | None = None
        self._opened = clock()

    def request(self) -> pb.WatchStockRequest:
        """Ask for what comes after the last answer."""
        self._opened = self._clock()
        return pb.WatchStockRequest(
            product_ids=self._product_ids, resume_token=self.resume_token, low_stock=self._low_stock
        )

    def connected(self) -> None:
        """Take note that the feed is up."""
        self._failures = 0
        self._down_since = None

    def read(self, answer: pb.WatchStockResponse) -> StockEvent | None:
        """Take an answer; None for one that only says where the stream stands, or that is newer than this client."""
        self.connected()
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
        if self._down_since is None or now - self._opened >= self._patience:
            self._down_since = now  # what has been quiet for so long was connected
            self._failures = 0
        self._failures += 1
        pause = backoff(self._policy, self._failures, self._draw) + asked_pause(error)
        if not self._survives(error) or now + pause - self._down_since >= self._patience:
            self._failures = 0
            self._down_since = None
            raise error from failure
        log_retry("WatchStock", self._failures, error, failure, pause)
        return pause

    def _survives(self, error: InventoryError) -> bool:
        # a server that shuts down cancels its streams
        return self._policy.attempts > 1 and error.retryable

"""Whether a call is sent again, and when."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from inventory_client._channel import RULES
from inventory_client._status import DECIDED, error_of, leaves_open
from inventory_client.config import SECONDS_MAX, checked_timeout
from inventory_client.errors import Cancelled, DeadlineExceeded, InventoryError, Overloaded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from inventory_client._budget import RetryBudget
    from inventory_client._calls import Call
    from inventory_client.config import ClientConfig, RetryPolicy

E = TypeVar("E", bound=InventoryError)

_log = logging.getLogger("inventory_client")


class Attempts:
    """Decides for one call how long an attempt may take, and whether and when another follows.

    This is a loop of our own, not gRPC's retryPolicy, because that one looks at status codes alone: it can neither
    tell OVERLOADED from a message that is too large (both RESOURCE_EXHAUSTED), nor wait as RetryInfo asks.

    Attempts do not set `wait_for_ready`. With it, a call to a server that is away would end as DEADLINE_EXCEEDED
    without a word about why; without it, each attempt fails at once with the reason, and the pauses in between bridge a
    restart. The last error is raised as soon as no time is left for another attempt.

    A server that hangs with its connection open, as one that is stopped or out of memory, says nothing at all. So the
    first attempt gets a part of the time only: the next one may reach another server. One that is merely slow gets a
    copy while it works. A change it does once and answers the copies; for what it must look up again, the next
    attempt has twice the time.
    """

    def __init__(
        self,
        call: Call[Any],
        config: ClientConfig,
        timeout: float | None,
        budget: RetryBudget,
        *,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        rule = RULES[call.rpc]
        self._rpc = call.rpc
        self._request_id = call.request_id
        self._policy = config.retry
        self._attempts = config.retry.attempts if rule.retried else 1
        self._budget = budget
        self._clock = clock
        self._draw = draw
        self._made = 0
        self._open = self._open_before = False  # whether an attempt may have been carried out without an answer
        timeout = checked_timeout(timeout)
        if timeout is None:
            usual = rule.timeout if config.timeout is None else config.timeout
            timeout = min(usual + call.wait_seconds, SECONDS_MAX)
        self._deadline = clock() + timeout
        self._wait = call.wait_seconds
        self._share = max(timeout - call.wait_seconds, 0.0) * config.retry.attempt_share

    def begin(self) -> float:
        """Take note that an attempt is sent now, and give the seconds that it may take.

        Without any time the first one is not sent: gRPC would, and often be answered before it looks at a clock.
        """
        if not self._made and not self.remaining():
            raise self._told(DeadlineExceeded("The timeout was over before anything was sent."))
        self._open_before, self._open = self._open, True
        last = self._made + 1 >= self._attempts
        return self.remaining() if last else min(self._wait + self._share, self.remaining())

    def remaining(self) -> float:
        """Seconds that are left."""
        return max(self._deadline - self._clock(), 0.0)

    def pause_after(self, failure: grpc.RpcError) -> float:
        """Seconds to wait before the next attempt; raises what the failure means when there is none."""
        error = self._told(error_of(failure))
        self._open = error.outcome_unknown = leaves_open(error, open_before=self._open_before)
        self._made += 1
        if isinstance(error, DeadlineExceeded):
            self._share *= 2
        pause = backoff(self._policy, self._made, self._draw) + asked_pause(error)
        if not self._may_follow(error) or pause >= self.remaining():
            raise error from failure
        log_retry(self._rpc, self._made, error, failure, pause)
        return pause

    def answered(self) -> None:
        """Take note of an answer."""
        self._budget.answered()

    def closed(self, *, sent: bool = True) -> Cancelled:
        """Say that the channel was closed: before the next attempt, during it, or as it was to be sent."""
        error = self._told(closed_here())
        error.outcome_unknown = self._open if sent else self._open_before
        return error

    def _may_follow(self, error: InventoryError) -> bool:
        """Tell whether another attempt may mend this; an overload only while the client has not met many."""
        if isinstance(error, Overloaded):
            self._budget.overloaded()
            if self._budget.exhausted:
                return False
        elif error.code in DECIDED:
            self._budget.answered()
        return error.retryable and self._made < self._attempts

    def _told(self, error: E) -> E:
        error.request_id = self._request_id
        return error


def closed_here() -> Cancelled:
    """Say that the client was closed."""
    return Cancelled("Channel closed here.")


def on_closed_channel(refusal: Exception) -> bool:
    """Tell whether gRPC refuses to send since the channel was closed, here or by its owner, and not for a mistake."""
    return str(refusal).startswith(("Cannot invoke RPC", "Channel is clos"))


@contextmanager
def refusals_told() -> Iterator[None]:
    """Say that the channel was closed where gRPC refuses to send; interceptors keep that until something is read."""
    try:
        yield
    except (ValueError, grpc.aio.UsageError) as refusal:
        if not on_closed_channel(refusal):
            raise
        raise closed_here() from refusal


def log_retry(rpc: str, attempt: int, error: InventoryError, failure: grpc.RpcError | None, pause: float) -> None:
    """Tell of a failure that nobody sees, as another attempt follows."""
    _log.info(
        "%s failed in attempt %d (%s: %s); the next one follows in %.3f s%s",
        rpc,
        attempt,
        error.reason,
        error,
        pause,
        f" under request id {error.request_id}" if error.request_id else "",
    )
    details = getattr(failure, "debug_error_string", None)
    if details is not None:
        _log.debug("%s failed in attempt %d: %s", rpc, attempt, details())


def being_cancelled() -> bool:
    """Tell whether somebody cancels the task that runs, rather than gRPC the call that it awaits."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def backoff(policy: RetryPolicy, failures: int, draw: Callable[[], float]) -> float:
    """Choose the pause after so many failures in a row.

    Full jitter: clients that failed together do not come back together.
    """
    ceiling = policy.backoff_seconds * 2.0 ** min(failures - 1, 30)  # more would be no float at some point
    return min(ceiling, policy.backoff_seconds_max) * draw()


def asked_pause(error: InventoryError) -> float:
    """How many seconds the server asks to be left alone."""
    return max(error.retry_after or timedelta(), timedelta()).total_seconds()

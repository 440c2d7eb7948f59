"""Deadlines and retries, decided without a wire: a clock that is set by hand, and a chance that is not."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc import StatusCode

from inventory_client import (
    AsyncInventoryClient,
    ClientConfig,
    DatabaseUnavailable,
    DeadlineExceeded,
    InsufficientStock,
    InventoryClient,
    InventoryError,
    Overloaded,
    RetryPolicy,
    ServiceUnavailable,
    _calls,
)
from inventory_client._attempts import Attempts
from inventory_client._budget import RetryBudget
from inventory_client._channel import RULES
from inventory_client.proto.inventory.v1 import inventory_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.rpc.status_pb2 import Status

    MakeStatus = Callable[..., Status]

SERVICE = pb.DESCRIPTOR.services_by_name["InventoryService"]


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def failed(status: Status) -> grpc.RpcError:
    code = next(code for code in StatusCode if code.value[0] == status.code)
    trailers = grpc.aio.Metadata(("grpc-status-details-bin", status.SerializeToString()))
    return grpc.aio.AioRpcError(code, None, trailers, status.message)


def attempts(
    clock: Clock,
    *,
    timeout: float | None = None,
    draw: float = 1.0,
    config: ClientConfig | None = None,
    wait: timedelta | None = None,
    budget: RetryBudget | None = None,
) -> Attempts:
    call = _calls.reserve_stock("teapot", "order-1", 1, None, wait, "id-1")
    return Attempts(call, config or ClientConfig(), timeout, budget or RetryBudget(), clock=clock, draw=lambda: draw)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def unavailable(make_status: MakeStatus) -> grpc.RpcError:
    return failed(make_status(StatusCode.UNAVAILABLE))


def test_every_operation_of_the_proto_has_its_row_and_its_method() -> None:
    assert list(RULES) == list(SERVICE.methods_by_name)
    for rpc in RULES:
        method = re.sub(r"(?<!^)(?=[A-Z])", "_", rpc).lower()
        assert callable(getattr(InventoryClient, method))
        assert callable(getattr(AsyncInventoryClient, method))


def test_every_deadline_is_one_that_a_checkout_can_wait_for() -> None:
    for rpc, rule in RULES.items():
        assert 0 < rule.timeout <= 60, rpc


def test_only_what_reads_or_carries_a_request_id_is_retried() -> None:
    for rpc, rule in RULES.items():
        fields = SERVICE.methods_by_name[rpc].input_type.fields_by_name
        items = fields["items"].message_type if "items" in fields else None
        carries = "request_id" in (items.fields_by_name if items else fields)
        assert not rule.retried or carries or rpc.startswith(("Get", "BatchGet", "List", "Explain", "Watch")), rpc


def test_the_deadline_is_the_calls_then_the_configurations_then_the_tables(clock: Clock) -> None:
    assert attempts(clock, timeout=0.5, config=ClientConfig(timeout=2)).remaining() == 0.5
    assert attempts(clock, config=ClientConfig(timeout=2)).remaining() == 2
    assert attempts(clock).remaining() == RULES["ReserveStock"].timeout


def test_the_deadline_grows_by_the_wait_that_is_asked_for_unless_the_call_sets_its_own(clock: Clock) -> None:
    wait = timedelta(seconds=20)
    assert attempts(clock, wait=wait).remaining() == RULES["ReserveStock"].timeout + 20
    assert attempts(clock, wait=wait, config=ClientConfig(timeout=2)).remaining() == 22
    assert attempts(clock, wait=wait, timeout=3).remaining() == 3
    assert attempts(clock, wait=timedelta(seconds=-1)).remaining() == RULES["ReserveStock"].timeout


def test_what_was_spent_is_not_given_to_the_next_attempt(clock: Clock) -> None:
    tries = attempts(clock, timeout=2)
    clock.now += 1.5
    assert tries.remaining() == 0.5
    clock.now += 1.5
    assert tries.remaining() == 0


def test_the_first_attempt_takes_a_third_of_the_time_and_the_last_one_what_is_left(
    clock: Clock, make_status: MakeStatus
) -> None:
    silence = failed(make_status(StatusCode.DEADLINE_EXCEEDED))
    tries = attempts(clock, timeout=6, draw=0.0, config=ClientConfig(retry=RetryPolicy(attempts=3)))
    assert tries.begin() == pytest.approx(2)
    clock.now += 0.5
    tries.pause_after(silence)
    assert tries.begin() == pytest.approx(4)
    clock.now += 0.5
    tries.pause_after(silence)
    assert tries.begin() == pytest.approx(5)


def test_only_silence_gives_the_next_attempt_more_time(
    clock: Clock, make_status: MakeStatus, unavailable: grpc.RpcError
) -> None:
    tries = attempts(clock, timeout=6, draw=0.0)
    for _ in range(3):
        assert tries.begin() == pytest.approx(2)
        tries.pause_after(unavailable)
    tries.pause_after(failed(make_status(StatusCode.DEADLINE_EXCEEDED)))
    assert tries.begin() == pytest.approx(4)


def test_no_attempt_takes_more_than_is_left(clock: Clock, make_status: MakeStatus) -> None:
    silence = failed(make_status(StatusCode.DEADLINE_EXCEEDED))
    tries = attempts(clock, timeout=6, draw=0.0)
    for share in (2, 3.75):
        assert tries.begin() == pytest.approx(share)
        clock.now += share + 0.25
        if tries.remaining():
            tries.pause_after(silence)
    with pytest.raises(DeadlineExceeded):
        tries.pause_after(silence)


def test_an_attempt_that_may_wait_for_units_has_that_time_on_top_of_its_share(clock: Clock) -> None:
    wait = timedelta(seconds=20)
    assert attempts(clock, wait=wait).begin() == pytest.approx(20 + RULES["ReserveStock"].timeout / 3)
    assert attempts(clock, wait=wait, timeout=23).begin() == pytest.approx(21)
    assert attempts(clock, wait=wait, timeout=3).begin() == 3


def test_without_retries_and_by_configuration_an_attempt_takes_all_of_the_time(clock: Clock) -> None:
    assert attempts(clock, timeout=6, config=ClientConfig(retry=RetryPolicy(attempts=1))).begin() == 6
    assert attempts(clock, timeout=6, config=ClientConfig(retry=RetryPolicy(attempt_share=1))).begin() == 6


def test_pauses_double_up_to_their_limit(clock: Clock, unavailable: grpc.RpcError) -> None:
    policy = RetryPolicy(attempts=6, backoff_seconds=0.1, backoff_seconds_max=0.5)
    tries = attempts(clock, config=ClientConfig(retry=policy))
    assert [tries.pause_after(unavailable) for _ in range(5)] == pytest.approx([0.1, 0.2, 0.4, 0.5, 0.5])


def test_the_whole_pause_is_left_to_chance(clock: Clock, unavailable: grpc.RpcError) -> None:
    assert attempts(clock, draw=0.0).pause_after(unavailable) == 0
    assert attempts(clock, draw=0.5).pause_after(unavailable) == RetryPolicy().backoff_seconds / 2


def test_the_last_attempt_raises_what_went_wrong_and_from_where(clock: Clock, unavailable: grpc.RpcError) -> None:
    tries = attempts(clock, config=ClientConfig(retry=RetryPolicy(attempts=2)))
    tries.pause_after(unavailable)
    with pytest.raises(ServiceUnavailable) as raised:
        tries.pause_after(unavailable)
    assert raised.value.__cause__ is unavailable
    assert raised.value.request_id == "id-1"


def test_one_attempt_means_no_retry(clock: Clock, unavailable: grpc.RpcError) -> None:
    with pytest.raises(ServiceUnavailable):
        attempts(clock, config=ClientConfig(retry=RetryPolicy(attempts=1))).pause_after(unavailable)


def test_no_pause_outlasts_the_deadline(clock: Clock, unavailable: grpc.RpcError) -> None:
    tries = attempts(clock, timeout=1)
    clock.now += 0.95
    with pytest.raises(ServiceUnavailable):
        tries.pause_after(unavailable)


def test_many_failures_are_counted_without_overflow(clock: Clock, unavailable: grpc.RpcError) -> None:
    tries = attempts(clock, config=ClientConfig(retry=RetryPolicy(attempts=3000)))
    for _ in range(2000):
        assert tries.pause_after(unavailable) <= RetryPolicy().backoff_seconds_max


def test_the_server_is_left_alone_as_long_as_it_asks_and_then_a_little(clock: Clock, make_status: MakeStatus) -> None:
    failure = failed(make_status(StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", retry_after=0.7))
    assert attempts(clock).pause_after(failure) == pytest.approx(0.7 + RetryPolicy().backoff_seconds)


def test_a_server_that_asks_for_more_time_than_there_is_is_not_waited_for(
    clock: Clock, make_status: MakeStatus
) -> None:
    failure = failed(make_status(StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE", retry_after=60))
    with pytest.raises(DatabaseUnavailable):
        attempts(clock).pause_after(failure)


def test_a_negative_request_for_time_is_none(clock: Clock, make_status: MakeStatus) -> None:
    failure = failed(make_status(StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE", retry_after=-5))
    assert attempts(clock).pause_after(failure) == pytest.approx(RetryPolicy().backoff_seconds)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (StatusCode.UNAVAILABLE, ""),
        (StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE"),
        (StatusCode.UNAVAILABLE, "NEWER_THAN_THIS_CLIENT"),
        (StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED"),
    ],
)
def test_what_is_transient_is_retried(code: StatusCode, reason: str, clock: Clock, make_status: MakeStatus) -> None:
    assert attempts(clock).pause_after(failed(make_status(code, reason))) > 0


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (StatusCode.RESOURCE_EXHAUSTED, ""),  # such as a message that is too large
        (StatusCode.FAILED_PRECONDITION, "INSUFFICIENT_STOCK"),
        (StatusCode.ABORTED, "VERSION_MISMATCH"),
        (StatusCode.INTERNAL, "INTERNAL_ERROR"),
        (StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"),
    ],
)
def test_what_would_fail_again_is_not_retried(
    code: StatusCode, reason: str, clock: Clock, make_status: MakeStatus
) -> None:
    with pytest.raises(InventoryError) as raised:
        attempts(clock).pause_after(failed(make_status(code, reason)))
    assert raised.value.code is code


def test_a_deadline_that_a_proxy_cut_short_is_retried_within_ours(clock: Clock, make_status: MakeStatus) -> None:
    failure = failed(make_status(StatusCode.DEADLINE_EXCEEDED))
    tries = attempts(clock, timeout=5)
    clock.now += 1
    tries.pause_after(failure)
    clock.now += 4
    with pytest.raises(DeadlineExceeded):
        tries.pause_after(failure)


@pytest.fixture
def overloaded(make_status: MakeStatus) -> grpc.RpcError:
    return failed(make_status(StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED"))


def refused_often(clock: Clock, failure: grpc.RpcError) -> RetryBudget:
    """Use up the budget of a client, by one attempt of each of 50 calls."""
    budget = RetryBudget()
    for _ in range(49):
        attempts(clock, budget=budget).pause_after(failure)
    with pytest.raises(Overloaded):
        attempts(clock, budget=budget).pause_after(failure)
    return budget


def test_under_lasting_overload_a_client_repeats_nothing_until_it_gets_answers_again(
    clock: Clock, overloaded: grpc.RpcError, make_status: MakeStatus
) -> None:
    budget = refused_often(clock, overloaded)
    for _ in range(20):
        attempts(clock, budget=budget).answered()
    attempts(clock, budget=budget).pause_after(overloaded)

    budget = refused_often(clock, overloaded)
    for _ in range(20):  # no success, but the service has looked and decided
        with pytest.raises(InsufficientStock):
            attempts(clock, budget=budget).pause_after(
                failed(make_status(StatusCode.FAILED_PRECONDITION, "INSUFFICIENT_STOCK"))
            )
    attempts(clock, budget=budget).pause_after(overloaded)


def test_a_server_that_is_away_or_hangs_is_tried_again_whatever_the_overload(
    clock: Clock, overloaded: grpc.RpcError, unavailable: grpc.RpcError, make_status: MakeStatus
) -> None:
    budget = refused_often(clock, overloaded)
    for failure in (unavailable, failed(make_status(StatusCode.DEADLINE_EXCEEDED))):
        for _ in range(200):
            attempts(clock, budget=budget).pause_after(failure)


@pytest.mark.parametrize(
    "wrong",
    [{"attempts": 0}, {"backoff_seconds": -1}, {"backoff_seconds": 2}, {"attempt_share": 0}, {"attempt_share": 1.1}],
)
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        RetryPolicy(**wrong)

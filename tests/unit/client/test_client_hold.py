from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest
from grpc import StatusCode

from inventory_client import (
    AsyncInventoryClient,
    InsufficientStock,
    InventoryClient,
    InventoryError,
    PermissionDenied,
    ReservationAlreadyReleased,
    ReservationStatus,
    ServiceUnavailable,
    UnexpectedError,
)
from inventory_client.proto.inventory.v1 import inventory_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.rpc.status_pb2 import Status
    from tests.unit.client.conftest import Peer

    MakeStatus = Callable[..., Status]


class CardDeclinedError(Exception):
    pass


def fail_after(step: Callable[[], object]) -> None:
    step()
    raise CardDeclinedError


def deduct_twice(hold: Any) -> None:
    with pytest.raises(InventoryError) as raised:
        hold.deduct()
    assert raised.value.outcome_unknown
    hold.deduct()


RESERVED = pb.ReserveStockResponse(
    reservation=pb.Reservation(reservation_id="r-1", status=pb.RESERVATION_STATUS_RESERVED)
)
DEDUCTED = pb.DeductReservationResponse(
    reservation=pb.Reservation(reservation_id="r-1", status=pb.RESERVATION_STATUS_DEDUCTED)
)
RELEASED = pb.ReleaseReservationResponse(
    reservation=pb.Reservation(reservation_id="r-1", status=pb.RESERVATION_STATUS_RELEASED)
)


def test_a_block_that_fails_gives_its_hold_back(peer: Peer, client: Any) -> None:
    peer.script = [RESERVED, RELEASED]
    with pytest.raises(CardDeclinedError), client.hold("teapot", "o-1", 2):
        raise CardDeclinedError
    assert peer.rpcs() == ["ReserveStock", "ReleaseReservation"]
    assert peer.seen[1].request.reservation_id == "r-1"


def test_a_block_that_deducts_ends_the_hold(peer: Peer, client: Any) -> None:
    peer.script = [RESERVED, DEDUCTED]
    with client.hold("teapot", "o-1", 2) as hold:
        assert hold.deduct().status is ReservationStatus.DEDUCTED
    assert peer.rpcs() == ["ReserveStock", "DeductReservation"]


def test_a_block_that_fails_after_the_deduct_gives_nothing_back(peer: Peer, client: Any) -> None:
    peer.script = [RESERVED, DEDUCTED]
    with pytest.raises(CardDeclinedError), client.hold("teapot", "o-1", 2) as hold:
        fail_after(hold.deduct)
    assert peer.rpcs() == ["ReserveStock", "DeductReservation"]


def test_a_block_that_releases_and_fails_releases_once(peer: Peer, client: Any) -> None:
    peer.script = [RESERVED, RELEASED]
    with pytest.raises(CardDeclinedError), client.hold("teapot", "o-1", 2) as hold:
        fail_after(hold.release)
    assert peer.rpcs() == ["ReserveStock", "ReleaseReservation"]


def test_a_block_that_does_nothing_leaves_the_hold_to_its_ttl(peer: Peer, client: Any) -> None:
    peer.script = [RESERVED]
    with client.hold("teapot", "o-1", 2):
        pass
    assert peer.rpcs() == ["ReserveStock"]


def test_a_hold_under_a_request_id_of_the_caller_is_read_before_the_block(peer: Peer, client: Any) -> None:
    later = pb.Reservation(reservation_id="r-1", status=pb.RESERVATION_STATUS_RESERVED, order_id="extended since")
    peer.script = [RESERVED, pb.GetReservationResponse(reservation=later)]
    with client.hold("teapot", "o-1", 2, request_id="mine") as hold:
        assert hold.reservation.order_id == "extended since"
    assert peer.rpcs() == ["ReserveStock", "GetReservation"]
    assert peer.seen[0].request.request_id == "mine"
    assert peer.seen[1].request.reservation_id == "r-1"


def test_a_status_that_is_newer_than_the_client_lets_nobody_pay(peer: Peer, client: Any) -> None:
    newer = pb.Reservation(reservation_id="r-1", status=99)  # type: ignore[arg-type]
    peer.script = [RESERVED, pb.GetReservationResponse(reservation=newer)]
    with pytest.raises(UnexpectedError), client.hold("teapot", "o-1", 2, request_id="mine"):
        pytest.fail("the block was entered")


def test_without_stock_the_block_is_not_entered(peer: Peer, client: Any, make_status: MakeStatus) -> None:
    peer.script = [make_status(StatusCode.FAILED_PRECONDITION, "INSUFFICIENT_STOCK")]
    entered = False
    with pytest.raises(InsufficientStock), client.hold("teapot", "o-1", 2):
        entered = True
    assert not entered
    assert peer.rpcs() == ["ReserveStock"]


def test_a_release_that_fails_is_logged_and_hides_nothing(
    peer: Peer, client: Any, make_status: MakeStatus, caplog: pytest.LogCaptureFixture
) -> None:
    peer.script = [RESERVED, make_status(StatusCode.INTERNAL, "INTERNAL_ERROR")]
    with caplog.at_level(logging.WARNING), pytest.raises(CardDeclinedError), client.hold("teapot", "o-1", 2):
        raise CardDeclinedError
    [record] = caplog.records
    assert record.name == "inventory_client"
    assert "could not release reservation r-1" in record.getMessage()


def test_a_hold_that_expired_under_the_block_is_nothing_to_log(
    peer: Peer, client: Any, make_status: MakeStatus, caplog: pytest.LogCaptureFixture
) -> None:
    gone = make_status(StatusCode.FAILED_PRECONDITION, "RESERVATION_ALREADY_RELEASED")
    peer.script = [RESERVED, gone, gone]
    with pytest.raises(ReservationAlreadyReleased), client.hold("teapot", "o-1", 2) as hold:
        hold.deduct()
    assert peer.rpcs() == ["ReserveStock", "DeductReservation", "ReleaseReservation"]
    assert caplog.records == []


def test_a_deduct_of_unknown_outcome_is_repeated_as_the_same_request(peer: Peer, client: Any) -> None:
    peer.script = [RESERVED, *[StatusCode.UNAVAILABLE] * 4, DEDUCTED]
    with client.hold("teapot", "o-1", 2) as hold:
        with pytest.raises(ServiceUnavailable):
            hold.deduct()
        hold.deduct()
    assert len({seen.request.request_id for seen in peer.seen if seen.rpc == "DeductReservation"}) == 1


GONE = "RESERVATION_ALREADY_RELEASED"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (StatusCode.UNAVAILABLE, ""),
        (StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE"),
        (StatusCode.DEADLINE_EXCEEDED, ""),
        (StatusCode.CANCELLED, ""),
        (StatusCode.INTERNAL, "INTERNAL_ERROR"),
        (StatusCode.UNKNOWN, ""),
    ],
)
def test_a_block_that_fails_by_a_deduct_of_unknown_outcome_keeps_its_hold_and_says_how_to_go_on(
    code: StatusCode,
    reason: str,
    peer: Peer,
    client: Any,
    make_status: MakeStatus,
    caplog: pytest.LogCaptureFixture,
) -> None:
    peer.script = [RESERVED, *[make_status(code, reason)] * 4]
    with pytest.raises(InventoryError) as raised, client.hold("teapot", "o-1", 2) as hold:
        hold.deduct()
    assert raised.value.outcome_unknown
    assert set(peer.rpcs()) == {"ReserveStock", "DeductReservation"}
    [record] = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "reservation r-1 is kept" in record.getMessage()
    assert f"request id {peer.seen[1].request.request_id}" in record.getMessage()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (StatusCode.FAILED_PRECONDITION, "INVALID_STOCK_STATE"),
        (StatusCode.NOT_FOUND, "RESERVATION_NOT_FOUND"),
        (StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED"),
        (StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"),
        (StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED"),
        (StatusCode.FAILED_PRECONDITION, "NEWER_THAN_THIS_CLIENT"),
    ],
)
def test_a_block_that_fails_by_a_deduct_that_was_refused_gives_its_hold_back(
    code: StatusCode, reason: str, peer: Peer, client: Any, make_status: MakeStatus
) -> None:
    attempts = 4 if reason == "OVERLOADED" else 1
    peer.script = [RESERVED, *[make_status(code, reason)] * attempts, RELEASED]
    with pytest.raises(InventoryError) as raised, client.hold("teapot", "o-1", 2) as hold:
        hold.deduct()
    assert not raised.value.outcome_unknown
    assert peer.rpcs() == ["ReserveStock", *["DeductReservation"] * attempts, "ReleaseReservation"]


def test_a_refusal_at_the_door_does_not_tell_what_became_of_an_earlier_attempt(
    peer: Peer, client: Any, make_status: MakeStatus
) -> None:
    denied = make_status(StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
    peer.script = [RESERVED, StatusCode.UNAVAILABLE, denied, denied]
    with pytest.raises(PermissionDenied) as raised, client.hold("teapot", "o-1", 2) as hold:
        deduct_twice(hold)
    assert not raised.value.outcome_unknown  # of this call, which was made once and turned away
    assert peer.rpcs() == ["ReserveStock", *["DeductReservation"] * 3]


def test_a_refusal_of_the_repeated_deduct_tells_that_the_first_one_did_nothing(
    peer: Peer, client: Any, make_status: MakeStatus
) -> None:
    gone = make_status(StatusCode.FAILED_PRECONDITION, GONE)
    peer.script = [RESERVED, *[StatusCode.UNAVAILABLE] * 4, gone]
    with pytest.raises(ReservationAlreadyReleased), client.hold("teapot", "o-1", 2) as hold:
        deduct_twice(hold)
    assert peer.rpcs()[-2:] == ["DeductReservation", "ReleaseReservation"]


def test_a_block_that_is_interrupted_while_it_deducts_keeps_its_hold(
    peer: Peer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    peer.script = [RESERVED, StatusCode.UNAVAILABLE]
    monkeypatch.setattr("inventory_client.client.time.sleep", interrupt)
    with InventoryClient(peer.target) as client:  # noqa: SIM117 - it is closed after the block
        with pytest.raises(KeyboardInterrupt), client.hold("teapot", "o-1", 2) as hold:
            hold.deduct()
    assert peer.rpcs() == ["ReserveStock", "DeductReservation"]
    assert "reservation r-1 is kept" in caplog.text


def test_a_task_that_is_cancelled_while_it_deducts_keeps_its_hold(peer: Peer, caplog: pytest.LogCaptureFixture) -> None:
    answer = threading.Event()

    async def checkout(client: AsyncInventoryClient, inside: asyncio.Event) -> None:
        async with client.hold("teapot", "o-1", 2) as hold:
            peer.called.clear()
            inside.set()
            await hold.deduct()

    async def body() -> None:
        async with AsyncInventoryClient(peer.target) as client:
            inside = asyncio.Event()
            task = asyncio.create_task(checkout(client, inside))
            await inside.wait()
            assert await asyncio.to_thread(peer.called.wait, 10)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    peer.script = [RESERVED, answer]
    asyncio.run(body())
    answer.set()
    assert peer.rpcs() == ["ReserveStock", "DeductReservation"]
    assert "reservation r-1 is kept" in caplog.text


def test_a_cancelled_task_gives_its_hold_back(peer: Peer) -> None:
    async def checkout(client: AsyncInventoryClient, inside: asyncio.Event) -> None:
        async with client.hold("teapot", "o-1", 2):
            inside.set()
            await asyncio.Event().wait()

    async def body() -> None:
        async with AsyncInventoryClient(peer.target) as client:
            inside = asyncio.Event()
            task = asyncio.create_task(checkout(client, inside))
            await inside.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    peer.script = [RESERVED, RELEASED]
    asyncio.run(body())
    assert peer.rpcs() == ["ReserveStock", "ReleaseReservation"]

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest
from grpc import StatusCode

from inventory_client import (
    AsyncInventoryClient,
    InsufficientStock,
    ReservationAlreadyReleased,
    ReservationStatus,
    ServiceUnavailable,
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
    with client.hold("teapot", "o-1", 2, request_id="mine"):
        pass
    assert peer.rpcs() == ["ReserveStock"]
    assert peer.seen[0].request.request_id == "mine"


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

"""Holds of which nobody knows whether they were made, and releases that are interrupted: nothing is left behind."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest
from grpc import StatusCode

from inventory_client import AsyncInventoryClient, InsufficientStock, InventoryClient, ServiceUnavailable, _block
from inventory_client.proto.inventory.v1 import inventory_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.rpc.status_pb2 import Status
    from tests.unit.client.conftest import Peer

    MakeStatus = Callable[..., Status]

LINES = [("teapot", 1), ("cup", 6)]
LOST = [StatusCode.UNAVAILABLE] * 4  # as often as the clients here try
HELD = [pb.Reservation(reservation_id=f"r-{no}", status=pb.RESERVATION_STATUS_RESERVED) for no in (1, 2)]
RESERVED = pb.ReserveStockResponse(reservation=HELD[0])
RELEASED = pb.ReleaseReservationResponse(
    reservation=pb.Reservation(reservation_id="r-1", status=pb.RESERVATION_STATUS_RELEASED)
)


def settled(*outcomes: Status | None) -> pb.BatchSettleReservationsResponse:
    return pb.BatchSettleReservationsResponse(
        outcomes=[pb.ReservationOutcome(error=error) if error else pb.ReservationOutcome() for error in outcomes]
    )


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def lose(client: Any, **how: str) -> None:
    with pytest.raises(ServiceUnavailable), client.hold("teapot", "o-1", 2, **how):
        pytest.fail("the block was entered")


def test_a_hold_that_may_have_been_made_is_found_and_given_back(
    peer: Peer, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    peer.script = [
        *LOST,
        RESERVED,
        pb.BatchSettleReservationsResponse(outcomes=[pb.ReservationOutcome(reservation=HELD[0])]),
    ]
    lose(client)
    assert peer.rpcs() == [*["ReserveStock"] * 5, "BatchSettleReservations"]
    assert len({seen.request.request_id for seen in peer.seen[:5]}) == 1
    [item] = peer.seen[5].request.items
    assert (item.reservation_id, item.action) == ("r-1", pb.SETTLEMENT_ACTION_RELEASE)
    assert warnings(caplog) == []


def test_of_an_order_that_may_have_been_made_its_own_holds_are_given_back_and_no_others(
    peer: Peer, client: Any
) -> None:
    peer.script = [*LOST, pb.ReserveOrderResponse(reservations=HELD)]
    with pytest.raises(ServiceUnavailable), client.hold_order("o-1", iter(LINES)):
        pytest.fail("the block was entered")
    assert peer.rpcs() == [*["ReserveOrder"] * 5, "BatchSettleReservations"]
    assert peer.seen[0].request == peer.seen[4].request
    assert [item.reservation_id for item in peer.seen[5].request.items] == ["r-1", "r-2"]


def test_a_hold_under_a_request_id_of_the_caller_is_left_to_its_repetition(peer: Peer, client: Any) -> None:
    peer.script = list(LOST)
    lose(client, request_id="mine")
    assert peer.rpcs() == ["ReserveStock"] * 4


def test_what_the_service_refused_is_not_looked_for(peer: Peer, client: Any, make_status: MakeStatus) -> None:
    refusal = make_status(StatusCode.FAILED_PRECONDITION, "INSUFFICIENT_STOCK")
    peer.script = [refusal]
    with pytest.raises(InsufficientStock), client.hold("teapot", "o-1", 2):
        pytest.fail("the block was entered")
    with pytest.raises(TypeError), client.hold("teapot", "o-1", "two"):
        pytest.fail("the block was entered")
    assert peer.rpcs() == ["ReserveStock"]


def test_where_nothing_was_held_there_is_nothing_to_tell(
    peer: Peer, client: Any, make_status: MakeStatus, caplog: pytest.LogCaptureFixture
) -> None:
    peer.script = [*LOST, make_status(StatusCode.FAILED_PRECONDITION, "INSUFFICIENT_STOCK")]
    lose(client)
    gone = make_status(StatusCode.FAILED_PRECONDITION, "RESERVATION_ALREADY_RELEASED")
    peer.script = [*LOST, RESERVED, settled(gone)]
    lose(client)
    assert warnings(caplog) == []


@pytest.mark.parametrize("broken", ["reserve", "release"])
def test_what_cannot_be_found_or_given_back_is_told_with_its_request_id(
    broken: str, peer: Peer, client: Any, make_status: MakeStatus, caplog: pytest.LogCaptureFixture
) -> None:
    trouble = make_status(StatusCode.INTERNAL, "INTERNAL_ERROR")
    peer.script = [*LOST, *([trouble] if broken == "reserve" else [RESERVED, settled(trouble)])]
    lose(client)
    [told] = warnings(caplog)
    assert f"request id {peer.seen[0].request.request_id}" in told


def test_a_reserve_that_is_interrupted_is_undone(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    peer.script = [StatusCode.UNAVAILABLE, RESERVED]
    monkeypatch.setattr("inventory_client.client.time.sleep", interrupt)
    with InventoryClient(peer.target) as client, pytest.raises(KeyboardInterrupt), client.hold("teapot", "o-1", 2):
        pytest.fail("the block was entered")
    assert peer.rpcs() == ["ReserveStock", "ReserveStock", "BatchSettleReservations"]


async def checkout(client: AsyncInventoryClient, inside: asyncio.Event) -> None:
    async with client.hold("teapot", "o-1", 2):
        inside.set()
        await asyncio.Event().wait()


async def called(peer: Peer) -> None:
    assert await asyncio.to_thread(peer.called.wait, 10)
    peer.called.clear()


async def cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_task_that_is_cancelled_while_it_reserves_leaves_nothing(peer: Peer) -> None:
    answer = threading.Event()

    async def body() -> None:
        async with AsyncInventoryClient(peer.target) as client:
            task = asyncio.create_task(checkout(client, asyncio.Event()))
            await called(peer)
            await cancelled(task)

    peer.script = [answer, RESERVED]
    asyncio.run(body())
    answer.set()
    assert peer.rpcs() == ["ReserveStock", "ReserveStock", "BatchSettleReservations"]


async def cancelled_in_its_release(client: AsyncInventoryClient, peer: Peer) -> None:
    """Cancel a task in its block, and once more while its release is under way."""
    inside = asyncio.Event()
    task = asyncio.create_task(checkout(client, inside))
    await inside.wait()
    peer.called.clear()
    task.cancel()
    await called(peer)
    await cancelled(task)


def test_a_release_goes_on_when_its_task_is_cancelled_again(peer: Peer, caplog: pytest.LogCaptureFixture) -> None:
    answer = threading.Event()

    async def body() -> None:
        async with AsyncInventoryClient(peer.target) as client:
            await cancelled_in_its_release(client, peer)
            [release] = _block._going_on
            answer.set()
            await release

    peer.script = [RESERVED, answer]
    asyncio.run(body())
    assert peer.rpcs() == ["ReserveStock", "ReleaseReservation"]
    assert warnings(caplog) == []


def test_a_release_that_its_loop_does_not_wait_for_is_told(peer: Peer, caplog: pytest.LogCaptureFixture) -> None:
    answer = threading.Event()

    async def body() -> None:
        client = AsyncInventoryClient(peer.target)
        await cancelled_in_its_release(client, peer)

    peer.script = [RESERVED, answer]
    asyncio.run(body())
    answer.set()
    [told] = warnings(caplog)
    assert "could not release reservation r-1" in told

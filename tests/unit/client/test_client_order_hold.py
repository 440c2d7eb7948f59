from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
from grpc import StatusCode

from inventory_client import ReservationStatus, ServiceUnavailable
from inventory_client.proto.inventory.v1 import inventory_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.rpc.status_pb2 import Status
    from tests.unit.client.conftest import Peer

    MakeStatus = Callable[..., Status]

ORDERED = "01890a5d-ac96-774b-bcce-b302099a8057"
LINES = [("teapot", 1), ("cup", 6)]


class CardDeclinedError(Exception):
    pass


def holds(status: pb.ReservationStatus.ValueType) -> list[pb.Reservation]:
    return [pb.Reservation(reservation_id=f"r-{no}", order_id="o-1", status=status) for no in range(2)]


RESERVED = pb.ReserveOrderResponse(reservations=holds(pb.RESERVATION_STATUS_RESERVED))
DEDUCTED = pb.DeductOrderResponse(reservations=holds(pb.RESERVATION_STATUS_DEDUCTED))
RELEASED = pb.ReleaseOrderResponse(reservations=holds(pb.RESERVATION_STATUS_RELEASED))


def fail_after(step: Callable[[], object]) -> None:
    step()
    raise CardDeclinedError


def test_a_block_that_fails_gives_its_order_back(peer: Peer, client: Any) -> None:
    peer.script = [RESERVED, RELEASED]
    with pytest.raises(CardDeclinedError), client.hold_order("o-1", LINES):
        raise CardDeclinedError
    assert peer.rpcs() == ["ReserveOrder", "ReleaseOrder"]
    assert peer.seen[1].request.order_id == "o-1"


def test_a_block_that_fails_after_it_ended_its_order_ends_nothing(peer: Peer, client: Any) -> None:
    peer.script = [RESERVED, DEDUCTED, RESERVED, RELEASED]
    with pytest.raises(CardDeclinedError), client.hold_order("o-1", LINES) as hold:
        fail_after(hold.deduct)
    assert {held.status for held in hold.reservations} == {ReservationStatus.DEDUCTED}
    with pytest.raises(CardDeclinedError), client.hold_order("o-1", LINES) as hold:
        fail_after(hold.release)
    assert peer.rpcs() == ["ReserveOrder", "DeductOrder", "ReserveOrder", "ReleaseOrder"]


def test_an_order_of_which_nobody_knows_whether_it_was_sold_is_kept(
    peer: Peer, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    peer.script = [RESERVED, *[StatusCode.UNAVAILABLE] * 4, DEDUCTED]
    with pytest.raises(ServiceUnavailable), client.hold_order("o-1", LINES) as hold:
        hold.deduct()
    assert peer.rpcs() == ["ReserveOrder", *["DeductOrder"] * 4]
    [record] = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "order o-1 is kept" in record.getMessage()
    assert f"request id {peer.seen[1].request.request_id}" in record.getMessage()
    hold.deduct()
    assert len({seen.request.request_id for seen in peer.seen[1:]}) == 1


def test_a_release_that_fails_is_logged_and_hides_nothing(
    peer: Peer, client: Any, make_status: MakeStatus, caplog: pytest.LogCaptureFixture
) -> None:
    peer.script = [RESERVED, make_status(StatusCode.INTERNAL, "INTERNAL_ERROR")]
    with pytest.raises(CardDeclinedError), client.hold_order("o-1", LINES):
        raise CardDeclinedError
    assert "could not release order o-1" in caplog.text


def test_an_order_that_expired_under_the_block_is_nothing_to_log(
    peer: Peer, client: Any, make_status: MakeStatus, caplog: pytest.LogCaptureFixture
) -> None:
    peer.script = [RESERVED, make_status(StatusCode.FAILED_PRECONDITION, "RESERVATION_ALREADY_RELEASED")]
    with pytest.raises(CardDeclinedError), client.hold_order("o-1", LINES):
        raise CardDeclinedError
    assert caplog.records == []


def test_whoever_repeats_the_reserve_of_an_order_repeats_its_deduct_and_release(peer: Peer, client: Any) -> None:
    read = [pb.GetReservationResponse(reservation=held) for held in RESERVED.reservations]
    peer.script = [RESERVED, *read, RELEASED, DEDUCTED] * 2 + [RESERVED, RELEASED, DEDUCTED]
    for request_id in (ORDERED, ORDERED, None):
        with client.hold_order("o-1", LINES, request_id=request_id) as hold:
            hold.release()
            hold.deduct()
    for rpc in ("ReleaseOrder", "DeductOrder"):
        first, second, third = [seen.request.request_id for seen in peer.seen if seen.rpc == rpc]
        assert first == second != third
    assert len({seen.request.request_id for seen in peer.seen if hasattr(seen.request, "request_id")}) == 6


def test_an_order_under_a_request_id_of_the_caller_is_read_hold_by_hold_before_the_block(
    peer: Peer, client: Any
) -> None:
    read = [pb.GetReservationResponse(reservation=held) for held in RESERVED.reservations]
    peer.script = [RESERVED, *read]
    with client.hold_order("o-1", LINES, request_id="mine") as hold:
        assert [held.reservation_id for held in hold.reservations] == ["r-0", "r-1"]
    assert [seen.request.reservation_id for seen in peer.seen[1:]] == ["r-0", "r-1"]

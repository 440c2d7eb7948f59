"""Whole orders, bulk calls, corrections and listings, through both clients."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.any_pb2 import Any as PackedAny
from grpc import StatusCode

from inventory_client import (
    AdjustmentReason,
    InsufficientStock,
    LatePolicy,
    MovementKind,
    OrderLine,
    ProductNotFound,
    Reservation,
    ReservationStatus,
    ReserveItem,
    SettleItem,
    SettlementAction,
    StockShortage,
    VersionMismatch,
)
from inventory_client.proto.inventory.v1 import inventory_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.rpc.status_pb2 import Status
    from tests.unit.client.conftest import Peer

    MakeStatus = Callable[..., Status]

HELD = [pb.Reservation(reservation_id=name, status=pb.RESERVATION_STATUS_RESERVED) for name in ("r-1", "r-2")]
MINUTE = timedelta(minutes=1)


def ids(reservations: Any) -> list[str]:
    return [each.reservation_id for each in reservations]


def with_shortages(status: Status, *shortages: pb.StockShortage) -> Status:
    for shortage in shortages:
        packed = PackedAny()
        packed.Pack(shortage)
        status.details.append(packed)
    return status


def test_an_order_is_held_ended_and_extended(peer: Peer, client: Any) -> None:
    peer.script = [
        pb.ReserveOrderResponse(reservations=HELD),
        pb.DeductOrderResponse(reservations=HELD),
        pb.ReleaseOrderResponse(reservations=HELD),
        pb.ExtendReservationResponse(reservation=HELD[0]),
    ]
    lines = [OrderLine("teapot", 2), ("cup", 6)]
    assert ids(client.reserve_order("o-1", lines, ttl=MINUTE, wait=MINUTE / 4, request_id="1")) == ["r-1", "r-2"]
    assert ids(client.deduct_order("o-1", request_id="2")) == ["r-1", "r-2"]
    assert ids(client.release_order("o-1", request_id="3")) == ["r-1", "r-2"]
    assert client.extend_reservation("r-1", MINUTE, request_id="4").reservation_id == "r-1"

    expected = pb.ReserveOrderRequest(order_id="o-1", request_id="1")
    expected.lines.add(product_id="teapot", quantity=2)
    expected.lines.add(product_id="cup", quantity=6)
    expected.ttl.FromTimedelta(MINUTE)
    expected.wait.FromTimedelta(MINUTE / 4)
    extend = pb.ExtendReservationRequest(reservation_id="r-1", request_id="4")
    extend.ttl.FromTimedelta(MINUTE)
    assert [seen.request for seen in peer.seen] == [
        expected,
        pb.DeductOrderRequest(order_id="o-1", request_id="2", late_policy=pb.LATE_POLICY_STRICT),
        pb.ReleaseOrderRequest(order_id="o-1", request_id="3"),
        extend,
    ]


def test_lines_of_any_iterable_survive_the_retry(peer: Peer, client: Any) -> None:
    peer.script = [StatusCode.UNAVAILABLE]
    client.reserve_order("o-1", ((name, 1) for name in ("teapot", "cup")))
    assert [len(seen.request.lines) for seen in peer.seen] == [2, 2]


def test_a_refused_order_names_every_short_and_unknown_line(peer: Peer, client: Any, make_status: MakeStatus) -> None:
    refusal = make_status(StatusCode.FAILED_PRECONDITION, "INSUFFICIENT_STOCK")
    shortages = [
        pb.StockShortage(product_id="teapot", requested=3, available=0),
        pb.StockShortage(product_id="unicorn", requested=1),
    ]
    peer.script = [
        with_shortages(refusal, *shortages),
        with_shortages(make_status(StatusCode.NOT_FOUND, "PRODUCT_NOT_FOUND"), shortages[1]),
    ]
    with pytest.raises(InsufficientStock) as short:
        client.reserve_order("o-1", [("teapot", 3), ("unicorn", 1)])
    assert short.value.lines == (StockShortage("teapot", 3, 0), StockShortage("unicorn", 1, None))
    with pytest.raises(ProductNotFound) as unknown:
        client.reserve_order("o-1", [("unicorn", 1)])
    assert unknown.value.lines == (StockShortage("unicorn", 1, None),)


def test_where_one_product_was_asked_for_it_is_the_short_line(peer: Peer, client: Any, make_status: MakeStatus) -> None:
    said = {"product_id": "teapot", "requested": "3", "available": "2"}
    peer.script = [make_status(StatusCode.FAILED_PRECONDITION, "INSUFFICIENT_STOCK", metadata=said)]
    with pytest.raises(InsufficientStock) as raised:
        client.reserve_stock("teapot", "o-1", 3)
    assert raised.value.lines == (StockShortage("teapot", 3, 2),)


def test_the_wait_is_time_on_top_for_the_call(peer: Peer, client: Any) -> None:
    client.reserve_stock("teapot", "o-1", 1, wait=timedelta(seconds=20))
    client.reserve_stock("teapot", "o-1", 1)
    assert peer.seen[0].request.wait.seconds == 20
    assert 15 < peer.seen[0].seconds_left - peer.seen[1].seconds_left < 25
    assert not peer.seen[1].request.HasField("wait")


def test_a_late_payment_may_ask_for_the_units_again(peer: Peer, client: Any) -> None:
    client.deduct_reservation("r-1", late_policy=LatePolicy.REACQUIRE)
    assert peer.seen[0].request.late_policy == pb.LATE_POLICY_REACQUIRE


def test_a_batch_answers_each_item_in_order_with_a_hold_or_an_error(
    peer: Peer, client: Any, make_status: MakeStatus
) -> None:
    refusal = make_status(
        StatusCode.FAILED_PRECONDITION, "INSUFFICIENT_STOCK", metadata={"product_id": "cup", "available": "1"}
    )
    outcomes = [pb.ReservationOutcome(reservation=HELD[0]), pb.ReservationOutcome(error=refusal)]
    peer.script = [
        pb.BatchReserveStockResponse(outcomes=outcomes),
        pb.BatchSettleReservationsResponse(outcomes=outcomes),
    ]
    items = [ReserveItem("teapot", "o-1", 1, ttl=MINUTE), ReserveItem("cup", "o-2", 5, request_id="mine")]
    held, refused = client.batch_reserve_stock(items)
    assert isinstance(held, Reservation)
    assert isinstance(refused, InsufficientStock)
    assert (refused.product_id, refused.available, refused.request_id) == ("cup", 1, "mine")

    ends = [
        SettleItem("r-1", SettlementAction.DEDUCT, LatePolicy.REACQUIRE, request_id="1"),
        SettleItem("r-2", SettlementAction.RELEASE, request_id="2"),
    ]
    _, refused = client.batch_settle_reservations(ends)
    assert refused.request_id == "2"

    first, second = peer.seen[0].request.items
    assert (first.product_id, first.order_id, first.quantity, first.ttl.seconds) == ("teapot", "o-1", 1, 60)
    assert (second.request_id, second.HasField("ttl")) == ("mine", False)
    assert list(peer.seen[1].request.items) == [
        pb.Settlement(
            reservation_id="r-1",
            action=pb.SETTLEMENT_ACTION_DEDUCT,
            late_policy=pb.LATE_POLICY_REACQUIRE,
            request_id="1",
        ),
        pb.Settlement(
            reservation_id="r-2",
            action=pb.SETTLEMENT_ACTION_RELEASE,
            late_policy=pb.LATE_POLICY_STRICT,
            request_id="2",
        ),
    ]


def test_each_item_of_a_batch_keeps_a_request_id_of_its_own_over_retries(peer: Peer, client: Any) -> None:
    peer.script = [
        StatusCode.UNAVAILABLE,
        pb.BatchReserveStockResponse(outcomes=[pb.ReservationOutcome(reservation=held) for held in HELD]),
    ]
    client.batch_reserve_stock(ReserveItem(name, "o-1", 1) for name in ("teapot", "cup"))
    first, second = ([item.request_id for item in seen.request.items] for seen in peer.seen)
    assert first == second
    assert len(set(first)) == 2
    assert [uuid.UUID(each).version for each in first] == [7, 7]


def test_an_answer_that_lacks_outcomes_is_not_taken_for_one_that_has_them(peer: Peer, client: Any) -> None:
    peer.script = [pb.BatchReserveStockResponse(outcomes=[pb.ReservationOutcome(reservation=HELD[0])])]
    with pytest.raises(ValueError, match="shorter"):
        client.batch_reserve_stock([ReserveItem("teapot", "o-1", 1), ReserveItem("cup", "o-1", 1)])


def test_balances_are_read_in_bulk(peer: Peer, client: Any, make_status: MakeStatus) -> None:
    unknown = make_status(StatusCode.NOT_FOUND, "PRODUCT_NOT_FOUND", metadata={"product_id": "unicorn"})
    peer.script = [
        pb.BatchGetStockResponse(
            outcomes=[pb.StockOutcome(stock=pb.Stock(product_id="teapot")), pb.StockOutcome(error=unknown)]
        )
    ]
    teapot, unicorn = client.batch_get_stock(["teapot", "unicorn"])
    assert teapot.product_id == "teapot"
    assert isinstance(unicorn, ProductNotFound)
    assert peer.seen[0].request.product_ids == ["teapot", "unicorn"]


def test_a_correction_says_why_and_at_which_version(peer: Peer, client: Any, make_status: MakeStatus) -> None:
    mismatch = make_status(StatusCode.ABORTED, "VERSION_MISMATCH", metadata={"version": "8"})
    peer.script = [pb.AdjustStockResponse(stock=pb.Stock(version=7)), mismatch]
    assert client.adjust_stock("teapot", -2, AdjustmentReason.DAMAGE, request_id="1").version == 7
    with pytest.raises(VersionMismatch) as raised:
        client.adjust_stock("teapot", 3, AdjustmentReason.COUNT, expected_version=0, request_id="2")
    assert raised.value.version == 8
    assert [seen.request for seen in peer.seen] == [
        pb.AdjustStockRequest(product_id="teapot", delta=-2, reason=pb.ADJUSTMENT_REASON_DAMAGE, request_id="1"),
        pb.AdjustStockRequest(
            product_id="teapot", delta=3, reason=pb.ADJUSTMENT_REASON_COUNT, expected_version=0, request_id="2"
        ),
    ]


def test_a_listing_goes_through_all_pages_and_fetches_each_when_it_is_due(peer: Peer, client: Any) -> None:
    pages = [
        pb.ListStockResponse(stock=[pb.Stock(product_id="a"), pb.Stock(product_id="b")], next_page_token="t-1"),
        pb.ListStockResponse(next_page_token="t-2"),
        pb.ListStockResponse(stock=[pb.Stock(product_id="c")]),
    ]
    peer.script = [*pages]
    listing = client.list_stock(max_available=0, page_size=2)
    assert peer.seen == []
    items = iter(listing)
    assert next(items).product_id == "a"
    assert len(peer.seen) == 1
    assert [each.product_id for each in items] == ["b", "c"]
    assert [seen.request for seen in peer.seen] == [
        pb.ListStockRequest(max_available=0, page_size=2, page_token=token) for token in ("", "t-1", "t-2")
    ]
    peer.script = [*pages]
    assert [each.product_id for each in listing] == ["a", "b", "c"]


def test_one_page_can_be_had_by_itself(peer: Peer, client: Any) -> None:
    peer.script = [pb.ListMovementsResponse(movements=[pb.Movement(version=3)], next_page_token="t-2")]
    page = client.list_movements("teapot", page_size=1).page("t-1")
    assert ([each.version for each in page], page.next_page_token) == ([3], "t-2")
    assert peer.seen[0].request == pb.ListMovementsRequest(product_id="teapot", page_size=1, page_token="t-1")


def test_holds_are_listed_by_order_or_product_and_status(peer: Peer, client: Any) -> None:
    peer.script = [pb.ListReservationsResponse(reservations=HELD), pb.ListReservationsResponse()]
    assert ids(client.list_reservations(order_id="o-1")) == ["r-1", "r-2"]
    assert ids(client.list_reservations(product_id="teapot", status=ReservationStatus.RELEASED)) == []
    assert [seen.request for seen in peer.seen] == [
        pb.ListReservationsRequest(order_id="o-1"),
        pb.ListReservationsRequest(product_id="teapot", status=pb.RESERVATION_STATUS_RELEASED),
    ]


def test_an_explanation_is_read_whole(peer: Peer, client: Any) -> None:
    noon = datetime(2027, 3, 4, 12, tzinfo=UTC)
    peer.script = [
        pb.ExplainStockResponse(
            stock=pb.Stock(product_id="teapot", available_quantity=3),
            on_hand_quantity=5,
            added_quantity=9,
            removed_quantity=1,
            deducted_quantity=3,
            holds=[pb.HoldSummary(status=pb.RESERVATION_STATUS_RESERVED, count=1, quantity=2)],
            movements=[pb.Movement(kind=pb.MOVEMENT_KIND_RESERVE, version=4, order_id="o-1")],
            discrepancies=["the ledger says 3"],
        )
    ]
    why = client.explain_stock("teapot", at=noon, movements_max=1)
    assert (why.stock.available_quantity, why.on_hand_quantity, why.added_quantity) == (3, 5, 9)
    assert (why.removed_quantity, why.deducted_quantity) == (1, 3)
    assert (why.holds[0].status, why.holds[0].release_reason) == (ReservationStatus.RESERVED, None)
    assert (why.holds[0].count, why.holds[0].quantity) == (1, 2)
    [movement] = why.movements
    assert (movement.kind, movement.order_id, movement.reservation_id) == (MovementKind.RESERVE, "o-1", None)
    assert (why.consistent, why.discrepancies) == (False, ("the ledger says 3",))
    asked = peer.seen[0].request
    assert (asked.at.ToDatetime(UTC), asked.movements_max) == (noon, 1)


def test_a_moment_without_a_time_zone_is_refused(peer: Peer, client: Any) -> None:
    with pytest.raises(ValueError, match="time zone"):
        client.explain_stock("teapot", at=datetime(2027, 3, 4))  # noqa: DTZ001 - that is the mistake
    assert peer.seen == []


@pytest.mark.parametrize("wrong", ["DAMAGED", "", "UNSPECIFIED"])
def test_a_reason_that_there_is_not_is_refused_before_anything_is_sent(peer: Peer, client: Any, wrong: Any) -> None:
    with pytest.raises(ValueError, match="AdjustmentReason"):
        client.adjust_stock("teapot", 1, wrong)
    assert peer.seen == []


@pytest.mark.parametrize("empty", ["", None])
def test_an_item_without_a_request_id_has_one_for_all_its_attempts(empty: Any) -> None:
    reserve = ReserveItem("teapot", "o-1", 1, request_id=empty)
    settle = SettleItem("hold", SettlementAction.DEDUCT, request_id=empty)
    assert len({uuid.UUID(str(item.request_id)) for item in (reserve, settle)}) == 2
    assert ReserveItem("teapot", "o-1", 1, request_id="mine").request_id == "mine"


def test_one_product_id_is_no_list_of_them(peer: Peer, client: Any) -> None:
    for call in (client.batch_get_stock, client.watch_stock):
        with pytest.raises(TypeError, match=re.escape("must be a list of product ids, not one of them: ['teapot']")):
            call("teapot")
    assert peer.seen == []

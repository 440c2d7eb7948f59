"""What a field of a request may be, at its very edges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given, settings
from hypothesis import strategies as st

from inventory_client.proto.inventory.v1 import inventory_pb2 as pb
from inventory_server.domain import Action
from inventory_server.errors import InvalidProductId, InvalidQuantity, InvalidReservationId, ValidationError
from inventory_server.rpc.wire import orders, requests
from inventory_server.rpc.wire.checks import Checks

if TYPE_CHECKING:
    from collections.abc import Callable

unhurried = settings(deadline=None)  # however busy the machine is
INT64 = st.integers(-(2**63), 2**63 - 1)
LINES = st.lists(st.tuples(st.text(max_size=3), INT64 | st.just(1)), max_size=3)
INT32 = st.integers(-(2**31), 2**31 - 1)
HOLD = "01980c6e-7f4c-7c3e-9d2a-5b8f6a1e0c47"


def verdict(check: Callable[[Checks], object]) -> type[ValidationError] | None:
    checks = Checks()
    check(checks)
    try:
        checks.finish()
    except ValidationError as error:
        return type(error)
    return None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("teapot", None),
        ("p" * 255, None),
        ("\N{TEAPOT}" * 255, None),
        (" teapot ", None),
        ("tea\N{NO-BREAK SPACE}pot", None),
        ("\N{RIGHT-TO-LEFT MARK}teapot", None),
        ("", InvalidProductId),
        (" \t\N{NO-BREAK SPACE}", InvalidProductId),
        ("\N{ZERO WIDTH SPACE}", InvalidProductId),
        ("\N{ZERO WIDTH NO-BREAK SPACE}\N{SOFT HYPHEN} \N{WORD JOINER}", InvalidProductId),
        ("\N{HANGUL FILLER}\N{BRAILLE PATTERN BLANK}", InvalidProductId),
        ("\N{VARIATION SELECTOR-16}\N{TAG SPACE}", InvalidProductId),
        ("\N{LINE SEPARATOR}", InvalidProductId),
        ("\N{ZERO WIDTH SPACE}t", None),
        ("\N{HEAVY BLACK HEART}\N{VARIATION SELECTOR-16}", None),
        ("tea\N{LINE SEPARATOR}pot", ValidationError),
        ("tea\N{PARAGRAPH SEPARATOR}pot", ValidationError),
        ("p" * 256, ValidationError),
        ("tea\npot", ValidationError),
        ("tea\0pot", ValidationError),
        ("tea\x7fpot", ValidationError),
        ("tea\x85pot", ValidationError),
    ],
)
def test_ids_are_texts_that_people_can_read(text: str, expected: type[ValidationError] | None) -> None:
    assert verdict(lambda checks: checks.identifier("product_id", text, "INVALID_PRODUCT_ID")) is expected


@pytest.mark.parametrize(
    ("quantity", "least", "expected"),
    [
        (1, 1, None),
        (10**12, 1, None),
        (0, 0, None),
        (0, 1, InvalidQuantity),
        (-1, 0, InvalidQuantity),
        (10**12 + 1, 1, InvalidQuantity),
    ],
)
def test_quantities_have_two_ends(quantity: int, least: int, expected: type[ValidationError] | None) -> None:
    assert verdict(lambda checks: checks.quantity(quantity, least)) is expected


@unhurried
@given(INT64, INT32)
def test_a_ttl_is_one_second_to_a_day_to_the_nanosecond(seconds: int, nanos: int) -> None:
    right = 0 <= nanos < 10**9 <= seconds * 10**9 + nanos <= 86400 * 10**9
    assert (verdict(lambda checks: checks.ttl(Duration(seconds=seconds, nanos=nanos))) is None) == right


@pytest.mark.parametrize(
    ("seconds", "nanos", "ttl_us"),
    [(1, 0, 1_000_000), (86400, 0, 86_400_000_000), (86399, 999_999_999, 86_399_999_999)],
)
def test_a_ttl_is_cut_to_microseconds(seconds: int, nanos: int, ttl_us: int) -> None:
    checks = Checks()
    assert checks.ttl(Duration(seconds=seconds, nanos=nanos)) == ttl_us
    checks.finish()


@pytest.mark.parametrize(
    ("seconds", "nanos"), [(0, 999_999_999), (86400, 1), (86401, 0), (-1, 0), (2**63 - 1, 999_999_999)]
)
def test_a_ttl_just_beyond_its_ends_is_refused(seconds: int, nanos: int) -> None:
    assert verdict(lambda checks: checks.ttl(Duration(seconds=seconds, nanos=nanos))) is ValidationError


@pytest.mark.parametrize(
    ("seconds", "nanos", "right"),
    [(0, 0, True), (30, 0, True), (29, 999_999_999, True), (30, 1, False), (-1, 0, False), (0, -1, False)],
)
def test_a_wait_is_up_to_thirty_seconds(seconds: int, nanos: int, right: bool) -> None:
    assert (verdict(lambda checks: checks.wait(Duration(seconds=seconds, nanos=nanos))) is None) == right


@pytest.mark.parametrize("nanos", [-(2**31), -500_000_000, -1, 1_000_000_000, 2**31 - 1])
def test_nanoseconds_of_more_than_a_second_or_of_another_sign_are_refused(nanos: int) -> None:
    duration = Duration(seconds=5, nanos=nanos)
    assert verdict(lambda checks: checks.ttl(duration)) is ValidationError
    assert verdict(lambda checks: checks.wait(duration)) is ValidationError


@pytest.mark.parametrize("text", [HOLD.upper(), HOLD, "00000000-0000-0000-0000-000000000000"])
def test_uuids_are_told_apart_whatever_their_case(text: str) -> None:
    checks = Checks()
    assert checks.request_id(text) == checks.reservation_id(text) == text.lower()
    checks.finish()


@pytest.mark.parametrize("text", ["7", HOLD + " ", HOLD.replace("-", ""), f"{{{HOLD}}}", HOLD[:-1] + "g", HOLD + "\n"])
def test_what_is_no_uuid_is_refused(text: str) -> None:
    assert verdict(lambda checks: checks.request_id(text)) is ValidationError
    assert verdict(lambda checks: checks.reservation_id(text)) is ValidationError
    assert verdict(lambda checks: checks.reservation_id("")) is InvalidReservationId


def test_a_request_id_is_made_up_where_there_is_none() -> None:
    checks = Checks()
    made = {checks.request_id("") for _ in range(100)}
    assert len(made) == 100
    assert {UUID(each).version for each in made} == {7}


@pytest.mark.parametrize(("count", "right"), [(0, False), (1, True), (1000, True), (1001, False)])
def test_a_bulk_call_has_one_to_a_thousand_items(count: int, right: bool) -> None:
    try:
        orders.check_count("items", count)
    except ValidationError:
        assert not right
    else:
        assert right


def test_lines_of_an_order_keep_their_order_and_share_its_ttl() -> None:
    lines = [pb.OrderLine(product_id="teapot", quantity=1), pb.OrderLine(product_id="kettle", quantity=2)]
    message = pb.ReserveOrderRequest(order_id="order", lines=lines, request_id=HOLD.upper())
    order = orders.parse_order(message, 7_000_000)
    assert order.request_id == HOLD
    assert [(line.product_id, line.quantity, line.ttl_us, line.ttl_given) for line in order.lines] == [
        ("teapot", 1, 7_000_000, False),
        ("kettle", 2, 7_000_000, False),
    ]
    # The server's default is no part of the request: after a change of it a replay is still the same request.
    assert orders.parse_order(message, 8_000_000).lines[0].reservation_id == order.lines[0].reservation_id
    message.ttl.seconds = 7
    assert orders.parse_order(message, 7_000_000).lines[0].reservation_id != order.lines[0].reservation_id


@unhurried
@given(
    st.lists(st.tuples(st.text(max_size=3), INT64 | st.just(1)), max_size=3) | st.just([("teapot", 1)] * 101),
    st.text(max_size=3),
)
def test_an_order_is_parsed_or_refused_whatever_is_in_it(lines: list[tuple[str, int]], order_id: str) -> None:
    message = pb.ReserveOrderRequest(order_id=order_id)
    message.lines.extend(pb.OrderLine(product_id=product_id, quantity=quantity) for product_id, quantity in lines)
    try:
        order = orders.parse_order(message, 1_000_000)
    except ValidationError:
        names = {order_id, *(product_id for product_id, _ in lines)}
        fine = not any(not name or name.isspace() or not name.isprintable() for name in names)
        assert not (fine and 1 <= len(lines) <= 100 and all(1 <= quantity <= 10**12 for _, quantity in lines))
    else:
        assert [(line.product_id, line.quantity) for line in order.lines] == lines


@unhurried
@given(INT64)
def test_a_delta_is_refused_or_taken_with_its_sign(delta: int) -> None:
    message = pb.AdjustStockRequest(product_id="teapot", delta=delta, reason=pb.ADJUSTMENT_REASON_COUNT)
    try:
        change = requests.parse_adjust(message)
    except InvalidQuantity:
        assert not 1 <= abs(delta) <= 10**12
    else:
        assert (change.delta, change.kind, change.reason, change.expected_version) == (delta, "ADJUST", "COUNT", None)


@pytest.mark.parametrize(
    ("named", "action"),
    [
        ({"action": pb.SETTLEMENT_ACTION_RELEASE}, Action.RELEASE),
        ({"action": pb.SETTLEMENT_ACTION_DEDUCT}, Action.DEDUCT),
        ({"action": pb.SETTLEMENT_ACTION_DEDUCT, "late_policy": pb.LATE_POLICY_STRICT}, Action.DEDUCT),
        ({"action": pb.SETTLEMENT_ACTION_DEDUCT, "late_policy": pb.LATE_POLICY_REACQUIRE}, Action.REACQUIRE),
        ({}, None),
        ({"action": 9}, None),
        ({"action": pb.SETTLEMENT_ACTION_DEDUCT, "late_policy": 9}, None),
    ],
)
def test_a_settlement_says_how_a_hold_ends(named: dict[str, Any], action: Action | None) -> None:
    message = pb.Settlement(reservation_id=HOLD, **named)
    if action is None:
        with pytest.raises(ValidationError):
            orders.parse_settlement(message)
    else:
        assert orders.parse_settlement(message).action is action

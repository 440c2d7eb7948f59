"""Requests that change or read one thing, from the proto to the domain."""

from __future__ import annotations

from inventory_client.proto.inventory.v1 import inventory_pb2 as pb
from inventory_server.domain import Action, Change, Extend, Initialize, Order, Reserve, Settle
from inventory_server.rpc.wire.checks import Checks

_ADJUSTMENTS = {value: name.removeprefix("ADJUSTMENT_REASON_") for name, value in pb.AdjustmentReason.items() if value}
_DEDUCTS: dict[int, Action] = {
    pb.LATE_POLICY_UNSPECIFIED: Action.DEDUCT,
    pb.LATE_POLICY_STRICT: Action.DEDUCT,
    pb.LATE_POLICY_REACQUIRE: Action.REACQUIRE,
}


def parse_initialize(request: pb.InitializeStockRequest) -> Initialize:
    checks = Checks()
    checks.identifier("product_id", request.product_id, "INVALID_PRODUCT_ID")
    if request.HasField("quantity"):
        checks.quantity(request.quantity, least=0)
    else:
        checks.bad("quantity", "is missing", "INVALID_QUANTITY")
    request_id = checks.request_id(request.request_id)
    checks.finish()
    return Initialize(request.product_id, request.quantity, request_id)


def parse_product(request: pb.GetStockRequest) -> str:
    checks = Checks()
    checks.identifier("product_id", request.product_id, "INVALID_PRODUCT_ID")
    checks.finish()
    return request.product_id


def parse_add(request: pb.AddStockRequest) -> Change:
    checks = Checks()
    checks.identifier("product_id", request.product_id, "INVALID_PRODUCT_ID")
    checks.quantity(request.quantity)
    checks.text("reason", request.reason)
    request_id = checks.request_id(request.request_id)
    checks.finish()
    return Change(request.product_id, "ADD", request.quantity, request.reason, None, request_id)


def parse_adjust(request: pb.AdjustStockRequest) -> Change:
    checks = Checks()
    checks.identifier("product_id", request.product_id, "INVALID_PRODUCT_ID")
    checks.delta(request.delta)
    reason = _ADJUSTMENTS.get(request.reason, "")
    if not reason:
        checks.bad("reason", "must be one of " + ", ".join(_ADJUSTMENTS.values()))
    expected = request.expected_version if request.HasField("expected_version") else None
    if expected is not None and expected < 1:
        checks.bad("expected_version", f"must be at least 1, not {expected}")
    request_id = checks.request_id(request.request_id)
    checks.finish()
    return Change(request.product_id, "ADJUST", request.delta, reason, expected, request_id)


def parse_extend(request: pb.ExtendReservationRequest) -> Extend:
    checks = Checks()
    reservation_id = checks.reservation_id(request.reservation_id)
    ttl_us = checks.given_ttl(request)
    request_id = checks.request_id(request.request_id)
    checks.finish()
    return Extend(reservation_id, ttl_us, request_id)


def parse_reserve(request: pb.ReserveStockRequest, ttl_us_default: int) -> Order:
    """Read a hold as an order of one line, whose reservation bears the id of its request."""
    checks = Checks()
    product_id, order_id, quantity = request.product_id, request.order_id, request.quantity
    checks.identifier("product_id", product_id, "INVALID_PRODUCT_ID")
    checks.identifier("order_id", order_id, "INVALID_ORDER_ID")
    checks.quantity(quantity)
    ttl_given = request.HasField("ttl")
    ttl_us = checks.ttl(request.ttl) if ttl_given else ttl_us_default
    wait = checks.wait(request.wait) if request.HasField("wait") else 0.0
    request_id = checks.request_id(request.request_id)
    checks.finish()
    return Order(request_id, (Reserve(request_id, product_id, order_id, quantity, ttl_us, ttl_given),), wait)


def parse_reservation(request: pb.GetReservationRequest) -> str:
    checks = Checks()
    reservation_id = checks.reservation_id(request.reservation_id)
    checks.finish()
    return reservation_id


def parse_release(request: pb.ReleaseReservationRequest) -> Settle:
    checks = Checks()
    reservation_id = checks.reservation_id(request.reservation_id)
    request_id = checks.request_id(request.request_id)
    checks.finish()
    return Settle(reservation_id, Action.RELEASE, request_id)


def parse_deduct(request: pb.DeductReservationRequest) -> Settle:
    checks = Checks()
    reservation_id = checks.reservation_id(request.reservation_id)
    action = deduct_action(checks, request.late_policy)
    request_id = checks.request_id(request.request_id)
    checks.finish()
    return Settle(reservation_id, action, request_id)


def deduct_action(checks: Checks, late_policy: int) -> Action:
    if late_policy not in _DEDUCTS:
        checks.bad("late_policy", "must be STRICT or REACQUIRE")
    return _DEDUCTS.get(late_policy, Action.DEDUCT)

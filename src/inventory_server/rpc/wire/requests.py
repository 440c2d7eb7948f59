"""Requests that change or read one thing, from the proto to the domain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inventory_server.domain import Action, Add, Initialize, Order, Reserve, Settle
from inventory_server.rpc.wire.checks import Checks

if TYPE_CHECKING:
    from inventory_client.proto.inventory.v1 import inventory_pb2 as pb


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


def parse_add(request: pb.AddStockRequest) -> Add:
    checks = Checks()
    checks.identifier("product_id", request.product_id, "INVALID_PRODUCT_ID")
    checks.quantity(request.quantity)
    checks.text("reason", request.reason)
    request_id = checks.request_id(request.request_id)
    checks.finish()
    return Add(request.product_id, request.quantity, request_id, request.reason)


def parse_reserve(request: pb.ReserveStockRequest, ttl_us_default: int) -> Order:
    """Read a hold as an order of one line, whose reservation bears the id of its request."""
    checks = Checks()
    product_id, order_id, quantity = request.product_id, request.order_id, request.quantity
    checks.identifier("product_id", product_id, "INVALID_PRODUCT_ID")
    checks.identifier("order_id", order_id, "INVALID_ORDER_ID")
    checks.quantity(quantity)
    ttl_given = request.HasField("ttl")
    ttl_us = checks.ttl(request.ttl) if ttl_given else ttl_us_default
    request_id = checks.request_id(request.request_id)
    checks.finish()
    return Order(request_id, (Reserve(request_id, product_id, order_id, quantity, ttl_us, ttl_given),))


def parse_reservation(request: pb.GetReservationRequest) -> str:
    checks = Checks()
    reservation_id = checks.reservation_id(request.reservation_id)
    checks.finish()
    return reservation_id


def parse_settle(request: pb.ReleaseReservationRequest | pb.DeductReservationRequest, action: Action) -> Settle:
    checks = Checks()
    reservation_id = checks.reservation_id(request.reservation_id)
    request_id = checks.request_id(request.request_id)
    checks.finish()
    return Settle(reservation_id, action, request_id)

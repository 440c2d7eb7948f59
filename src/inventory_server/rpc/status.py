"""The only builder of `google.rpc.Status`, and the only place that knows the errors' domain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode

from inventory_client.proto.inventory.v1.inventory_pb2 import StockShortage
from inventory_server.errors import InsufficientStock, ProductNotFound, ValidationError
from inventory_server.rpc import metering

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from inventory_server.errors import InventoryError

DOMAIN = "inventory.v1"
DETAILS_KEY = "grpc-status-details-bin"


def status_of(error: InventoryError, *, of: str = "item") -> Status:
    """Render an error as every client sees it, and count it: of a whole call, or of an item in a bulk call's answer."""
    metering.REFUSALS.inc(error.reason, of)
    details: list[Message] = [
        ErrorInfo(
            reason=error.reason, domain=DOMAIN, metadata={**error.metadata, "http_status": str(error.http_status)}
        )
    ]
    if isinstance(error, ValidationError):
        details.append(
            BadRequest(
                field_violations=[
                    BadRequest.FieldViolation(field=v.field, description=v.description, reason=v.reason)
                    for v in error.violations
                ]
            )
        )
    if isinstance(error, (InsufficientStock, ProductNotFound)):
        details += [
            StockShortage(product_id=short.product_id, requested=short.requested, available=short.available)
            for short in error.shortages
        ]
    if error.retry_after is not None:
        details.append(RetryInfo(retry_delay=_duration(error.retry_after)))
    return Status(code=error.code.value[0], message=error.sentence, details=[_packed(detail) for detail in details])


def come_back(sentence: str, after: float) -> tuple[tuple[str, str | bytes], ...]:
    """Give the trailers of an UNAVAILABLE that is no error of ours: when to try again, for our clients and for gRPC's.

    gRPC's own retries know no RetryInfo, but a trailer: https://github.com/grpc/proposal/blob/master/A6-client-retries.md
    """
    details = [_packed(RetryInfo(retry_delay=_duration(after)))]
    status = Status(code=StatusCode.UNAVAILABLE.value[0], message=sentence, details=details)
    return (DETAILS_KEY, status.SerializeToString()), ("grpc-retry-pushback-ms", str(round(after * 1000)))


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration


def _packed(detail: Message) -> Any:
    packed = Any()
    packed.Pack(detail)
    return packed

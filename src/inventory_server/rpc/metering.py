"""What every call is counted by, under the names that dashboards for gRPC servers expect."""

from __future__ import annotations

import time
from bisect import bisect_left
from typing import TYPE_CHECKING, Any

import grpc

from inventory_client.proto.inventory.v1 import inventory_pb2 as pb
from inventory_server.metrics import Counter, Histogram, page

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeVar

    Answer = TypeVar("Answer")

_SERVICE = pb.DESCRIPTOR.services_by_name["InventoryService"]
_METHODS = {
    method.name: ("server_stream" if method.server_streaming else "unary", _SERVICE.full_name, method.name)
    for method in _SERVICE.methods
}
_LABELS = ("grpc_type", "grpc_service", "grpc_method")
# Those that the boundary or the library answers a known method with.
_CODES = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "INTERNAL",
    "UNAVAILABLE",
    "UNAUTHENTICATED",
)
_REASONS = [name.removeprefix("ERROR_REASON_") for name, number in pb.ErrorReason.items() if number]
# A caller whose deadline passes hangs up before the deadline passes here: the request took its time to come.
_EARLY_SECONDS = 0.05

STARTED = Counter("grpc_server_started_total", "Calls that reached a handler.", _LABELS, _METHODS.values())
HANDLED = Counter(
    "grpc_server_handled_total",
    "Calls that ended, by status code; CANCELLED where the caller left first.",
    (*_LABELS, "grpc_code"),
    [(*method, code) for method in _METHODS.values() for code in _CODES],
)
HANDLING = Histogram(
    "grpc_server_handling_seconds",
    "Time from the request to its answer, and of a stream to its end.",
    _LABELS,
    _METHODS.values(),
)
REFUSALS = Counter(
    "inventory_refusals_total",
    "Errors told to callers by ErrorInfo.reason: of whole calls, and of items inside the answer of a bulk call.",
    ("reason", "of"),
    [(reason, of) for reason in _REASONS for of in ("call", "item")],
)


def metered(name: str, handle: Callable[[bytes, Any], Awaitable[Answer]]) -> Callable[[bytes, Any], Awaitable[Answer]]:
    """Count the calls of a handler, and measure them.

    Once per call, so without a lock and with every look-up done before: the loop of the RPCs is alone with these cells.
    """
    method = _METHODS[name]
    cells = page.own.cells
    started, seconds = STARTED.cells[method], HANDLING.cells[method]
    handled = {code: HANDLED.cells[(*method, code)] for code in _CODES}
    clock, bounds = time.perf_counter, HANDLING.bounds

    async def count(body: bytes, context: Any) -> Answer:
        began = clock()
        cells[started] += 1
        code = "OK"
        try:
            return await handle(body, context)
        except BaseException:
            code = _code(context)
            raise
        finally:
            took = clock() - began
            cells[handled[code]] += 1
            cells[seconds + 1 + bisect_left(bounds, took)] += 1
            cells[seconds] += took

    return count


def _code(context: Any) -> str:
    """Name the code of a call that did not succeed: the one it was refused with, else the caller has left."""
    code = context.code()  # the number 0 where none was set
    if isinstance(code, grpc.StatusCode):
        return code.name
    remaining = context.time_remaining()
    return "DEADLINE_EXCEEDED" if remaining is not None and remaining <= _EARLY_SECONDS else "CANCELLED"

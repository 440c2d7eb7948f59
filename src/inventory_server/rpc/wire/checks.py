"""What a field of a request may be: every rule stands here once."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import uuid_utils

from inventory_server.domain import ID_LENGTH_MAX, QUANTITY_MAX, TTL_US_MAX, TTL_US_MIN, WAIT_US_MAX
from inventory_server.errors import Violation, invalid

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration

    from inventory_client.proto.inventory.v1 import inventory_pb2 as pb

# The last two end lines and paragraphs, wherever a text is shown or logged.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# What shows nothing: spaces, the empty pattern of Braille, and what Unicode calls Default_Ignorable_Code_Point.
_INVISIBLE = re.compile(
    r"[\s\u2800\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    r"\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]+"
)
_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)


class Checks:
    """Collects what is wrong with one request, so that all of it is told at once."""

    __slots__ = ("_violations",)

    def __init__(self) -> None:
        self._violations: list[Violation] = []

    def finish(self) -> None:
        """Refuse the request if anything was wrong."""
        if self._violations:
            raise invalid(self._violations)

    def bad(self, field: str, description: str, reason: str = "VALIDATION_ERROR") -> None:
        self._violations.append(Violation(field, description, reason))

    def identifier(self, field: str, text: str, reason: str) -> None:
        if not text or text.isspace() or (not text.isascii() and _INVISIBLE.fullmatch(text)):
            self.bad(field, "must not be blank" if text else "is missing", reason)
        elif len(text) > ID_LENGTH_MAX or not text.isprintable():
            self.text(field, text)

    def text(self, field: str, text: str) -> None:
        if len(text) > ID_LENGTH_MAX:
            self.bad(field, f"must have at most {ID_LENGTH_MAX} characters, not {len(text)}")
        elif not text.isprintable() and _CONTROL.search(text):
            self.bad(field, "must not contain control characters")

    def delta(self, delta: int) -> None:
        if not 1 <= abs(delta) <= QUANTITY_MAX:
            told = f"must be -{QUANTITY_MAX} to -1 or 1 to {QUANTITY_MAX}, not {delta}"
            self.bad("delta", told, "INVALID_QUANTITY")

    def quantity(self, quantity: int, least: int = 1, field: str = "quantity") -> None:
        if not least <= quantity <= QUANTITY_MAX:
            self.bad(field, f"must be {least} to {QUANTITY_MAX}, not {quantity}", "INVALID_QUANTITY")

    def count(self, field: str, count: int, most: int) -> None:
        if not 1 <= count <= most:
            self.bad(field, f"must be 1 to {most} in number, not {count}")

    def request_id(self, text: str) -> str:
        """Check a request id, or make one up."""
        return self.uuid("request_id", text) if text else str(uuid_utils.uuid7())

    def uuid(self, field: str, text: str) -> str:
        if not _UUID.fullmatch(text):
            self.bad(field, "must be a UUID such as 01980c6e-7f4c-7c3e-9d2a-5b8f6a1e0c47")
        return text.lower()

    def reservation_id(self, text: str) -> str:
        if not text:
            self.bad("reservation_id", "is missing", "INVALID_RESERVATION_ID")
            return ""
        return self.uuid("reservation_id", text)

    def ttl(self, duration: Duration) -> int:
        return self._duration_us("ttl", duration, TTL_US_MIN, TTL_US_MAX, "1 s to 24 h")

    def given_ttl(self, request: pb.ExtendReservationRequest | pb.ExtendOrderRequest) -> int:
        """Check a ttl that has no default."""
        if request.HasField("ttl"):
            return self.ttl(request.ttl)
        self.bad("ttl", "is missing")
        return 0

    def wait(self, duration: Duration) -> float:
        return self._duration_us("wait", duration, 0, WAIT_US_MAX, "0 s to 30 s") / 1_000_000

    def _duration_us(self, field: str, duration: Duration, least_us: int, most_us: int, told: str) -> int:
        # It may hold any int64 of seconds and any int32 of nanoseconds; of one that is not negative, and none may be
        # here, these are less than a second.
        nanos = duration.nanos
        us, rest_ns = divmod(duration.seconds * 1_000_000_000 + nanos, 1000)
        if not 0 <= nanos < 1_000_000_000:
            self.bad(field, f"must have 0 to 999999999 nanos, not {nanos}")
        elif not least_us <= us <= most_us - bool(rest_ns):
            self.bad(field, f"must be {told}")
        return us

"""What the clients saw: one record for each item of each call, written as a line of JSON.

Times are `time.monotonic()`, which all processes of a machine share on Linux.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

# After these nobody knows whether a mutation took place. Whatever else is answered is final for its attempt.
UNKNOWN = frozenset({"UNAVAILABLE", "DATABASE_UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "OVERLOADED"})
# What must not change anything; a conflict is another request under the id of one that was done.
READS = frozenset({"get_stock", "batch_get", "get_reservation", "conflict"})


@dataclass(frozen=True)
class Call:
    """One attempt: what was asked under which id, and the answer or the reason of the refusal."""

    client: str
    kind: str
    request_id: str
    asked: dict[str, Any]
    start: float
    end: float
    answer: dict[str, Any] | None = None
    reason: str | None = None
    told: dict[str, Any] = field(default_factory=dict)  # the refusal's metadata

    @property
    def unknown(self) -> bool:
        return self.reason in UNKNOWN

    @property
    def refused(self) -> bool:
        return self.reason is not None and self.reason not in UNKNOWN

    def __str__(self) -> str:
        outcome = f"-> {self.answer}" if self.reason is None else f"-> {self.reason} {self.told or ''}"
        asked = ", ".join(f"{name}={value}" for name, value in self.asked.items())
        return f"{self.start:.4f}..{self.end:.4f} {self.client:5} {self.kind}({asked}) {self.request_id} {outcome}"


class Recorder:
    """Appends calls to a file, each at once."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, call: Call) -> None:
        self._file.write(json.dumps(asdict(call)) + "\n")


def read(directory: Path) -> list[Call]:
    """Read what all clients wrote, in the order of the starts."""
    calls = [
        Call(**json.loads(line))
        for file in sorted(directory.glob("history-*.jsonl"))
        for line in file.read_text().splitlines()
    ]
    return sorted(calls, key=lambda call: call.start)


def by_request(calls: Iterable[Call]) -> dict[str, list[Call]]:
    """Gather the attempts of each mutation."""
    found: dict[str, list[Call]] = defaultdict(list)
    for call in calls:
        if call.kind not in READS:
            found[call.request_id].append(call)
    return dict(found)

"""Lines of the log: what is said again and again, failures of many lines, and moments that machines read."""

from __future__ import annotations

import dataclasses
import json
import logging
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from inventory_server.logs import Repeated
from inventory_server.postgres.database import first_line


@dataclasses.dataclass
class Clock:
    now: float = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("inventory_server.logs.time", clock)
    return clock


def told(repeated: Repeated, message: str, level: int = logging.WARNING, name: str = "shop") -> str | None:
    """Give the line as it is written, None where it is left out."""
    record = logging.LogRecord(name, level, __file__, 1, message, (), None)
    return record.getMessage() if repeated.filter(record) else None


def test_the_same_warning_is_told_once_a_second_with_the_number_of_those_left_out(clock: Clock) -> None:
    repeated = Repeated()
    assert [told(repeated, "the disk is 100% full") for _ in range(4)] == ["the disk is 100% full", None, None, None]
    assert told(repeated, "another") == "another"
    assert told(repeated, "the disk is 100% full", name="another logger") == "the disk is 100% full"
    clock.now += 0.9
    assert told(repeated, "the disk is 100% full") is None
    clock.now += 0.2
    assert told(repeated, "the disk is 100% full") == "the disk is 100% full (and 4 times more before)"
    clock.now += 1.1
    assert told(repeated, "the disk is 100% full") == "the disk is 100% full"


@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO, logging.ERROR])
def test_what_is_no_warning_is_always_told(clock: Clock, level: int) -> None:
    repeated = Repeated()
    assert [told(repeated, "serving", level) for _ in range(3)] == ["serving"] * 3
    assert clock.now == 100.0


def test_warnings_that_all_differ_are_not_kept_for_ever(clock: Clock) -> None:
    repeated = Repeated()
    for number in range(5000):
        assert told(repeated, f"port {number}")
    assert told(repeated, "port 4999") is None
    assert told(repeated, "port 1") == "port 1"
    assert clock.now == 100.0


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            psycopg.OperationalError("could not extend file: No space left\nHINT:  Check free disk space.\n"),
            "could not",
        ),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_a_failure_of_the_database_is_one_line(error: Exception, line: str) -> None:
    assert first_line(error).startswith(line)
    assert "\n" not in first_line(error)


def test_moments_in_json_are_those_of_rfc_3339() -> None:
    code = (
        "import logging; from inventory_server import logs; from inventory_server.settings import Settings;"
        " logs.configure(Settings(log_format='json')); logging.getLogger('shop').info('open')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    line = json.loads(done.stderr)
    assert line.keys() == {"time", "level", "logger", "thread", "message"}
    assert line["time"].endswith("Z")
    assert "," not in line["time"]
    assert abs(datetime.now(UTC) - datetime.fromisoformat(line["time"])) < timedelta(minutes=1)

"""The log: lines for people or JSON for machines, on standard error."""

from __future__ import annotations

import logging
import math
import sys
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pythonjsonlogger.json import JsonFormatter

if TYPE_CHECKING:
    from inventory_server.settings import Settings

_TEXT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
_FIELDS = "%(asctime)s %(levelname)s %(name)s %(threadName)s %(message)s"

# Who warns for every call while PostgreSQL is away; the same again is told no sooner than this.
_FLOODING = ("inventory_server.postgres.database", "psycopg.pool")
_AGAIN_SECONDS = 1.0
# Of so many different warnings it is known when they were told.
_KNOWN_MAX = 1000


def configure(settings: Settings) -> None:
    handler = logging.StreamHandler(sys.stderr)
    json = settings.log_format == "json"
    renamed = {"asctime": "time", "levelname": "level", "name": "logger", "threadName": "thread"}
    handler.setFormatter(_Json(_FIELDS, rename_fields=renamed) if json else logging.Formatter(_TEXT))
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    # What libraries tell of themselves below INFO buries what we do.
    logging.basicConfig(level=max(level, logging.INFO), handlers=[handler], force=True)
    logging.getLogger(__package__).setLevel(level)
    # What these warn about reaches us as exceptions, which are logged where they are handled.
    for noisy in ("asyncio",):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    for flooding in _FLOODING:
        logging.getLogger(flooding).addFilter(Repeated())


class _Json(JsonFormatter):
    """JSON whose moments are those of RFC 3339, in UTC."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 — logging's name
        del datefmt
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Repeated(logging.Filter):
    """Lets the same warning pass once a second, with the number of those that were left out before it."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._told: dict[tuple[str, str], tuple[float, int]] = {}  # when, and how often not since then

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno != logging.WARNING:
            return True
        message, now = record.getMessage(), time.monotonic()
        with self._lock:
            told_at, left_out = self._told.pop((record.name, message), (-math.inf, 0))
            again = now - told_at < _AGAIN_SECONDS
            if len(self._told) >= _KNOWN_MAX:
                self._told.pop(next(iter(self._told)))
            self._told[record.name, message] = (told_at, left_out + 1) if again else (now, 0)
        if left_out and not again:
            record.msg, record.args = "%s (and %d times more before)", (message, left_out)
        return not again

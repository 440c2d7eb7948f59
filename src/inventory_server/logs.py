"""The log: lines for people or JSON for machines, on standard error."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

from pythonjsonlogger.json import JsonFormatter

if TYPE_CHECKING:
    from inventory_server.settings import Settings

_TEXT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
_FIELDS = "%(asctime)s %(levelname)s %(name)s %(threadName)s %(message)s"


def configure(settings: Settings) -> None:
    handler = logging.StreamHandler(sys.stderr)
    json = settings.log_format == "json"
    renamed = {"asctime": "time", "levelname": "level", "name": "logger", "threadName": "thread"}
    handler.setFormatter(JsonFormatter(_FIELDS, rename_fields=renamed) if json else logging.Formatter(_TEXT))
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    # What libraries tell of themselves below INFO buries what we do.
    logging.basicConfig(level=max(level, logging.INFO), handlers=[handler], force=True)
    logging.getLogger(__package__).setLevel(level)
    # What these warn about reaches us as exceptions, which are logged where they are handled.
    for noisy in ("asyncio",):
        logging.getLogger(noisy).setLevel(logging.ERROR)

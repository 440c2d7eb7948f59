"""What is known of a deduct when the block that made it fails."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

from inventory_client._attempts import DECIDED
from inventory_client.errors import InventoryError
from inventory_client.models import new_request_id

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

_log = logging.getLogger("inventory_client")


class Deduct:
    """A deduct that may be made again under its one request id; `unknown` tells whether it may have taken place."""

    def __init__(self) -> None:
        self.request_id = new_request_id()
        self.unknown = False

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Take note of how a call ends. One that is cut off, as by cancelling its task, has no known outcome."""
        before, self.unknown = self.unknown, True
        try:
            yield
        except InventoryError as error:
            self.unknown = error.outcome_unknown or (before and error.code not in DECIDED)
            raise
        self.unknown = False


def log_kept(what: str, ends_at: datetime, deduct: Deduct) -> None:
    """Tell that a failed block keeps what it holds, which may be sold, and how to find out."""
    _log.warning(
        "%s is kept after an exception, as nobody knows whether it was deducted; if not, it ends at %s:"
        " repeat the deduct under its request id %s",
        what,
        ends_at.isoformat(),
        deduct.request_id,
    )


def log_not_released(what: str, ends_at: datetime) -> None:
    """Tell that a hold outlives its failed block; to be called where the release failed."""
    _log.warning("could not release %s after an exception; it ends at %s", what, ends_at.isoformat(), exc_info=True)

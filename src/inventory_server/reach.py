"""How far back a look for holds that are due goes: it need not begin at the beginning each time."""

from __future__ import annotations

import math

# Older than a statement under way may be, and than a clock is set back by.
_MARGIN_SECONDS = 60.0
_WHOLE_SECONDS = 60.0


class Reach:
    """Remembers up to when nothing that is due was left; all moments are in monotonic seconds.

    The holds that are due stand in the index behind all that have ended, until VACUUM removes those; and it removes
    none while some transaction reads for long. So a look begins where the last one found nothing more, a minute before,
    to be sure. What that might miss a whole look finds, once a minute.
    """

    def __init__(self) -> None:
        self._empty_until = self._whole_at = -math.inf

    def seconds(self, now: float) -> float | None:
        """Tell how far back to look; None is all the way."""
        if now >= self._whole_at + _WHOLE_SECONDS:
            return None
        return now - self._empty_until + _MARGIN_SECONDS

    def looked(self, reach: float | None, began: float, left: float = 0.0) -> None:
        """Take note of a look that went so far back; what it left had been due for `left` seconds at most."""
        self._empty_until = began - left
        if reach is None:
            self._whole_at = began

    def forget(self) -> None:
        """Have the next look go all the way."""
        self._whole_at = -math.inf

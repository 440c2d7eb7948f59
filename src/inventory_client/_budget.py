"""How much a client may add to the load of a server that has too much."""

from __future__ import annotations

_TOKENS_MAX = 100.0
_ANSWER_TOKENS = 0.1


class RetryBudget:
    """Tokens of all calls of a client: each OVERLOADED costs one, each answer brings back a tenth.

    With half of them gone nothing is repeated that failed as OVERLOADED: retries of a few are what makes a short burst
    pass unnoticed, but those of everybody are a multiple of the load, which then never ends. So does gRPC's own
    retryThrottling (proposal A6). Other failures cost nothing: whoever is away, stops, or has lost its database is not
    relieved by fewer attempts, and one that hangs gets no more than three at a time from a caller.

    For any number of threads without a lock: a token that is lost to a race changes nothing.
    """

    def __init__(self) -> None:
        self._tokens = _TOKENS_MAX

    @property
    def exhausted(self) -> bool:
        return self._tokens <= _TOKENS_MAX / 2

    def overloaded(self) -> None:
        """Take note of a server that refused an attempt since it has too much to do."""
        self._tokens = max(self._tokens - 1, 0.0)

    def answered(self) -> None:
        """Take note of an answer."""
        self._tokens = min(self._tokens + _ANSWER_TOKENS, _TOKENS_MAX)

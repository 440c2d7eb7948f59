"""How a client reaches the service: values only, nothing is opened or read here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike

    import grpc

    Interceptor = grpc.UnaryUnaryClientInterceptor | grpc.UnaryStreamClientInterceptor | grpc.aio.ClientInterceptor


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """PEM files for an encrypted connection. Without `ca` the authorities that gRPC ships are trusted.

    `cert` and `key` are the client's own, for servers that ask for a certificate.
    """

    ca: str | PathLike[str] | None = None
    cert: str | PathLike[str] | None = None
    key: str | PathLike[str] | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key go together: give both or neither")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how patiently a call is repeated; `RetryPolicy(attempts=1)` never repeats.

    The pause before repetition n is random between 0 and `backoff_seconds` * 2^(n-1), at most `backoff_seconds_max`,
    on top of what the server asks for. The defaults bridge a restart of about two seconds. However many attempts are
    left, the deadline of the call ends them.

    The first attempt takes at most `attempt_share` of the call's time (of two replicas of which one hangs, the next
    attempt finds the other), on top of the `wait` that was asked for. After each that took all of it the next one takes
    twice as much, and the last of the `attempts` what is left.

    A client that is told OVERLOADED fifty times, and seldom anything else, repeats nothing for that until it has got
    ten answers for each: its retries would be a multiple of the load.
    """

    attempts: int = 20
    backoff_seconds: float = 0.1
    backoff_seconds_max: float = 1.0
    attempt_share: float = 1 / 3

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError("attempts must be at least 1")
        if not 0 <= self.backoff_seconds <= self.backoff_seconds_max:
            raise ValueError("backoff_seconds must be between 0 and backoff_seconds_max")
        if not 0 < self.attempt_share <= 1:
            raise ValueError("attempt_share must be above 0 and at most 1")


# More milliseconds would not fit into gRPC's channel arguments. Whoever wants no limit at all gets 23 days.
SECONDS_MAX = 2_000_000.0
_BYTES_MAX = 2**31 - 1


def checked_timeout(timeout: float | None) -> float | None:
    """Refuse what is no time that a call can take; that nothing is left (0 or less) is for the call to say."""
    if timeout is not None and not timeout <= SECONDS_MAX:
        raise ValueError(f"timeout must be at most {SECONDS_MAX:.0f} seconds, not {timeout}")
    return timeout


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """Everything that can be told to a client.

    target: any gRPC target, such as `inventory:50051`, `dns:///inventory:50051` or `unix:/run/inventory.sock`
    tls: None speaks plaintext; files, or credentials made elsewhere
    token: sent as `authorization: Bearer …` with each call, also in plaintext, so use TLS outside of your own network
    timeout: seconds that a call may take with all of its retries; None leaves it to the table of each operation
    retry: see RetryPolicy
    keepalive_seconds: pause between pings while calls are under way. The service allows one in 10 seconds; a proxy that
        allows fewer ends connections (too_many_pings), after which gRPC pings half as often, and 300 suits all of them
    keepalive_timeout_seconds: how long sent data or a ping may stay unacknowledged until the connection counts as dead
    message_bytes_max: largest request and answer
    channel_options: gRPC channel arguments, which win over all of the above; ignored for a channel that you bring
    interceptors: gRPC client interceptors, as for traces: those of `grpc`, or of `grpc.aio` for the asyncio client;
        ignored for a channel that you bring
    """

    target: str = "localhost:50051"
    tls: Tls | grpc.ChannelCredentials | None = None
    token: str | None = field(default=None, repr=False)
    timeout: float | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    keepalive_seconds: float = 20.0
    keepalive_timeout_seconds: float = 10.0
    message_bytes_max: int = 4 * 1024 * 1024
    channel_options: Mapping[str, str | int] = field(default_factory=dict, hash=False)
    interceptors: Sequence[Interceptor] = field(default=(), hash=False)

    def __post_init__(self) -> None:
        if not self.target or self.target.startswith(("http://", "https://")):
            raise ValueError(f"target must be an address for gRPC such as localhost:50051, not {self.target!r}")
        if self.token is not None and not _may_be_sent(self.token):
            raise ValueError("token must be visible ASCII characters, without a newline at its end; None sends none")
        for name in ("timeout", "keepalive_seconds", "keepalive_timeout_seconds"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= SECONDS_MAX:
                raise ValueError(f"{name} must be above 0 and at most {SECONDS_MAX:.0f} seconds, not {value}")
        if not 0 < self.message_bytes_max <= _BYTES_MAX:
            raise ValueError(f"message_bytes_max must be between 1 and {_BYTES_MAX}")


def _may_be_sent(token: str) -> bool:
    """Tell whether a header can carry it: the text of a file mostly ends with a newline, which none can."""
    return bool(token) and all("!" <= character <= "~" for character in token)

"""The way to the server: channel arguments, credentials, and the table of deadlines and retries."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import grpc

from inventory_client.config import ClientConfig, Tls

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What one operation is allowed: seconds in all, and whether it may be sent more than once."""

    timeout: float
    retried: bool


# Reads change nothing, and a mutation carries a request id under which the server answers a copy with what the first
# one did: so all of them may be repeated. Five seconds outlast a wait in line for a row lock, and a short restart.
_SHORT = Rule(timeout=5.0, retried=True)
# What takes a thousand items, or a product's whole ledger, in one go.
_LONG = Rule(timeout=15.0, retried=True)
# A stream has no end: this is how long it may be down until its reader is told.
_STREAM = Rule(timeout=60.0, retried=True)

RULES: Mapping[str, Rule] = {
    "InitializeStock": _SHORT,
    "GetStock": _SHORT,
    "AddStock": _SHORT,
    "ReserveStock": _SHORT,
    "GetReservation": _SHORT,
    "ReleaseReservation": _SHORT,
    "DeductReservation": _SHORT,
    "ReserveOrder": _SHORT,
    "ReleaseOrder": _SHORT,
    "DeductOrder": _SHORT,
    "ExtendOrder": _SHORT,
    "ExtendReservation": _SHORT,
    "BatchReserveStock": _LONG,
    "BatchSettleReservations": _LONG,
    "BatchGetStock": _LONG,
    "AdjustStock": _SHORT,
    "ListStock": _SHORT,
    "ListReservations": _SHORT,
    "ListMovements": _SHORT,
    "ExplainStock": _LONG,
    "WatchStock": _STREAM,
}


_METADATA_BYTES_MAX = 512 * 1024


def settle(target: str | None, config: ClientConfig | None) -> ClientConfig:
    """Combine what a client was given."""
    config = config or ClientConfig()
    return config if target is None else replace(config, target=target)


def options(config: ClientConfig) -> list[tuple[str, str | int]]:
    """Write the configuration as channel arguments."""
    arguments: dict[str, str | int] = {
        # With pings on, gRPC also sets TCP_USER_TIMEOUT, and that is what notices a dead peer within seconds; without
        # it each call on a dead connection runs into its deadline until TCP gives up a quarter of an hour later. A
        # server that hangs is noticed by the pings alone, as its kernel goes on to acknowledge what is sent. For those
        # gRPC has a timeout of its own, of a minute, and stops after two of them as long as the client sends nothing
        # else: a watcher never does.
        "grpc.keepalive_time_ms": round(config.keepalive_seconds * 1000),
        "grpc.keepalive_timeout_ms": round(config.keepalive_timeout_seconds * 1000),
        "grpc.http2.ping_timeout_ms": round(config.keepalive_timeout_seconds * 1000),
        "grpc.http2.max_pings_without_data": 0,
        "grpc.max_send_message_length": config.message_bytes_max,
        "grpc.max_receive_message_length": config.message_bytes_max,
        # A refusal names every line of an order that is short, up to a hundred; gRPC's 8 kB hold a few dozen of them.
        "grpc.max_metadata_size": _METADATA_BYTES_MAX,
        "grpc.absolute_max_metadata_size": 2 * _METADATA_BYTES_MAX,
        # As long as the connection is down calls fail at once and are retried by us (see _calls.Attempts). gRPC's
        # own pause between connection attempts, from 1 s up to 2 min, would leave those retries nothing to find.
        "grpc.initial_reconnect_backoff_ms": 100,
        "grpc.max_reconnect_backoff_ms": 1000,
        # A name is looked up anew when a connection is lost, but by default not for 30 s after the last time: once all
        # pods had been replaced twice in that time, each call would go to addresses where nobody is any more.
        "grpc.dns_min_time_between_resolutions_ms": 1000,
    }
    return list({**arguments, **config.channel_options}.items())


def credentials(config: ClientConfig) -> grpc.ChannelCredentials | None:
    """Read the certificates; None means plaintext."""
    if not isinstance(config.tls, Tls):
        return config.tls
    return grpc.ssl_channel_credentials(
        root_certificates=_content(config.tls.ca),
        private_key=_content(config.tls.key),
        certificate_chain=_content(config.tls.cert),
    )


def metadata(config: ClientConfig) -> tuple[tuple[str, str], ...]:
    """Say who calls, with each call."""
    return () if config.token is None else (("authorization", f"Bearer {config.token}"),)


def open_channel(config: ClientConfig) -> grpc.Channel:
    """Make a channel; it connects with the first call."""
    secret = credentials(config)
    if secret is None:
        channel = grpc.insecure_channel(config.target, options(config))
    else:
        channel = grpc.secure_channel(config.target, secret, options(config))
    return grpc.intercept_channel(channel, *cast("Sequence[Any]", config.interceptors))


class ByName:
    """A channel that looks methods up by name for each call, not by a handle of the generated stub's.

    grpcio 1.85 crashes the process where such a handle is made on a channel that was closed, as an intercepted one does
    for each call; by name the call is refused.
    """

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel

    def unary_unary(self, method: str, *, _registered_method: bool, **codecs: Any) -> object:
        return self._channel.unary_unary(method, **codecs)

    def unary_stream(self, method: str, *, _registered_method: bool, **codecs: Any) -> object:
        return self._channel.unary_stream(method, **codecs)


def open_aio_channel(config: ClientConfig, secret: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
    """Make a channel of the running event loop, with credentials that were read before."""
    interceptors = cast("Sequence[Any]", config.interceptors)
    if secret is None:
        return grpc.aio.insecure_channel(config.target, options(config), interceptors=interceptors)
    return grpc.aio.secure_channel(config.target, secret, options(config), interceptors=interceptors)


def _content(path: str | PathLike[str] | None) -> bytes | None:
    return None if path is None else Path(path).read_bytes()

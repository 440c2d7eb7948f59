"""gRPC servers: limits, addresses, credentials, and the services that every one of them offers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpc_health.v1 import health_pb2_grpc

from inventory_server.rpc import accepting
from inventory_server.rpc.addresses import ListenError

if TYPE_CHECKING:
    import grpc

    from inventory_server.rpc.health import Health
    from inventory_server.settings import Settings

_PING_SECONDS = 30.0
_ANSWER_SECONDS_MAX = 20.0


def build(settings: Settings) -> grpc.aio.Server:
    return accepting.server(
        [
            *_ageing(settings),
            ("grpc.max_receive_message_length", settings.max_message_bytes),
            ("grpc.max_concurrent_streams", settings.max_concurrent_streams),
            # A second server on the same port is a mistake to be told, unless it was asked for.
            ("grpc.so_reuseport", int(settings.share_address)),
            # Clients may ping an idle connection every ten seconds, as load balancers make them.
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ("grpc.keepalive_permit_without_calls", 1),
            # A caller that vanished without a word, or hangs, would keep its stream for ever: ping it. The second bound
            # is on what the kernel of the other side acknowledges, the third on what the other side itself answers.
            ("grpc.keepalive_time_ms", round(_PING_SECONDS * 1000)),
            ("grpc.keepalive_timeout_ms", round(_ANSWER_SECONDS_MAX * 1000)),
            ("grpc.http2.ping_timeout_ms", round(_ANSWER_SECONDS_MAX * 1000)),
        ]
    )


def _ageing(settings: Settings) -> list[tuple[str, int]]:
    """Send callers away from a connection that is old, each at a moment of its own (gRPC adds or takes a tenth).

    gRPC says so (GOAWAY) and takes no new call, but ends those under way no sooner than the grace is over.
    """
    if settings.max_connection_age is None:
        return []
    return [
        ("grpc.max_connection_age_ms", round(settings.max_connection_age * 1000)),
        ("grpc.max_connection_age_grace_ms", round(settings.max_connection_age_grace * 1000)),
    ]


def bind(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None = None) -> str:
    """Listen on an address, with TLS where there are credentials, and give it with the port that was chosen for 0."""
    try:
        if credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials)
    except RuntimeError:
        raise ListenError(address, "is it in use, or not an address of this machine?") from None
    return f"{address.removesuffix(':0')}:{port}" if address.endswith(":0") else address


def offer_health(server: grpc.aio.Server, health: Health) -> None:
    health_pb2_grpc.add_HealthServicer_to_server(health.servicer, server)

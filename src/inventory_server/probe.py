"""`inventory-server healthcheck`: the health of a running server, asked over gRPC."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health_pb2

if TYPE_CHECKING:
    from inventory_server.settings import Settings

_TIMEOUT_SECONDS = 3.0
# What a server listens on everywhere is asked here.
_LOCAL = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 — a name to recognise, nothing is bound


class Unhealthy(Exception):
    """The server does not answer SERVING; the sentence says what it answers."""


def check(settings: Settings) -> None:
    """Ask the address for probes if there is one, else the main one; Unhealthy is raised unless it is SERVING."""
    address = settings.health_listen or settings.listen
    if settings.tls_cert is not None and settings.health_listen is None:
        raise Unhealthy("a server that speaks TLS is probed on INVENTORY_HEALTH_LISTEN, which is not set.")
    host, colon, port = address.rpartition(":")
    target = address if address.startswith("unix:") else _LOCAL.get(host, host) + colon + port
    with grpc.insecure_channel(target) as channel:
        call: grpc.UnaryUnaryMultiCallable[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse] = (
            channel.unary_unary(
                "/grpc.health.v1.Health/Check",
                request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                response_deserializer=health_pb2.HealthCheckResponse.FromString,
            )
        )
        try:
            answer = call(health_pb2.HealthCheckRequest(), timeout=_TIMEOUT_SECONDS)
        except grpc.RpcError as error:
            raise Unhealthy(f"no answer from {target}: {error.code().name}") from None
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        raise Unhealthy(f"{target} is {health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)}")

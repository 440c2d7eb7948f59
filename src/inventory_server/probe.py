"""`inventory-server healthcheck`: the health of a running server, asked over gRPC."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2

from inventory_server.rpc.addresses import socket_path

if TYPE_CHECKING:
    from pathlib import Path

    from inventory_server.settings import Settings

_TIMEOUT_SECONDS = 3.0
# What a server listens on everywhere is asked here.
_LOCAL = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 — a name to recognise, nothing is bound


class Unhealthy(Exception):
    """The server does not answer SERVING; the sentence says what it answers."""


def check(settings: Settings, service: str = "") -> None:
    """Ask the address for probes if there is one, else the main one; Unhealthy is raised unless it is SERVING."""
    address = settings.health_listen or settings.listen
    host, colon, port = address.rpartition(":")
    target = address if address.startswith("unix:") else _LOCAL.get(host, host) + colon + port
    certificate = None if settings.health_listen is not None else settings.tls_cert
    if certificate is not None and settings.tls_client_ca is not None:
        raise Unhealthy("a server that asks for certificates is probed on INVENTORY_HEALTH_LISTEN, which is not set.")
    with _channel(target, certificate) as channel:
        call: grpc.UnaryUnaryMultiCallable[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse] = (
            channel.unary_unary(
                "/grpc.health.v1.Health/Check",
                request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                response_deserializer=health_pb2.HealthCheckResponse.FromString,
            )
        )
        try:
            answer = call(health_pb2.HealthCheckRequest(service=service), timeout=_TIMEOUT_SECONDS)
        except grpc.RpcError as error:
            raise Unhealthy(f"no answer from {target}: {error.code().name}") from None
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        raise Unhealthy(f"{target} is {health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)}")


def _channel(target: str, certificate: Path | None) -> grpc.Channel:
    # A proxy of the environment does not lead to ourselves.
    options: list[tuple[str, Any]] = [("grpc.enable_http_proxy", 0)]
    if certificate is None:
        return grpc.insecure_channel(target, options)
    try:
        trusted = certificate.read_bytes()
        name = _name_shown(target, certificate)
    except OSError as error:
        raise Unhealthy(f"no answer from {target} in TLS: {error}") from None
    options.append(("grpc.ssl_target_name_override", name))
    return grpc.secure_channel(target, grpc.ssl_channel_credentials(trusted), options)


def _name_shown(target: str, certificate: Path) -> str:
    """Find the name that the server shows: it is asked where it listens, which is hardly what callers know it by."""
    context = ssl.create_default_context(cafile=str(certificate))
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN  # the certificate itself is trusted
    context.check_hostname = False
    with _connected(target) as plain, context.wrap_socket(plain) as connection:
        shown: Any = connection.getpeercert() or {}
    names = [name for kind, name in shown.get("subjectAltName", ()) if kind in {"DNS", "IP Address"}]
    names += [name for part in shown.get("subject", ()) for kind, name in part if kind == "commonName"]
    return str(names[0]).replace("*", "any") if names else ""


def _connected(target: str) -> socket.socket:
    if not target.startswith("unix:"):
        host, _, port = target.rpartition(":")
        return socket.create_connection((host.strip("[]"), int(port)), _TIMEOUT_SECONDS)
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(_TIMEOUT_SECONDS)
    connection.connect(str(socket_path(target)))
    return connection

"""gRPC servers: limits, addresses, credentials, and the services that every one of them offers."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health_pb2_grpc

from inventory_server.settings import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

    from inventory_server.rpc.health import Health
    from inventory_server.settings import Settings


class ListenError(Exception):
    """An address cannot be served; the sentence says why."""


def build(settings: Settings) -> grpc.aio.Server:
    return grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", settings.max_message_bytes),
            ("grpc.max_concurrent_streams", settings.max_concurrent_streams),
            # A second server on the same port is a mistake to be told, unless it was asked for.
            ("grpc.so_reuseport", int(settings.share_address)),
            # Clients may ping an idle connection every ten seconds, as load balancers make them.
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ("grpc.keepalive_permit_without_calls", 1),
            # A caller that vanished without a word would keep its stream for ever: ping it.
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_timeout_ms", 20_000),
        ]
    )


def bind(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None = None) -> None:
    """Listen on an address, with TLS where there are credentials."""
    try:
        if credentials is None:
            server.add_insecure_port(address)
        else:
            server.add_secure_port(address, credentials)
    except RuntimeError:
        raise ListenError(f"Cannot listen on {address}: is it in use, or not an address of this machine?") from None


def offer_health(server: grpc.aio.Server, health: Health) -> None:
    health_pb2_grpc.add_HealthServicer_to_server(health.servicer, server)


def credentials_of(settings: Settings) -> grpc.ServerCredentials | None:
    """Read the files of TLS, where it is to be spoken; SettingsError says what is wrong with them."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    certificate = _read("INVENTORY_TLS_CERT", settings.tls_cert)
    key = _read("INVENTORY_TLS_KEY", settings.tls_key)
    authority = _read("INVENTORY_TLS_CLIENT_CA", settings.tls_client_ca) if settings.tls_client_ca else None
    _check(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
    return grpc.ssl_server_credentials([(key, certificate)], authority, require_client_auth=authority is not None)


def _read(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{name} cannot be read: {error}.") from None


def _check(certificate: Path, key: Path, authority: Path | None) -> None:
    """Look into the files, of which gRPC would say no more than that it cannot listen."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")  # how strong a key must be is not decided here
    try:
        # A key with a password is refused, rather than asked for at the terminal.
        context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        pair = "INVENTORY_TLS_CERT and INVENTORY_TLS_KEY"
        raise SettingsError(f"{pair} are not a certificate and its key{_why(error)}.") from None
    if authority is None:
        return
    try:
        context.load_verify_locations(authority)
    except ssl.SSLError as error:
        raise SettingsError(f"INVENTORY_TLS_CLIENT_CA is not a certificate{_why(error)}.") from None


def _why(error: ssl.SSLError) -> str:
    return f": {error.reason}" if error.reason else ""

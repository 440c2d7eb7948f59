"""The certificate that the server shows, and the authority of those that it asks for: renewed with their files."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import grpc

from inventory_server.rpc.reloading import Reloaded
from inventory_server.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from inventory_server.settings import Settings


class Certificates(Reloaded):
    """Those of the settings, for connections that are made from now on; the ones that are open go on as they are."""

    _current: grpc.ServerCertificateConfiguration

    def __init__(self, certificate: Path, key: Path, authority: Path | None) -> None:
        self._files = (certificate, key)
        self._authority = authority
        paths = {"INVENTORY_TLS_CERT": certificate, "INVENTORY_TLS_KEY": key}
        super().__init__(paths if authority is None else {**paths, "INVENTORY_TLS_CLIENT_CA": authority})
        self._given = self._current

    @classmethod
    def of(cls, settings: Settings) -> Certificates | None:
        """Read the files that the settings name; None means plaintext."""
        if settings.tls_cert is None or settings.tls_key is None:
            return None
        return cls(settings.tls_cert, settings.tls_key, settings.tls_client_ca)

    def credentials(self) -> grpc.ServerCredentials:
        """For one address: gRPC is told of each change once."""
        return grpc.dynamic_ssl_server_credentials(
            self._given,
            self._fetch,  # type: ignore[arg-type]  # None says that nothing is new
            require_client_authentication=self._authority is not None,
        )

    def take(self, contents: Sequence[bytes]) -> None:
        self._check()
        certificate, key, *authority = contents
        self._current = grpc.ssl_server_certificate_configuration([(key, certificate)], *authority)

    def _check(self) -> None:
        """Have OpenSSL read the files: gRPC finds their mistakes no sooner than somebody connects."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_ciphers("ALL:@SECLEVEL=0")  # how strong a key must be is not decided here
        try:
            context.load_cert_chain(*self._files, password="")  # or it would ask for that of a locked key
        except OSError as error:
            pair = "INVENTORY_TLS_CERT and INVENTORY_TLS_KEY"
            raise SettingsError(f"{pair} are not a certificate and its key{_why(error)}.") from None
        if self._authority is not None:
            try:
                context.load_verify_locations(self._authority)
            except OSError as error:
                raise SettingsError(f"INVENTORY_TLS_CLIENT_CA is not a certificate{_why(error)}.") from None

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Give gRPC what is new; it asks at each connection, from a thread of its own."""
        current = self._current
        if current is self._given:
            return None
        self._given = current
        return current


def _why(error: OSError) -> str:
    """Say what OpenSSL found, or what kept it from reading a file that has gone meanwhile."""
    if isinstance(error, ssl.SSLError):
        return f": {error.reason}" if error.reason else ""
    return f": {error}"

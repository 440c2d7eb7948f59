"""Certificates that are renewed while the server runs, as Kubernetes swaps them in place."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest
from tests.fixtures.certificates import Authority, Secret
from tests.fixtures.serving import connected
from tests.fixtures.shop import balance, fresh, stocked
from tests.fixtures.waiting import eventually

from inventory_client import ProductNotFound, ServiceUnavailable
from inventory_server.embedded.process import free_port

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fixtures.serving import Connect, Serve, Server

    from inventory_client import InventoryClient, Tls

# One client is enough to see what the server shows to whoever comes; the first test asks both.
synchronous = pytest.mark.parametrize("connect", ["sync"], indirect=True)

NO_PAIR = "INVENTORY_TLS_CERT and INVENTORY_TLS_KEY are not a certificate and its key"


def pair(issued: tuple[bytes, bytes]) -> dict[str, bytes]:
    return dict(zip(("tls.crt", "tls.key"), issued, strict=True))


def start(serve: Serve, database_url: str, secret: Secret, **settings: object) -> Server:
    return serve(
        database_url,
        tls_cert=secret["tls.crt"],
        tls_key=secret["tls.key"],
        health_listen=f"127.0.0.1:{free_port()}",
        **settings,
    )


def shows(server: Server, issued: tuple[bytes, bytes]) -> bool:
    """Tell whether a stranger who comes now is shown this certificate."""
    host, _, port = server.address.rpartition(":")
    shown = ssl.get_server_certificate((host, int(port)), timeout=10)
    # The first of the chain is the server's own.
    first = issued[0].decode().partition("-----END CERTIFICATE-----")
    return ssl.PEM_cert_to_DER_cert(shown) == ssl.PEM_cert_to_DER_cert("".join(first[:2]))


def welcome(server: Server, tls: Tls) -> bool:
    """Tell whether a client that comes now gets through."""
    own_connection = {"grpc.use_local_subchannel_pool": 1}
    with connected(server, tls=tls, timeout=5.0, channel_options=own_connection) as newcomer:
        with pytest.raises((ServiceUnavailable, ProductNotFound)) as answer:
            newcomer.get_stock(fresh())
        return answer.type is ProductNotFound


@pytest.mark.parametrize("other_authority", [False, True], ids=["same authority", "another authority"])
def test_new_connections_see_the_renewed_certificate_and_open_ones_go_on(
    database_url: str, serve: Serve, connect: Connect, tmp_path: Path, *, other_authority: bool
) -> None:
    old_authority, new_authority = (Authority(tmp_path) for _ in range(2))
    old, new = old_authority.issue(), (new_authority if other_authority else old_authority).issue()
    secret = Secret(tmp_path / "secret", pair(old))
    server = start(serve, database_url, secret)
    client = connect(server, tls=old_authority.trusted())
    product_id = stocked(client, 10)
    assert shows(server, old)
    secret.swap(pair(new))
    eventually(lambda: shows(server, new))
    # It trusts the old authority alone: had it to connect anew, it would fail.
    assert balance(client, product_id) == (10, 0)
    newcomer = connect(server, tls=(new_authority if other_authority else old_authority).trusted())
    assert newcomer.add_stock(product_id, 1).available_quantity == 11
    assert welcome(server, old_authority.trusted()) is not other_authority


@synchronous
def test_files_that_are_no_pair_keep_the_certificate_and_are_warned_of_once(
    database_url: str, serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    old, new, other = (authority.issue() for _ in range(3))
    secret = Secret(tmp_path / "secret", pair(old))
    server = start(serve, database_url, secret)
    client = connect(server, tls=authority.trusted())
    product_id = stocked(client, 10)
    broken = [(new[0], other[1]), (new[0][:300], new[1]), (new[0], b""), (b"\0\xff", b"\xff\0")]
    for number, files in enumerate(broken, start=1):
        secret.swap(pair(files))
        eventually(lambda number=number: server.log.count(NO_PAIR) == number)  # type: ignore[misc]
        assert shows(server, old)
        assert welcome(server, authority.trusted())
    secret["tls.key"].unlink()
    eventually(lambda: "INVENTORY_TLS_KEY cannot be read" in server.log)
    assert shows(server, old)
    secret["tls.key"].write_bytes(new[1])
    secret.swap(pair(new))
    eventually(lambda: shows(server, new))
    assert balance(client, product_id) == (10, 0)
    assert server.log.count("stays in force") == len(broken) + 1


@synchronous
def test_the_authority_of_clients_is_renewed_too(
    database_url: str, serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    servers, old, new = (Authority(tmp_path) for _ in range(3))
    secret = Secret(tmp_path / "secret", {**pair(servers.issue()), "ca.crt": old.pem})
    server = start(serve, database_url, secret, tls_client_ca=secret["ca.crt"])
    of_old, of_new = servers.trusted(old.issue()), servers.trusted(new.issue())
    client: InventoryClient = connect(server, tls=of_old)
    product_id = stocked(client, 10)
    assert (welcome(server, of_old), welcome(server, of_new), welcome(server, servers.trusted())) == (
        True,
        False,
        False,
    )
    secret.swap({**pair(servers.issue()), "ca.crt": b"nobody"})
    eventually(lambda: "INVENTORY_TLS_CLIENT_CA is not a certificate" in server.log)
    assert welcome(server, of_old)
    secret.swap({**pair(servers.issue()), "ca.crt": new.pem})
    eventually(lambda: welcome(server, of_new))
    assert (welcome(server, of_old), welcome(server, servers.trusted())) == (False, False)
    assert balance(client, product_id) == (10, 0)


def test_files_that_are_wrong_from_the_start_end_it_with_a_sentence(
    database_url: str, serve: Serve, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    secret = Secret(tmp_path / "secret", {**pair((authority.issue()[0], authority.issue()[1])), "ca.crt": b"nobody"})
    with pytest.raises(RuntimeError, match=rf"ended with status 2:\n.*{NO_PAIR}: .*MISMATCH"):
        start(serve, database_url, secret)
    secret.swap({**pair(authority.issue()), "ca.crt": b"nobody"})
    with pytest.raises(RuntimeError, match=r"ended with status 2:\n.*INVENTORY_TLS_CLIENT_CA is not a certificate"):
        start(serve, database_url, secret, tls_client_ca=secret["ca.crt"])
    secret["tls.key"].unlink()
    with pytest.raises(RuntimeError, match=r"ended with status 2:\n.*INVENTORY_TLS_KEY cannot be read: .*No such file"):
        start(serve, database_url, secret)

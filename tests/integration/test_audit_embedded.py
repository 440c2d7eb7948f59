"""What `make run` made can be audited, and looked into: beside the live service, and when that has ended."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from tests.fixtures.serving import connected
from tests.fixtures.shop import stocked

from inventory_server.embedded import EmbeddedPostgres

if TYPE_CHECKING:
    from tests.fixtures.serving import Serve

MISMATCH, UNFINISHED = 1, 3


def audit(directory: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    others = {name: text for name, text in os.environ.items() if not name.startswith("INVENTORY_")}
    return subprocess.run(
        [sys.executable, "-m", "inventory_server", "audit"],
        env={**others, "INVENTORY_DATA_DIR": str(directory), **settings},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_embedded_database_is_audited_beside_its_server_and_without_it(
    embedded_directory: Path, serve: Serve
) -> None:
    agrees = (0, "", "audited 2 products: everything agrees\n")
    server = serve("", "none://", data_dir=embedded_directory)
    with connected(server) as client:
        for _ in range(2):
            stocked(client, 10)
    done = audit(embedded_directory)
    assert (done.returncode, done.stdout, done.stderr) == agrees
    assert server.health() == "SERVING"
    server.terminate()
    assert server.wait() == 0
    done = audit(embedded_directory)
    assert (done.returncode, done.stdout, done.stderr) == agrees
    assert EmbeddedPostgres(embedded_directory).running_url() is None
    with EmbeddedPostgres(embedded_directory) as postgres, psycopg.connect(postgres.url) as connection:
        connection.execute("UPDATE inventory_stock SET version = version + 1")
    done = audit(embedded_directory)
    assert (done.returncode, done.stderr) == (MISMATCH, "audited 2 products: 2 disagreements\n")


def test_where_there_is_no_embedded_database_none_is_made(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    done = audit(directory)
    assert (done.returncode, done.stdout) == (UNFINISHED, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("inventory-server: there is nothing to audit: INVENTORY_DATABASE_URL is not set, and ")
    assert str(directory) in line
    assert not directory.exists()


def test_a_database_that_does_not_start_ends_the_audit_with_its_reason(embedded_directory: Path) -> None:
    (embedded_directory / "postgres/cluster/data/PG_VERSION").write_text("9.6\n")
    done = audit(embedded_directory)
    assert (done.returncode, done.stdout) == (UNFINISHED, "")
    assert "initialized by PostgreSQL version 9.6" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_database_that_is_named_is_audited_whatever_is_embedded(embedded_directory: Path, database_url: str) -> None:
    done = audit(embedded_directory, INVENTORY_DATABASE_URL=database_url)
    assert (done.returncode, done.stderr) == (0, "audited 0 products: everything agrees\n")


def test_the_log_tells_how_to_look_into_the_embedded_database(embedded_directory: Path, serve: Serve) -> None:
    server = serve("", "none://", data_dir=embedded_directory)
    told = re.search(r"the embedded PostgreSQL listens on (\S+), with the password in (.+)", server.log)
    assert told is not None
    password = Path(told[2]).read_text("utf-8")
    assert password not in server.log
    with psycopg.connect(told[1], password=password) as connection:
        assert connection.execute("SELECT count(*) FROM inventory_stock").fetchone() == (0,)

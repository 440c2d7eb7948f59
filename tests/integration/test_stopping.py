"""A command that is told to stop before it has done its work: it takes apart what it has started, and says so."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from tests.fixtures.commands import SECONDS_MAX, running
from tests.fixtures.processes import children
from tests.fixtures.waiting import eventually

from inventory_server.embedded.process import command_line

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"
# Where a database is migrated, so that who comes second waits.
LOCK = 9142205142015182


STOPPED = "inventory-server: stopped before it was done."


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize(("command", "status"), [("serve", 0), ("migrate", 1)])
def test_who_waits_for_postgresql_stops_when_told(
    tmp_path: Path, command: str, status: int, number: signal.Signals
) -> None:
    with running(tmp_path, command, database_url=NOWHERE) as waiting:
        waiting.says("waiting for PostgreSQL")
        waiting.process.send_signal(number)
        assert waiting.ended() == (status, STOPPED)


@pytest.mark.parametrize("command", ["serve", "migrate"])
def test_who_is_number_one_of_a_container_stops_when_told_before_it_serves(tmp_path: Path, command: str) -> None:
    before = (shutil.which("unshare") or "/bin/false", "--pid", "--fork", "--kill-child")
    if subprocess.run([*before, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no namespace for processes can be had here")
    with running(tmp_path, command, before=before, database_url=NOWHERE) as waiting:
        waiting.says("waiting for PostgreSQL")
        (first,) = children(waiting.process.pid)
        os.kill(first, signal.SIGTERM)
        status, told = waiting.ended()
        assert (status, told) == (0 if command == "serve" else 1, STOPPED)


def test_who_waits_for_its_turn_to_migrate_stops_when_told_and_leaves_nothing_behind(
    tmp_path: Path, empty_database_url: str
) -> None:
    asking = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'"
    with (
        psycopg.connect(empty_database_url, autocommit=True) as other,
        running(tmp_path, "migrate", database_url=empty_database_url) as waiting,
    ):
        other.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        eventually(lambda: other.execute(asking).fetchone() == (1,))
        waiting.process.terminate()
        assert waiting.ended() == (1, STOPPED)
        eventually(lambda: other.execute(asking).fetchone() == (0,))


def test_embedded_stores_are_stopped_with_who_is_told_to_stop_before_it_serves(tmp_path: Path) -> None:
    data = tmp_path / "data"
    record = data / "postgres/cluster/data/postmaster.pid"
    with running(tmp_path, "serve", data_dir=data, redis_url="") as starting:
        eventually(record.exists, within=SECONDS_MAX)
        pid = int(record.read_text().split()[0])
        starting.process.terminate()
        status, _ = starting.ended()
        assert status == 0
        assert not command_line(pid)
        assert not record.exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_the_end_of_a_terminal_has_a_server_drain(tmp_path: Path, database_url: str, workers: int) -> None:
    with running(tmp_path, "serve", database_url=database_url, workers=workers) as server:
        eventually(lambda: len(re.findall("serving on", server.log)) == workers, within=SECONDS_MAX)
        server.process.send_signal(signal.SIGHUP)
        status, _ = server.ended()
        assert status == 0
        assert len(re.findall("draining", server.log)) == workers


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells which signals a process ignores")
def test_a_server_that_is_to_outlive_its_terminal_does(tmp_path: Path, database_url: str) -> None:
    nohup = shutil.which("nohup") or pytest.skip("no nohup")
    with running(tmp_path, "serve", before=(nohup,), database_url=database_url) as server:
        server.says("serving on")
        (ignored,) = re.findall(
            r"^SigIgn:\s+(\w+)$", Path(f"/proc/{server.process.pid}/status").read_text(), re.MULTILINE
        )
        assert int(ignored, 16) >> signal.SIGHUP - 1 & 1

"""Whose an address is: a server that finds it taken says so, and takes it from nobody."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from tests.fixtures.commands import running
from tests.fixtures.processes import children
from tests.fixtures.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fixtures.serving import Serve


class Refused:
    """Gives the sentence of a server that does not start."""

    def __init__(self, directory: Path, database_url: str) -> None:
        self._directory = directory
        self._database_url = database_url

    def __call__(self, **settings: Any) -> str:
        with running(self._directory, "serve", database_url=self._database_url, **settings) as command:
            status, told = command.ended()
        assert status == 1
        return told.removeprefix("inventory-server: ")


@pytest.fixture
def refused(tmp_path: Path, database_url: str) -> Refused:
    return Refused(tmp_path, database_url)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return f"unix:{tmp_path}/inventory.sock"


def test_a_path_is_taken_from_no_server_that_runs(database_url: str, serve: Serve, refused: Refused, path: str) -> None:
    first = serve(database_url, listen=path)
    assert refused(listen=path) == f"Cannot listen on {path}: another server does."
    assert refused(health_listen=path) == f"Cannot listen on {path}: another server does."
    assert first.health() == "SERVING"
    first.terminate()
    assert first.wait() == 0
    assert serve(database_url, listen=path).health() == "SERVING"


def test_a_path_is_taken_from_no_other_program(refused: Refused, path: str, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "inventory.sock"))
        other.listen()
        assert refused(listen=path) == f"Cannot listen on {path}: another process does."
        assert stat.S_ISSOCK((tmp_path / "inventory.sock").stat().st_mode)


def test_the_path_of_a_server_that_was_killed_is_free(
    database_url: str, serve: Serve, path: str, tmp_path: Path
) -> None:
    serve(database_url, listen=path).kill()
    assert (tmp_path / "inventory.sock").exists()
    assert serve(database_url, listen=path).health() == "SERVING"


@pytest.mark.parametrize(
    ("tail", "why"),
    [("nowhere/inventory.sock", "there is no directory "), ("s" * 120, "the path of a socket has at most 10")],
    ids=["no directory", "too long"],
)
def test_a_path_that_cannot_be_is_told(refused: Refused, tmp_path: Path, tail: str, why: str) -> None:
    address = f"unix:{tmp_path}/{tail}"
    assert refused(listen=address).startswith(f"Cannot listen on {address}: {why}")


@pytest.mark.parametrize("workers", [1, 2])
def test_two_services_do_not_share_a_port_unasked(
    database_url: str, serve: Serve, refused: Refused, workers: int
) -> None:
    first = serve(database_url, workers=2)
    port = first.address.rpartition(":")[2]
    why = f"Cannot listen on {first.address}: another process has port {port} of 127.0.0.1."
    assert refused(workers=workers, listen=first.address) == why
    assert refused(workers=workers, health_listen=first.address) == why
    eventually(lambda: first.log.count("serving on") == 2)
    for worker in children(first.process.pid):
        os.kill(worker, signal.SIGSTOP)
        os.kill(worker, signal.SIGKILL)
    # Although nobody listens meanwhile.
    assert refused(workers=workers, listen=first.address) == why


def test_servers_that_are_told_to_share_a_port_do(database_url: str, serve: Serve, refused: Refused) -> None:
    first = serve(database_url, share_address=True, workers=2)
    assert serve(database_url, share_address=True, workers=2, listen=first.address)
    why = "another process has port"
    assert why in refused(workers=2, listen=first.address)
    assert why in refused(listen=first.address)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("half", ["127.0.0.1", "::1"])
def test_a_name_is_not_served_by_half(refused: Refused, workers: int, half: str) -> None:
    if not socket.has_ipv6:
        pytest.skip("localhost has one address here")
    family = socket.AF_INET6 if ":" in half else socket.AF_INET
    with socket.create_server((half, 0), family=family) as other:
        port = other.getsockname()[1]
        told = refused(workers=workers, listen=f"localhost:{port}")
    assert told == f"Cannot listen on localhost:{port}: another process has port {port} of {half}."


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("203.0.113.7", "that is no address of this machine."),
        (".x", "nobody knows that host."),
        ("nowhere.invalid", "nobody knows that host."),
    ],
)
def test_a_host_that_is_not_ours_is_told(refused: Refused, host: str, why: str) -> None:
    assert refused(listen=f"{host}:50051") == f"Cannot listen on {host}:50051: {why}"


def test_a_port_that_the_system_chose_is_logged(tmp_path: Path, database_url: str) -> None:
    with running(tmp_path, "serve", database_url=database_url, listen="127.0.0.1:0") as server:
        server.says("serving on")
        (address,) = re.findall(r"serving on (127\.0\.0\.1:[1-9]\d*)$", server.log, re.MULTILINE)
        with grpc.insecure_channel(address) as channel:
            grpc.channel_ready_future(channel).result(10)

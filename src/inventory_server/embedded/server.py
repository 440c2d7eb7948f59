"""What the embedded servers share: one directory, one holder, start, stop."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Self

from inventory_server.embedded.process import (
    OURSELVES,
    POLL_SECONDS,
    DirectoryLock,
    EmbeddedError,
    command_line,
    end,
    free_port,
    guarded,
    package_directory,
    spawn,
    wait_until,
)
from inventory_server.embedded.user import give_back

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

# PostgreSQL that was killed under load replays up to its max_wal_size (1 GB) first.
READY_SECONDS_MAX = 120.0
# How long an address, or the memory of a killed PostgreSQL whose processes are just noticing, may stay taken.
IN_USE_SECONDS_MAX = 15.0


class EmbeddedServer(ABC):
    """A server process of ours in a directory of its own. Call it from one thread at a time.

    Started from the main thread or a LastingThread on Linux it also ends when this process is killed; elsewhere the
    next start in that directory stops what was left over.
    """

    name: ClassVar[str]
    folder: ClassVar[str]
    package: ClassVar[str]
    stop_steps: ClassVar[Sequence[tuple[signal.Signals, float]]]

    def __init__(self, directory: Path) -> None:
        try:
            directory = directory.expanduser().resolve()
        except RuntimeError:
            raise EmbeddedError(f"There is no home for {directory}: set HOME or INVENTORY_DATA_DIR.") from None
        self._home = directory / self.folder
        self._log = self._home / "log"
        self.log_before = self._home / "log.before"
        self._lock = DirectoryLock(directory / f"{self.folder}.lock")
        self._user = OURSELVES
        self._process: subprocess.Popen[bytes] | None = None
        self._port: int | None = None

    @classmethod
    def require(cls) -> None:
        """Make sure that the wheel that brings it is installed; EmbeddedError names it where it is not."""
        package_directory(cls.package)

    @property
    def url(self) -> str:
        """Where it was started; the same over all restarts of this object."""
        if self._port is None:
            raise EmbeddedError(f"The embedded {self.name} was not started.")
        return self._url(self._port)

    @property
    def pid(self) -> int | None:
        """The process id, None unless it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def exit_status(self) -> int | None:
        """How it ended by itself, with the number of a signal negated; None unless it did."""
        return self._process.poll() if self._process is not None else None

    def start(self) -> str:
        """Start it unless it runs, and return its URL once it answers; EmbeddedError says why not."""
        if self.pid is not None:
            return self.url
        try:
            self._home.parent.mkdir(parents=True, exist_ok=True)
            self._lock.take()
            self._home.mkdir(mode=0o700, exist_ok=True)
            self._stop_leftover()
            self._prepare()
            self._launch()
        except PermissionError as error:
            self.stop()
            raise EmbeddedError(
                f"The embedded {self.name} cannot use {error.filename}, which is another user's:"
                f" be that one, or `chown -R {os.geteuid()} {self._home.parent}` as root."
            ) from error
        except (OSError, subprocess.SubprocessError) as error:
            self.stop()
            raise EmbeddedError(f"The embedded {self.name} could not be started: {error}.") from error
        except BaseException:
            self.stop()
            raise
        return self.url

    def stop(self) -> None:
        """Stop it and let go of the directory; nothing of it runs afterwards. Safe unstarted and twice."""
        self._end(self.stop_steps)
        if self._lock.is_ours:
            for left in (self._home, self._lock.path):
                give_back(left)
        self._lock.release()

    def kill(self) -> None:
        """End it with SIGKILL, as a power cut would, and keep the directory for the next `start()`."""
        self._end(())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _end(self, steps: Sequence[tuple[signal.Signals, float]]) -> None:
        process = self._process
        if process is not None:
            end(process.pid, [*steps, (signal.SIGKILL, 10.0)], lambda: process.poll() is not None)
            self._process = None

    def _stop_leftover(self) -> None:
        """Stop the server of a process that was killed before it could; by its pid, once that proves to be ours."""
        pid = self._recorded_pid()
        if pid is None or not self._is_ours(command_line(pid)):
            return
        steps = [*self.stop_steps, (signal.SIGKILL, 10.0)]
        if not end(pid, steps, lambda: not self._is_ours(command_line(pid))):
            raise EmbeddedError(f"A {self.name} left over in {self._home} (process {pid}) does not stop.")

    def _launch(self) -> None:
        if self._log.exists():
            self._log.replace(self.log_before)  # it may say why that one ended
        patience = time.monotonic() + IN_USE_SECONDS_MAX
        while not self._answers_on(port := self._port or free_port()):
            reason = self._last_words()
            self._end(self.stop_steps)
            if "in use" not in reason or time.monotonic() > patience:
                raise EmbeddedError(f"The embedded {self.name} does not start: {reason} (all of it is in {self._log})")
            time.sleep(POLL_SECONDS)
        self._port = port

    def _answers_on(self, port: int) -> bool:
        command = guarded(
            self._command(port), user=self._user, directory=self._home, death_signal=self.stop_steps[0][0]
        )
        with self._log.open("wb") as log:
            process = self._process = spawn(command, log)
        wait_until(lambda: process.poll() is not None or self._is_ready(process.pid, port), READY_SECONDS_MAX)
        return process.poll() is None and self._is_ready(process.pid, port)

    def _last_words(self) -> str:
        """Give what the log says about why it ended, or its last line."""
        lines = self._log.read_text(errors="replace").splitlines()
        telling = [line for line in lines if any(word in line for word in ("FATAL", "DETAIL", "in use"))]
        return " ".join(telling or lines[-1:]) or "it said nothing"

    @abstractmethod
    def _prepare(self) -> None:
        """Make the directory ready for a server."""

    @abstractmethod
    def _command(self, port: int) -> Sequence[str]: ...

    @abstractmethod
    def _is_ready(self, pid: int, port: int) -> bool: ...

    @abstractmethod
    def _recorded_pid(self) -> int | None:
        """Give the process id that the last server here left behind."""

    @abstractmethod
    def _is_ours(self, command: str) -> bool:
        """Tell from its command line whether a process is the server of this directory."""

    @abstractmethod
    def _url(self, port: int) -> str: ...

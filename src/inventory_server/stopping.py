"""What SIGTERM, SIGINT and SIGHUP do to a command, from its first moment to its last.

Until a command knows better they raise Stopped in the main thread, which ends what it waits for and takes apart what it
has started. Without a handler a process that is number 1 of its container would not even notice SIGTERM, and another
would die of it and leave its embedded stores behind.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


class Stopped(KeyboardInterrupt):
    """The command was told to end. Libraries clean up as they do for Ctrl-C; psycopg cancels what it has asked for."""


class _Signals:
    """What has come, and what is done about it."""

    def __init__(self) -> None:
        self.told = False
        self.react: Callable[[], object] = _raise

    def take(self, number: int, frame: FrameType | None) -> None:
        """Do what is to be done at the first signal. Others change nothing: to clean up must not be interrupted."""
        del number, frame
        if not self.told:
            self.told = True
            self.react()


def _raise() -> None:
    raise Stopped


_signals = _Signals()


def listen() -> None:
    """Raise Stopped at a signal from now on. Call it from the main thread, before anything else."""
    # Whoever starts us with nohup wants us to outlive the terminal.
    numbers = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    for number in numbers:
        signal.signal(number, _signals.take)


def on_signal(react: Callable[[], object]) -> None:
    """Do this at a signal instead, and at once if one has come. It runs in the main thread, between any two steps."""
    _signals.react = react
    if _signals.told:
        react()

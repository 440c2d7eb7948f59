"""Processor time and memory of other processes, where Linux tells: on a noisy machine it says more than throughput."""

from __future__ import annotations

import os
from pathlib import Path

# Positions in /proc/PID/stat behind the name: parent, own and reaped children's user and system time.
PARENT, TIMES = 1, slice(11, 15)


def of_process(pid: int) -> float:
    """Seconds that a process has used, 0 where it cannot be known."""
    return sum(map(int, _stat(pid)[TIMES])) / os.sysconf("SC_CLK_TCK")


def of_family(pid: int) -> float:
    """Seconds that a process and its children have used, as PostgreSQL has one per connection."""
    children = (int(path.name) for path in Path("/proc").glob("[0-9]*"))
    return of_process(pid) + sum(of_process(child) for child in children if parent(child) == pid)


def parent(pid: int) -> int:
    return int(_stat(pid)[PARENT])


def memory(pid: int) -> int:
    """Bytes of memory that a process has, 0 where it cannot be known."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _stat(pid: int) -> list[str]:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ["0"] * 20
    return text.rpartition(")")[2].split()

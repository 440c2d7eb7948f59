"""Programs that help where they are installed: h2load to check the generator, py-spy to see where the time goes."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.generator import CONNECTIONS_MAX
from tests.bench.loads import LOADS

if TYPE_CHECKING:
    from collections.abc import Iterator


def h2load(address: str, in_flight: int, seconds: float) -> float:
    """Requests per second by h2load, which sends one and the same request; RuntimeError where it is not installed."""
    program = _find("h2load", "Debian's nghttp2-client has it")
    path, message = next(LOADS["hot"]()())
    connections = min(in_flight, CONNECTIONS_MAX)
    with tempfile.NamedTemporaryFile() as body:
        body.write(b"\0" + len(message).to_bytes(4, "big") + message)
        body.flush()
        command = [program, f"--duration={max(1, round(seconds))}", "--warm-up-time=1", "--threads=1"]
        command += [f"--clients={connections}", f"--max-concurrent-streams={in_flight // connections}"]
        command += ["--data", body.name, "-H", "content-type: application/grpc", "-H", "te: trailers"]
        done = subprocess.run([*command, f"http://{address}{path}"], capture_output=True, text=True, check=True)
    found = re.search(r"([\d.]+) req/s", done.stdout)
    if not found:
        raise RuntimeError(f"h2load said nothing about requests:\n{done.stdout}")
    return float(found[1])


@contextlib.contextmanager
def profiled(pid: int, seconds: float, file: Path) -> Iterator[None]:
    """Write a flame graph of a process to `file` while the block runs; its figures suffer from it."""
    program = _find("py-spy", "pip install py-spy")
    options = ["--duration", str(max(1, round(seconds))), "--rate", "100", "--output", str(file)]
    process = subprocess.Popen([program, "record", *options, "--pid", str(pid)], stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.wait(seconds + 30)


def _find(program: str, hint: str) -> str:
    beside = Path(sys.executable).with_name(program)
    found = str(beside) if beside.exists() else shutil.which(program)
    if not found:
        raise RuntimeError(f"{program} is not installed: {hint}")
    return found

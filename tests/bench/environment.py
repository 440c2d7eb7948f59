"""What figures were taken on."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.bench.stores import Stores


def describe(opened: Stores) -> dict[str, str]:
    """Say what the figures were taken on."""
    return {
        "cores": str(os.cpu_count()),
        "load average": f"{os.getloadavg()[0]:.2f}",
        "machine": platform.machine(),
        "Python": platform.python_version(),
        "grpcio": metadata.version("grpcio"),
        **{f"PostgreSQL {name}": value for name, value in opened.settings().items()},
    }

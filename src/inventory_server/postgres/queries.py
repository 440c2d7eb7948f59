"""The named queries: each stands in a file of its own below `sql/`."""

from __future__ import annotations

import re
from importlib import resources
from typing import TYPE_CHECKING, LiteralString

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

_HERE = resources.files(__package__)

# The name of each query that was read, by its text.
NAMES: dict[str, str] = {}


def query(name: str) -> LiteralString:
    """Read a query without its comments."""
    text = (_HERE / "sql" / f"{name}.sql").read_text("utf-8")
    text = re.sub(r"^--.*\n", "", text, flags=re.MULTILINE).strip()
    NAMES[text] = name
    return text


def files(folder: str) -> list[Traversable]:
    """List the SQL files of a folder in the order of their names."""
    return sorted(
        (file for file in (_HERE / folder).iterdir() if file.name.endswith(".sql")), key=lambda file: file.name
    )

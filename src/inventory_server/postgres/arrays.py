"""PostgreSQL array literals: a batch travels as a few strings, which is cheaper than to adapt each element."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def plain(values: Iterable[object]) -> str:
    """Write numbers or UUIDs, or None as NULL."""
    return "{" + ",".join(["NULL" if value is None else str(value) for value in values]) + "}"


def texts(values: Iterable[str | None]) -> str:
    """Write texts, or None as NULL; a text must not contain NUL, which PostgreSQL cannot store."""
    return "{" + ",".join(["NULL" if value is None else quoted(value) for value in values]) + "}"


def quoted(text: str) -> str:
    if "\\" in text or '"' in text:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def booleans(values: Iterable[bool]) -> str:
    return "{" + ",".join(["t" if value else "f" for value in values]) + "}"


def numbered(values: Iterable[str]) -> dict[str, int]:
    """Number distinct values from 1, as PostgreSQL's arrays are."""
    numbers: dict[str, int] = {}
    for value in values:
        numbers.setdefault(value, len(numbers) + 1)
    return numbers

"""Bearer tokens, for servers that ask who calls: each may read, or read and write."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from inventory_server.errors import PermissionDenied, Unauthenticated
from inventory_server.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_BEARER = "Bearer "
_READS = ("Get", "List", "Watch", "Explain", "BatchGet")


class Tokens:
    """The tokens of a file with a line `TOKEN read` or `TOKEN write` each; `#` starts a comment.

    Only digests are kept and looked up, so that the time of a look-up tells nothing about a token.
    """

    def __init__(self, path: Path) -> None:
        self._writers: dict[bytes, bool] = {}
        for number, line in enumerate(_lines(path), start=1):
            words = line.partition("#")[0].split()
            if len(words) == 2 and words[1] in {"read", "write"}:
                self._writers[_digest(words[0])] = words[1] == "write"
            elif words:
                raise SettingsError(f"INVENTORY_TOKENS_FILE: line {number} must be a token and `read` or `write`.")

    def check(self, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Refuse a call whose token is unknown or may not do this."""
        value = next((value for name, value in metadata if name == "authorization"), "")
        if not isinstance(value, str) or not value.startswith(_BEARER):
            raise Unauthenticated
        may_write = self._writers.get(_digest(value.removeprefix(_BEARER)))
        if may_write is None:
            raise Unauthenticated
        if not may_write and not method.startswith(_READS):
            raise PermissionDenied(method)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"INVENTORY_TOKENS_FILE cannot be read: {error}.") from None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()

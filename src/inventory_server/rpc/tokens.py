"""Bearer tokens, for servers that ask who calls: each may read, or read and write."""

from __future__ import annotations

import hashlib
from codecs import BOM_UTF8
from typing import TYPE_CHECKING

from inventory_server.errors import PermissionDenied, Unauthenticated
from inventory_server.rpc.reloading import Reloaded
from inventory_server.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

_READS = ("Get", "List", "Watch", "Explain", "BatchGet")


class Tokens(Reloaded):
    """The tokens of a file with a line `TOKEN read` or `TOKEN write` each; `#` starts a comment.

    Only digests are kept and looked up, so that the time of a look-up tells nothing about a token.
    """

    _writers: dict[bytes, bool]

    def __init__(self, path: Path) -> None:
        super().__init__({"INVENTORY_TOKENS_FILE": path})

    def take(self, contents: Sequence[bytes]) -> None:
        writers: dict[bytes, bool] = {}
        # Editors that begin a file with a mark of its encoding show none, and it would be part of the first token.
        for number, line in enumerate(contents[0].removeprefix(BOM_UTF8).splitlines(), start=1):
            words = line.partition(b"#")[0].split()
            if not words:
                continue
            if len(words) != 2 or words[1] not in {b"read", b"write"}:
                raise SettingsError(f"INVENTORY_TOKENS_FILE: line {number} must be a token and `read` or `write`.")
            may_write = words[1] == b"write"
            if writers.setdefault(_digest(words[0]), may_write) != may_write:
                raise SettingsError(
                    f"INVENTORY_TOKENS_FILE: line {number} gives other rights to a token that an earlier line has."
                )
        if not writers:
            # Whoever rewrites a file empties it first, and does not always get further.
            raise SettingsError("INVENTORY_TOKENS_FILE names no token.")
        self._writers = writers

    def check(self, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Refuse a call whose token is unknown or may not do this."""
        value = next((value for name, value in metadata if name == "authorization"), "")
        if not isinstance(value, str):
            raise Unauthenticated
        scheme, _, token = value.partition(" ")
        if scheme.lower() != "bearer":  # in any case, and before one space or more: RFC 9110, section 11.4
            raise Unauthenticated
        may_write = self._writers.get(_digest(token.lstrip(" ").encode("utf-8", "surrogateescape")))
        if may_write is None:
            raise Unauthenticated
        if not may_write and not method.startswith(_READS):
            raise PermissionDenied(method)


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()

"""Files that are read anew when they change: certificates are renewed, and tokens revoked, while the server runs."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from inventory_server.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

log = logging.getLogger(__name__)

# A change counts when two looks in a row have found the same, so it is in force within a second. Thus a file that is
# half written, gone for a moment, or newer than the one it belongs to, goes by unnoticed.
_LOOK_SECONDS = 0.4


class Reloaded(ABC):
    """What is made of some files, by the settings that name them; SettingsError tells what is wrong with them at first.

    Files that are wrong later on change nothing, and the log says so once. They are compared by what is in them: they
    are small, and neither times nor inodes tell whether a mounted secret is another one.
    """

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self._paths = paths
        self._seen = self._known = self._read()
        self._take(self._known)

    @abstractmethod
    def take(self, contents: Sequence[bytes]) -> None:
        """Put new contents in force, or raise SettingsError and change nothing."""

    def look(self) -> None:
        """Take what has changed and stays so. It reads files: not for the event loop."""
        found = self._read()
        settled, self._seen = found == self._seen, found
        if not settled or found == self._known:
            return
        self._known = found
        try:
            self._take(found)
        except SettingsError as mistake:
            log.warning("%s What was read before stays in force.", mistake)
        except Exception:
            log.exception("what was read before stays in force")
        else:
            log.info("read anew: %s", ", ".join(self._paths))

    def _read(self) -> tuple[bytes, ...] | str:
        try:
            return tuple(_content(name, path) for name, path in self._paths.items())
        except SettingsError as mistake:
            return str(mistake)

    def _take(self, found: tuple[bytes, ...] | str) -> None:
        if isinstance(found, str):
            raise SettingsError(found)
        self.take(found)


async def follow(files: Sequence[Reloaded]) -> None:
    """Look at files for ever."""
    while files:
        await asyncio.sleep(_LOOK_SECONDS)
        for each in files:
            await asyncio.to_thread(each.look)


def _content(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{name} cannot be read: {error}.") from None

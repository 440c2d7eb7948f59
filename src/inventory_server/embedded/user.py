"""Whom PostgreSQL runs as, which refuses to be root and to be nobody that has a name."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

from inventory_server.embedded.process import OURSELVES, EmbeddedError, User, environment, guarded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def user_for(program: Path, directory: Path) -> User:
    """Choose the first identity under which `program` starts in `directory`: ourselves, if we are a user with a name.

    Otherwise (root, or the bare number that `docker run --user` gives) a user namespace that shows us as an ordinary
    user, and for root, where containers forbid namespaces, the user nobody.
    """
    if os.geteuid() != 0 and _has_name(os.geteuid()):
        return OURSELVES
    refusals = []
    for way, user in _candidates():
        command = guarded([str(program), "--version"], user=user, directory=directory, death_signal=signal.SIGTERM)
        tried = subprocess.run(  # noqa: S603 - the command is ours
            command, capture_output=True, text=True, timeout=30, check=False, env=environment(), start_new_session=True
        )
        if tried.returncode == 0:
            return user
        refusals.append(f"{way} failed ({tried.stderr.strip() or tried.returncode})")
    raise EmbeddedError(
        f"The embedded PostgreSQL runs neither as root nor as a user without a name, and {' and '.join(refusals)}: "
        "run as an ordinary user, or set INVENTORY_DATABASE_URL."
    )


def hand_over(tree: Path, user: User) -> None:
    """Make the user, as the world outside its namespace knows it, own the tree; a later start may choose another."""
    owner = user.uid if user.uid >= 0 else os.geteuid()
    if os.geteuid() != 0 or tree.stat().st_uid == owner:
        return
    _chown(tree, owner, user.gid if user.gid >= 0 else os.getegid())


def give_back(tree: Path) -> None:
    """Have the owner of the directory that the tree lies in own it again, who could not start there after root."""
    directory = tree.parent.stat()
    if os.geteuid() == 0 and directory.st_uid != 0 and tree.exists():
        _chown(tree, directory.st_uid, directory.st_gid)


def _chown(tree: Path, owner: int, group: int) -> None:
    for path in tree.rglob("*"):
        os.chown(path, owner, group, follow_symlinks=False)
    # Last, so that an interrupted walk is walked again.
    os.chown(tree, owner, group)


def _candidates() -> Iterator[tuple[str, User]]:
    nobody = _nobody()
    shown_as = (f"--map-user={nobody.pw_uid}", f"--map-group={nobody.pw_gid}")
    yield "unshare --user", User(wrapper=(shutil.which("unshare") or "/usr/bin/unshare", "--user", *shown_as))
    if os.geteuid() == 0:
        yield f"the user {nobody.pw_name}", User(uid=nobody.pw_uid, gid=nobody.pw_gid)


def _nobody() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam("nobody")
    except KeyError:
        others = [user for user in pwd.getpwall() if user.pw_uid != 0]
    if not others:
        raise EmbeddedError("The embedded PostgreSQL needs a user beside root in /etc/passwd.")
    return others[0]


def _has_name(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True

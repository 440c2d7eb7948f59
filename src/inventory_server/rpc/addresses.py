"""Whose an address is. gRPC says nothing when it takes a socket's path from a server, or gets one address of two."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_PATH_BYTES_MAX = 107 if sys.platform == "linux" else 103
# An address of a name that this machine does not have, such as that of `localhost` in IPv6, is done without.
_NOT_OURS = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


class ListenError(Exception):
    """An address cannot be served; the sentence says why."""

    def __init__(self, address: str, why: str) -> None:
        super().__init__(f"Cannot listen on {address}: {why}")


@contextlib.contextmanager
def claimed(address: str, *, shared: bool) -> Iterator[None]:
    """Make sure that an address may be served by us, before gRPC binds it; a path stays ours for the block."""
    if address.startswith("unix:"):
        with _path_held(address):
            yield
    else:
        with held(address, shared=shared):
            pass
        yield


@contextlib.contextmanager
def held(address: str, *, shared: bool) -> Iterator[None]:
    """Keep host and port for our workers, who can bind them as long as the block lasts, while another service cannot.

    Unless `shared`, nobody else may have bound them before. Nobody listens here, so all connections are the workers'.
    """
    host, _, port = address.rpartition(":")
    if int(port) == 0:  # whatever the kernel chooses is free
        yield
        return
    with contextlib.ExitStack() as stack:
        ours = 0
        for family, where in _resolved(address, host, port):
            bound = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            ours += _bind(bound, address, where, shared=shared)
        if ours == 0:
            raise ListenError(address, "that is no address of this machine.")
        yield


def _resolved(address: str, host: str, port: str) -> dict[tuple[socket.AddressFamily, Any], None]:
    try:
        name = host.removeprefix("[").removesuffix("]")
        # Of localhost gRPC serves the addresses of both families, whatever /etc/hosts says; so does None.
        found = socket.getaddrinfo(None if name == "localhost" else name, int(port), type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise ListenError(address, "nobody knows that host.") from None
    return dict.fromkeys((family, where) for family, *_, where in found)


def _bind(bound: socket.socket, address: str, where: Any, *, shared: bool) -> bool:
    """Take an address, or tell that it is none of this machine."""
    try:
        # Connections of a server that has ended are no hindrance, as to gRPC.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
        if bound.family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        bound.bind(where)
        # From now on those share who want to share, and nobody else.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    except OSError as error:
        if error.errno in _NOT_OURS:
            return False
        if error.errno == errno.EADDRINUSE:
            raise ListenError(address, f"another process has port {where[1]} of {where[0]}.") from None
        raise ListenError(address, f"{error.strerror}.") from None
    return True


@contextlib.contextmanager
def _path_held(address: str) -> Iterator[None]:
    path = _path(address)
    with contextlib.ExitStack() as stack:
        try:
            # The file stays: unlinking it would let two servers each lock a file of that name.
            lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
            stack.callback(os.close, lock)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ListenError(address, "another server does.") from None
        except OSError as error:
            raise ListenError(address, f"{path}.lock cannot be had: {error.strerror}.") from None
        if _answers(path):
            raise ListenError(address, "another process does.")
        yield


def socket_path(address: str) -> Path:
    """Give the path of a socket, as gRPC reads it."""
    text = address.removeprefix("unix:")
    return Path(text.removeprefix("//") if text.startswith("///") else text)


def _path(address: str) -> Path:
    """Give the path of a socket that can be listened on."""
    path = socket_path(address)
    if len(os.fsencode(path)) > _PATH_BYTES_MAX:
        raise ListenError(address, f"the path of a socket has at most {_PATH_BYTES_MAX} bytes.")
    if not path.parent.is_dir():
        raise ListenError(address, f"there is no directory {path.parent}.")
    return path


def _answers(path: Path) -> bool:
    """Tell whether anybody listens. What a server that was killed left behind is no hindrance: gRPC removes it."""
    with socket.socket(socket.AF_UNIX) as caller:
        try:
            caller.connect(str(path))
        except OSError:
            return False
        return True

"""Becomes a program that ends with the process that started it.

    python _guard.py SIGNAL PARENT UID GID DIRECTORY program argument...

Linux sends SIGNAL (0: none) when the *thread* that started this one ends. UID and GID are taken on unless negative.
A script of its own, because code between fork and exec (`preexec_fn`) may deadlock beside threads.
"""

from __future__ import annotations

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    death_signal, parent, uid, gid = (int(argument) for argument in sys.argv[1:5])
    directory, *command = sys.argv[5:]
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    # After the change of user, which would forget it. It survives exec, unshare's too.
    if death_signal and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, death_signal)
        if os.getppid() != parent:
            sys.exit("the process that started this one has ended")
    os.chdir(directory)
    os.execv(command[0], command)  # noqa: S606 - no shell is the point


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        sys.exit(str(error))

"""Become an unprivileged user of the machine, then a program: hand-ins of root's.

    python -I -S dropping.py PARENT USER SOURCE PLACE ... -- PROGRAM ARGUMENTS

is started by root as a file, and needs nothing but Python. What that user may not
reach, because a folder above it is private, is mounted at the given places first, in a
name space of mounts that nobody else sees. There is no way back: the program has no
rights of root left that it could take up again. It ends with its parent, the grader of
that number.
"""

import ctypes
import os
import sys
from collections.abc import Sequence

_NEW_MOUNTS, _BIND, _RECURSIVE, _PRIVATE = 0x00020000, 4096, 16384, 1 << 18

_END_WITH_PARENT, _KILL = 1, 9


def main() -> None:
    """Do what the command line says."""
    end = sys.argv.index("--")
    parent, user, *places = sys.argv[1:end]
    if places:
        mount(places[::2], places[1::2])
    drop(int(user))
    end_with(int(parent))
    command = sys.argv[end + 1 :]
    os.execvp(command[0], command)


def mount(sources: Sequence[str], places: Sequence[str]) -> None:
    """Show each source at its place, to this process and its children alone."""
    library = ctypes.CDLL(None, use_errno=True)

    def check(failed: int) -> None:
        if failed:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def bind(source: str, place: str, how: int) -> None:
        paths = os.fsencode(source), os.fsencode(place)
        check(library.mount(*paths, None, ctypes.c_ulong(how), None))

    check(library.unshare(_NEW_MOUNTS))
    bind("none", "/", _RECURSIVE | _PRIVATE)
    for source, place in zip(sources, places, strict=True):
        bind(source, place, _BIND | _RECURSIVE)


def end_with(parent: int) -> None:
    """End when the parent does; a ValueError if it has ended before."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_END_WITH_PARENT, _KILL)
    if os.getppid() != parent:
        raise ValueError("the grader has ended.")


def drop(user: int) -> None:
    """Be this user and nobody else, in no other group."""
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)  # root's: real, effective and saved
    if 0 in (os.getuid(), os.geteuid(), os.getgid(), os.getegid(), *os.getgroups()):
        raise PermissionError("root's rights could not be given up.")
    try:
        os.setuid(0)
    except PermissionError:
        return
    raise PermissionError("root's rights could be taken up again.")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as problem:
        sys.exit(f"as root a hand-in cannot be another user here: {problem}")

"""Open a stranger's file: a regular one, of a size, without following links."""

import errno
import os
import stat
from pathlib import Path


class NotANotebookError(ValueError):
    """A file that is no notebook with answers; the message says why."""


def content(path: Path, most: int, *, advice: str = "") -> tuple[bytes, float]:
    """A regular file's bytes and the time of its last change.

    Args:
        path: of the file.
        most: bytes that it may have.
        advice: where it has more.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        # Looked at first, because opening a device can do something.
        _check(os.lstat(path), most, advice)
        number = os.open(path, flags)
        try:
            # One descriptor for all: what is looked at is what is read.
            status = os.fstat(number)
            _check(status, most, advice)
            # `open` would lose the descriptor of a folder.
            with open(number, "rb", closefd=False) as file:
                return file.read(most + 1)[:most], status.st_mtime
        finally:
            os.close(number)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK):
            raise NotANotebookError("it is a link, which is not followed.") from None
        raise NotANotebookError(f"it cannot be read: {error.strerror}.") from None


def _check(status: os.stat_result, most: int, advice: str) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise NotANotebookError("it is a link, which is not followed.")
    if not stat.S_ISREG(status.st_mode):
        raise NotANotebookError("it is no file but something else.")
    if status.st_size > most:
        size = (
            f"it has {_in_words(status.st_size)}; at most {_in_words(most)} are read."
        )
        raise NotANotebookError(f"{size} {advice}".strip())


def _in_words(size: int) -> str:
    return f"{size / 1e6:,.0f} MB" if size >= 1e6 else f"{size / 1e3:,.0f} kB"

"""Folders of the grader's own, which a dead grader's successor clears away."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import crowds

_PREFIX = "precode-box-"
_NAME = re.compile(rf"{_PREFIX}\w{{8}}")
USERS = range(0x70000000, 0x7FFFFFFF)  # of hand-ins, where root marks


@contextmanager
def folder() -> Iterator[Path]:
    """Lend a new folder that nobody else may look into."""
    clear_left_over()
    made = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_where()))
    lock = crowds.hold(made)
    try:
        yield made
    finally:
        # A hand-in without a box may have taken away permissions.
        shutil.rmtree(made, ignore_errors=True)
        if lock is not None:
            os.close(lock)


@contextmanager
def folders() -> Iterator[tuple[Path, Path]]:
    """Lend one for the examiner's socket, and one for the hand-in's files."""
    with folder() as made:
        meeting, scratch = made / "meeting", made / "scratch"
        meeting.mkdir(), scratch.mkdir()
        yield meeting, scratch


def clear_left_over() -> None:
    """Remove the folders of graders that were killed; never a living one's."""
    with os.scandir(_where() or tempfile.gettempdir()) as entries:
        found = [e for e in entries if _NAME.fullmatch(e.name) and _is_ours(e)]
    for entry in found:
        if crowds.is_left_over(Path(entry.path)):
            shutil.rmtree(entry.path, ignore_errors=True)


def _is_ours(entry: os.DirEntry) -> bool:
    try:
        user, ours = entry.stat(follow_symlinks=False).st_uid, os.geteuid()
        is_ours = user == ours or (ours == 0 and user in USERS)
        return is_ours and entry.is_dir(follow_symlinks=False)
    except OSError:  # it has gone meanwhile
        return False


def _where() -> str | None:
    # /tmp where it is: a socket's path may have about a hundred characters.
    return "/tmp" if os.path.isdir("/tmp") else None

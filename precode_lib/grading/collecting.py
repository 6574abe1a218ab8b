"""Find the hand-ins of a folder and read them, before any of them is run."""

import errno
import hashlib
import os
import stat
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from .assembly import Assembled, Clean, NotANotebookError, assemble, parse, stem_in
from .assembly import which as which_notebook

LARGEST = 20_000_000  # bytes of a notebook with pictures in it
# No hand-ins: backups of Jupyter, and what macOS and Windows leave in archives.
_PASSED_OVER = {"__MACOSX", "__pycache__"}


@dataclass(frozen=True)
class HandIn:
    """One file of a student.

    Args:
        student: the first folder below the one of all hand-ins, or what stands before
            the chapter's name in the file's name.
        file: its path in the folder of all hand-ins, fit to be shown.
        clean: the notebook it belongs to; None if that cannot be known.
        assembled: what is run; None if there is a problem.
        problem: why it cannot be run.
        changed: when the file was last changed, in seconds.
        digest: of the content.
    """

    student: str
    file: str
    clean: Clean | None
    assembled: Assembled | None
    problem: str
    changed: float
    digest: str


def collect(folder: Path, clean: Mapping[str, Clean]) -> list[HandIn]:
    """All hand-ins of a folder, in the alphabetical order of their paths."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder; name the one with hand-ins.")
    paths = sorted(_paths(folder), key=lambda path: alphabetical(str(path)))
    found = [_read(folder, path, clean) for path in paths]
    if not found:
        raise FileNotFoundError(f"there is no .ipynb file in {folder} or below.")
    return found


def without_notebook(folder: Path) -> list[str]:
    """What lies in the folder and holds no notebook: perhaps students' other files."""
    with_one = {path.relative_to(folder).parts[0] for path in _paths(folder)}
    entries = [
        entry
        for entry in folder.iterdir()
        if entry.name not in with_one | _PASSED_OVER and not entry.name.startswith(".")
    ]
    return sorted(map(_content_in_words, entries), key=alphabetical)


def _content_in_words(entry: Path) -> str:
    if entry.is_symlink() or not entry.is_dir():
        return printable(entry.name)
    files = (Path(place, name) for place, _, names in os.walk(entry) for name in names)
    first = next(files, None)
    inside = f"with {first.relative_to(entry)}" if first else "empty"
    return printable(f"{entry.name} ({inside})")


def alphabetical(text: str) -> tuple[str, str]:
    """A key to sort by as people do: neither capitals nor accents come first."""
    letters = unicodedata.normalize("NFKD", text.casefold())
    return "".join(c for c in letters if not unicodedata.combining(c)), text


def _paths(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):  # follows no links
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and name not in _PASSED_OVER
        ]
        for name in [*files, *folders]:
            is_notebook = name.lower().endswith(".ipynb") and not name.startswith(".")
            if is_notebook:
                yield Path(place, name)


def _read(folder: Path, path: Path, clean: Mapping[str, Clean]) -> HandIn:
    data, changed, problem, notebook, assembled = b"", 0.0, "", None, None
    try:
        data, changed = _content(path)
        notebook = parse(data)
    except NotANotebookError as error:
        problem = str(error)
    its_clean = None
    try:
        its_clean = which_notebook(notebook, path.name, clean)
        if its_clean is None and not problem:
            problem = "which exercises it is for cannot be told, nor has it answers."
        if its_clean is not None and notebook is not None:
            assembled = assemble(notebook, its_clean)
    except NotANotebookError as error:
        problem = str(error)
    relative = path.relative_to(folder)
    return HandIn(
        student=_student(relative, clean),
        file=printable(relative.as_posix()),
        clean=its_clean,
        assembled=assembled,
        problem=problem,
        changed=changed,
        digest=hashlib.sha256(data).hexdigest(),
    )


def _content(path: Path) -> tuple[bytes, float]:
    """A file's bytes and the time of its last change."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        # One descriptor for all: what is looked at is what is read.
        with open(os.open(path, flags), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise NotANotebookError("it is no file but something else.")
            if status.st_size > LARGEST:
                raise NotANotebookError(
                    f"it has {status.st_size / 1e6:,.0f} MB; at most "
                    f"{LARGEST / 1e6:.0f} MB are read. Clear its outputs."
                )
            return file.read(LARGEST + 1)[:LARGEST], status.st_mtime
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK):
            raise NotANotebookError("it is a link, which is not followed.") from None
        raise NotANotebookError(f"it cannot be read: {error.strerror}.") from None


def _student(relative: Path, clean: Mapping[str, Clean]) -> str:
    if len(relative.parts) > 1:
        return printable(relative.parts[0])
    name = relative.stem
    before = name.partition(stem_in(name, clean) or name)[0].strip(" _-.")
    return printable(before or name)


def printable(text: str) -> str:
    """The text in one line, without what a terminal or a browser would obey."""
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if unicodedata.category(c)[0] != "C" else "\ufffd" for c in text)

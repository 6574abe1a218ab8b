"""Look through the folder of hand-ins, without following links or opening files."""

import os
import re
import stat
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .names import alphabetical

MOST_ENTRIES = 20_000  # files and folders of one student that are looked at
DEEPEST = 20  # folders in one another
# Of macOS, Windows, editors and version control; nobody's work.
_PASSED_OVER = {"__MACOSX", "__pycache__", "Thumbs.db", "desktop.ini"}
_HIDDEN = re.compile(
    r"\.(_.*|~.*|DS_Store|ipynb_checkpoints|git.*|vscode|idea|venv|cache|config|local"
    r"|jupyter|ipython|pytest_cache|ruff_cache|mypy_cache|virtual_documents|Trash.*)$"
)
_ARCHIVE = re.compile(r"\.(zip|rar|7z|tar|tgz|gz|bz2|xz)$", re.IGNORECASE)


@dataclass
class Part:
    """What one entry of the folder holds: mostly a student's folder.

    Args:
        name: of the entry.
        notebooks: by their names; whatever they are.
        modules: the Python files of each of its folders.
        remarks: why a path was not looked at.
        others: how many other files there are.
        example: the path of one of them.
    """

    name: str
    notebooks: list[Path] = field(default_factory=list)
    modules: dict[Path, list[Path]] = field(default_factory=lambda: defaultdict(list))
    remarks: dict[Path, str] = field(default_factory=dict)
    others: int = 0
    example: Path | None = None


def parts(folder: Path) -> list[Part]:
    """What each entry of the folder holds, in alphabetical order."""
    names = sorted(os.listdir(folder), key=alphabetical)
    return [_part(folder, name) for name in names if name not in _PASSED_OVER]


def _part(folder: Path, name: str) -> Part:
    part = Part(name)
    for count, (path, kind) in enumerate(_below(folder / name, part)):
        if count == MOST_ENTRIES:
            why = f"it holds more than {MOST_ENTRIES:,} files, so not all were seen"
            part.remarks[folder / name] = why
            break
        _note(part, path, kind)
    return part


def _below(top: Path, part: Part) -> Iterator[tuple[Path, int]]:
    """The path, and all below it where it is a folder, with what kind each is."""
    waiting = [(top, 0)]
    while waiting:
        path, depth = waiting.pop()
        try:
            kind = stat.S_IFMT(os.lstat(path).st_mode)
        except OSError as error:
            part.remarks[path] = f"cannot be read: {error.strerror}"
            continue
        if _is_hidden(path.name):
            if not _HIDDEN.match(path.name):
                part.remarks[path] = "its name begins with a dot"
            continue
        yield path, kind
        if kind != stat.S_IFDIR:
            continue
        if depth == DEEPEST:
            part.remarks[path] = f"more than {DEEPEST} folders in one another"
            continue
        try:
            names = os.listdir(path)
        except OSError as error:
            part.remarks[path] = f"cannot be looked into: {error.strerror}"
            continue
        # The last goes first, so that what is found is in order.
        seen = [n for n in names[: MOST_ENTRIES + 1] if n not in _PASSED_OVER]
        waiting += [(path / name, depth + 1) for name in sorted(seen, reverse=True)]


def _is_hidden(name: str) -> bool:
    return name.startswith(".")


def _note(part: Part, path: Path, kind: int) -> None:
    name = path.name.lower()
    if name.endswith(".ipynb"):
        part.notebooks.append(path)
    elif kind == stat.S_IFDIR:
        pass
    else:
        part.others += 1
        part.example = part.example or path
        if kind == stat.S_IFREG and name.endswith(".py"):
            part.modules[path.parent].append(path)
        if ".ipynb" in name:
            part.remarks[path] = "its name does not end in .ipynb"
        elif _ARCHIVE.search(name):
            part.remarks[path] = "an archive is not opened"

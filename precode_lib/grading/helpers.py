"""Modules that are handed in beside a notebook, for `from helpers import loss`.

They come into the box as text: the notebook's first cell writes them into a folder of
its own at the end of the path on which Python looks for modules. So nothing that Python
would find without them is found there, neither by the notebook nor by its driver.
"""

import base64
import hashlib
import keyword
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.machinery import PathFinder
from pathlib import Path

from .names import printable
from .reading import NotANotebookError, content

MOST = 10  # modules of one notebook
LARGEST = 200_000  # bytes of one
MOST_BYTES = 500_000  # of all
# Found by Python or pytest on their own, wherever they lie.
_NEVER = {"conftest", "sitecustomize", "usercustomize", "precode_lib"}
_CELL = """\
# Modules that were handed in beside the notebook.
def _take(files):
    import base64, pathlib, sys

    folder = pathlib.Path.home() / "handed_in"
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_bytes(base64.b64decode(text))
    sys.path.append(str(folder))


_take({files})
del _take"""


@dataclass(frozen=True)
class Modules:
    """What a notebook imports from files beside it.

    Args:
        files: content by name.
        refused: sentences on what it would import, and does not get.
    """

    files: Mapping[str, bytes] = field(default_factory=dict)
    refused: Sequence[str] = ()

    @property
    def cell(self) -> str:
        """The code that puts them where they can be imported; empty without any."""
        if not self.files:
            return ""
        as_text = {n: base64.b64encode(d).decode() for n, d in self.files.items()}
        return _CELL.replace("{files}", repr(as_text))

    @property
    def digest(self) -> bytes:
        """A hash of names and contents; nothing without any."""
        return hashlib.sha256(self.cell.encode()).digest() if self.files else b""


NO_MODULES = Modules()


def wanted(code: Iterable[str], beside: Iterable[Path]) -> Modules:
    """Of the files beside a notebook those that its code imports, and that they do."""
    by_name = {path.stem: path for path in beside}
    if not by_name:
        return NO_MODULES
    files: dict[str, bytes] = {}
    refused = []
    texts = ["\n".join(code)]
    while texts:
        for name in sorted(_imported(texts.pop()) & by_name.keys()):
            path = by_name.pop(name)
            data, problem = _taken(path, files)
            if problem:
                refused.append(printable(f"{path.name}: {problem}"))
                continue
            files[path.name] = data
            texts.append(data.decode("utf-8", "replace"))
    return Modules(files, refused)


def _imported(text: str) -> set[str]:
    """The words of all lines that import something."""
    lines = re.findall(r"^.*\bimport\b.*$", text, flags=re.MULTILINE)
    return {word for line in lines for word in re.findall(r"\w+", line)}


def _taken(path: Path, files: Mapping[str, bytes]) -> tuple[bytes, str]:
    """The content of a module, or why it is not taken."""
    if problem := _bad_name(path.stem):
        return b"", problem
    if len(files) == MOST:
        return b"", f"more than {MOST} modules"
    try:
        data, _ = content(path, LARGEST)
    except NotANotebookError as error:
        return b"", str(error)
    if sum(map(len, files.values())) + len(data) > MOST_BYTES:
        return b"", f"together more than {MOST_BYTES / 1e6:g} MB"
    return data, ""


def _bad_name(name: str) -> str:
    if not name.isascii() or not name.isidentifier() or keyword.iskeyword(name):
        return "no name for a module"
    is_known = name in sys.stdlib_module_names or name in sys.builtin_module_names
    # Without the folder in which the command was started: hand-ins may lie there.
    places = [place for place in sys.path if place]
    if is_known or name in _NEVER or PathFinder.find_spec(name, places):
        return "Python has a module of this name already"
    return ""

"""What an audit has finished, on disk: killed at any moment, it goes on from there.

One file for each finding, one for the plan of the searches, and one for a search under
way. All are whole or not there, and none is unpickled: tensors, lists, numbers, text.
"""

import hashlib
import inspect
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from pickle import UnpicklingError
from types import CodeType
from typing import Any

import torch
from torch import Tensor, nn

import precode_lib
from precode_lib.basics.files import atomic_file


class Journal:
    """A folder of what is finished, of one audit and no other.

    Args:
        folder: None keeps nothing.
        audit: a digest of all that decides what is found; another audit in the same
            folder has other files.
    """

    def __init__(self, folder: Path | None, audit: str):
        self._folder = None if folder is None else Path(folder) / audit[:16]

    def read(self, name: str) -> dict[str, Any] | None:
        """What was kept under this name; None if nothing readable."""
        file = self._file(name)
        if file is None or not file.exists():
            return None
        try:
            return torch.load(file, weights_only=True, map_location="cpu")
        except (RuntimeError, EOFError, UnpicklingError, ValueError, OSError):
            return None  # cut short by whatever wrote it: done again

    def write(self, name: str, state: Mapping[str, Any]) -> None:
        """Keep this under the name."""
        file = self._file(name)
        if file is not None:
            with atomic_file(file) as partial:
                torch.save(dict(state), partial)

    def forget(self, name: str) -> None:
        """Keep no longer what is no longer needed."""
        file = self._file(name)
        if file is not None:
            file.unlink(missing_ok=True)

    def clear(self) -> None:
        """The audit is reported: nothing is left to go on with."""
        if self._folder is None or not self._folder.exists():
            return
        for file in self._folder.iterdir():
            file.unlink(missing_ok=True)
        with suppress(OSError):  # somebody else's audit, just now
            self._folder.rmdir()
            self._folder.parent.rmdir()  # if it is empty

    def _file(self, name: str) -> Path | None:
        if self._folder is None:
            return None
        plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60]
        mark = hashlib.sha256(name.encode()).hexdigest()[:8]
        return self._folder / f"{plain}-{mark}.pt"


def digest(*parts: object) -> str:
    """One name for models, tensors and settings, whatever their order in memory."""
    sums = hashlib.sha256(precode_lib.__version__.encode())
    for part in parts:
        _feed(sums, part)
    return sums.hexdigest()


def _code(thing: object) -> str:
    """What a class or a function does, if it is anybody's own."""
    name = f"{thing.__module__}.{getattr(thing, '__qualname__', '')}"
    if name.startswith(("torch.", "precode_lib.")):
        return name  # of these the versions decide
    functions = vars(thing).values() if isinstance(thing, type) else [thing]
    codes = [getattr(each, "__code__", None) for each in functions]
    return name + "".join(_told(code) for code in codes if code is not None)


def _told(code: CodeType) -> str:
    """Its steps, names and constants; those of the functions inside it as well."""
    inner = [c for c in code.co_consts if isinstance(c, CodeType)]
    plain = [c for c in code.co_consts if not isinstance(c, CodeType)]
    return f"{code.co_code!r}{code.co_names}{plain}" + "".join(map(_told, inner))


def _feed(sums, part: object) -> None:
    if isinstance(part, nn.Module):
        _feed(sums, part.state_dict())
        sums.update(str(part).encode())
        for kind in dict.fromkeys(type(each) for each in part.modules()):
            _feed(sums, kind)
    elif isinstance(part, type) or inspect.isroutine(part):
        sums.update(_code(part).encode())
    elif isinstance(part, Tensor):
        plain = part.detach().cpu().contiguous()
        sums.update(f"{plain.dtype}{tuple(plain.shape)}".encode())
        sums.update(plain.flatten().view(torch.uint8).numpy().tobytes())
    elif isinstance(part, Mapping):
        for name, value in part.items():
            sums.update(str(name).encode())
            _feed(sums, value)
    elif isinstance(part, list | tuple):
        for each in part:
            _feed(sums, each)
    else:
        sums.update(repr(part).encode())

"""The folder where downloads and decoded pictures are kept, always whole files."""

import hashlib
import os
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from precode_lib.basics.files import atomic_file

Arrays = Mapping[str, np.ndarray]


def cache_folder() -> Path:
    """The folder in the variable PRECODE_DATA, or `precode` in the user's own cache."""
    chosen = os.environ.get("PRECODE_DATA")
    if chosen:
        return Path(chosen).expanduser()
    import pooch

    return Path(pooch.os_cache("precode"))


def cached(key: str, build: Callable[[], Arrays]) -> Arrays:
    """Return what `build` returns, without building twice for the same key.

    A copy that can't be read is built anew; a cache that can't be written is a warning.
    """
    file = cache_folder() / "decoded" / f"{key}.npz"
    kept = _load(file)
    if kept is not None:
        return kept
    arrays = build()
    try:
        with atomic_file(file) as partial:
            np.savez(partial, **arrays)
    except OSError as problem:
        warnings.warn(
            f"Could not keep the decoded pictures in {file.parent} ({problem}); they "
            "will be decoded again next time. PRECODE_DATA names another folder.",
            stacklevel=2,
        )
    return arrays


def _load(file: Path) -> Arrays | None:
    try:
        # Opened here, because np.load forgets to close a file that it can't read.
        with open(file, "rb") as stream:
            return dict(np.load(stream, allow_pickle=False))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None


def sha256(file: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with open(file, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()

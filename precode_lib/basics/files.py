"""Files that are whole or not there."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_file(file: Path) -> Iterator[Path]:
    """Lend a path to write to; it becomes `file` if all goes well, else vanishes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    # Same folder, because only there is the final rename atomic.
    partial = file.with_name(f".partial-{uuid.uuid4().hex}{file.suffix}")
    try:
        yield partial
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)

"""What was found of each hand-in, kept in a file each, so that a run can be resumed."""

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import precode_lib
from precode_lib.data.cache import atomic_file

from .collecting import HandIn
from .limits import Limits
from .running import Run


@dataclass(frozen=True)
class Store:
    """A folder of runs; a run is found again if all is the same that decides about it.

    Args:
        folder: that may not exist yet.
        kind: of sandbox.
        limits: of a run.
    """

    folder: Path
    kind: str
    limits: Limits

    def load(self, hand_in: HandIn) -> Run | None:
        """What was found earlier; None if nothing was, or it cannot be read."""
        with suppress(OSError, ValueError, TypeError, KeyError):
            kept = json.loads(self._path(hand_in).read_text(encoding="utf-8"))
            cells = {int(number): cell for number, cell in kept.pop("cells").items()}
            return Run(cells=cells, **kept)
        return None

    def save(self, hand_in: HandIn, run: Run) -> None:
        """Keep what was found, whole or not at all."""
        with atomic_file(self._path(hand_in)) as partial:
            partial.write_text(json.dumps(asdict(run), indent=1), encoding="utf-8")

    def _path(self, hand_in: HandIn) -> Path:
        clean = hand_in.clean.digest if hand_in.clean else ""
        parts = [hand_in.file, hand_in.digest, clean, self._setting]
        key = hashlib.sha256("\0".join(parts).encode()).hexdigest()
        return self.folder / f"{key[:24]}.json"

    @cached_property
    def _setting(self) -> str:
        return f"{library_digest()} {self.kind} {self.limits}"


def library_digest() -> str:
    """A hash of the library's own files."""
    folder = Path(precode_lib.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()

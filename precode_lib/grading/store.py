"""What was found of each hand-in, kept in a file each, so that a run can be resumed."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import precode_lib
from precode_lib.basics.files import atomic_file

from .collecting import HandIn
from .endings import CAUSES, ENDINGS, OF_THE_MACHINE
from .limits import Limits
from .running import Run

LARGEST = 1e15  # no number in a run is larger
LONGEST = 100_000  # characters; what the examiner and the driver say is shorter
_STATES = ("right", "unanswered", "wrong", "raised")


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
        """What was found earlier; None if nothing was.

        A file that holds no sound run is thrown away: it would be read each time.
        """
        try:
            kept = json.loads(self._path(hand_in).read_text(encoding="utf-8"))
            if {*kept} != {field.name for field in fields(Run)}:
                raise ValueError("no run of this version")
            cells = {int(number): cell for number, cell in kept.pop("cells").items()}
            run = Run(cells=cells, **kept)
            if sound(run) == run:
                return run
        except FileNotFoundError:
            return None
        except Exception:  # whatever is wrong with it
            pass
        self.forget(hand_in)
        return None

    def save(self, hand_in: HandIn, run: Run | None) -> None:
        """Keep what was found, whole or not at all; a failure is tried again."""
        if run is None or run.cause in OF_THE_MACHINE:
            return
        with atomic_file(self._path(hand_in)) as partial:
            partial.write_text(json.dumps(asdict(run), indent=1), encoding="utf-8")

    def forget(self, hand_in: HandIn) -> None:
        """Throw away what was found."""
        with suppress(OSError):
            self._path(hand_in).unlink(missing_ok=True)

    def _path(self, hand_in: HandIn) -> Path:
        clean = hand_in.clean.digest if hand_in.clean else ""
        parts = [hand_in.path, hand_in.digest, clean, self._setting]
        # Names that are no Unicode have surrogates.
        key = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape"))
        return self.folder / f"{key.hexdigest()[:24]}.json"

    @cached_property
    def _setting(self) -> str:
        return f"{library_digest()} {self.kind} {self.limits}"


def sound(run: Run) -> Run:
    """The run without what no honest one holds, or a ValueError.

    What a hand-in's side says of its cells may be anything. All else is our own words,
    but was perhaps read from a file.
    """
    cells = {n: cell for n, cell in run.cells.items() if n >= 0 and _is_cell(cell)}
    for name, finding in run.findings.items():
        if not _is_finding(name, finding):
            raise ValueError(f"what was found of {name!r:.60} is no finding")
    if run.cause not in CAUSES:
        raise ValueError(f"the cause is {run.cause!r:.60}")
    for field in fields(Run):
        value, usual = getattr(run, field.name), field.default
        if field.name in ("cells", "findings"):
            continue
        kinds = (int, float) if type(usual) is float else (type(usual),)
        if type(value) not in kinds or not _is_bounded(value):
            raise ValueError(f"{field.name} is {value!r:.60}")
    return replace(run, cells=cells)


def _is_cell(cell: Any) -> bool:
    is_known = isinstance(cell, Mapping) and {"error", "seconds", "how"} <= {*cell}
    return (
        is_known
        and type(cell["error"]) is str
        and type(cell["seconds"]) in (int, float)
        and cell["how"] in ENDINGS
        and all(_is_bounded(value) for value in cell.values())
    )


def _is_finding(name: Any, finding: Any) -> bool:
    if not isinstance(finding, Mapping):
        return False
    texts = [finding.get(key, "") for key in ("message", "text", "code")]
    return (
        type(name) is str
        and finding.get("state") in _STATES
        and all(type(text) is str for text in texts)
        and type(finding.get("asked")) is int
        and all(_is_bounded(value) for value in finding.values())
    )


def _is_bounded(value: Any) -> bool:
    """Whether it is a short text, or a number of a usual size."""
    if type(value) is str:
        return len(value) <= LONGEST
    if type(value) in (int, float):
        return -1 <= value <= LARGEST  # NaN is not
    return value is None or type(value) is bool


def library_digest() -> str:
    """A hash of the library's own files."""
    folder = Path(precode_lib.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()

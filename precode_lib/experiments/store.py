"""Finished cells as files: one JSON each, whole at any moment, safe for two writers.

A cell's file holds the cell, its result, the pictures it used and how it was made. What
is unfinished lives elsewhere (`Lab.work`), so that a folder of results is always what
was really measured.
"""

import json
import platform
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import precode_lib
from precode_lib.experiments.cells import (
    Cell,
    from_dict,
    kind_of,
    reseeded,
    to_dict,
    version_of,
)

# Reading results is quick: what it does not need is imported where it is needed.
if TYPE_CHECKING:
    import torch

RESULTS = Path("data", "results")


class BusyError(RuntimeError):
    """Another process is at work on this cell."""


@dataclass(frozen=True)
class Finished:
    """A cell that was run: what came out, on which pictures, and how.

    Args:
        cell: what was run.
        result: numbers, as the kind of cell has them.
        pictures: name, number and fidelity of each collection that was used; of victims
            also which of the collection they are.
        made: versions, commit, device, date, time and seconds.
        key: the name of its file.
        version: of its results, see `version_of`.
        data: the checksum of all its pictures that is part of the key; the first files
            do not say it.
    """

    cell: Cell
    result: Mapping[str, Any]
    pictures: list[Mapping[str, Any]]
    made: Mapping[str, Any]
    key: str
    version: int = 1
    data: str = ""


class Store:
    """A folder of finished cells; iterating gives those of the present version."""

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)

    def file(self, key: str) -> Path:
        """Where a cell of this key is or will be."""
        return self.folder / f"{key}.json"

    def read(self, key: str) -> Finished | None:
        """The finished cell, or None if it was not run."""
        file = self.file(key)
        return _read(file) if file.exists() else None

    def write(self, finished: Finished) -> None:
        """Keep a finished cell; a file appears whole or not at all."""
        from precode_lib.basics.files import atomic_file

        entry = {
            "cell": to_dict(finished.cell),
            "result": finished.result,
            "units": _units(finished),
            "pictures": finished.pictures,
            "data": finished.data,
            "made": finished.made,
            "version": version_of(finished.cell),
        }
        with atomic_file(self.file(finished.key)) as partial:
            partial.write_text(_pretty(entry), encoding="utf-8")

    def __iter__(self) -> Iterator[Finished]:
        for file in sorted(self.folder.glob("*.json")):
            # What starts with a dot is being written, or its writer was killed.
            if file.name.startswith("."):
                continue
            finished = _read(file)
            if finished.version == version_of(finished.cell):
                yield finished


def find(cells: Iterable[Cell], store: Store) -> dict[Cell, Finished]:
    """The finished ones among the cells, by what they are; pictures aren't needed.

    Where several files hold the same cell, measured on different copies of a data set,
    the one made last counts; and of its other seeds only those on pictures like these.
    """
    wanted = set(cells)
    there = [finished for finished in store if finished.cell in wanted]
    there.sort(key=_moment)
    # Of all seeds: a mean over them must not mix pictures.
    last = {reseeded(finished.cell, 0): finished for finished in there}
    return {
        finished.cell: finished
        for finished in there
        if _is_on_pictures_of(finished, last[reseeded(finished.cell, 0)])
    }


def default_folder() -> Path:
    """The folder of results of the repository, if it is one, or else one below here."""
    repository = _repository()
    return (Path.cwd() if repository is None else repository) / RESULTS


def shipped(folder: Path) -> set[str]:
    """The keys of the cells in a folder that came with the repository.

    Where git can't be asked, as in a downloaded archive, those are all that lie there.
    """
    repository = _repository()
    if repository is None or repository / RESULTS not in folder.absolute().parents:
        return set()
    listed = _git("ls-files", "--", str(folder.absolute()))
    files = folder.glob("*.json") if listed is None else map(Path, listed.splitlines())
    return {file.stem for file in files}


@cache
def commit() -> str:
    """Which code this is: the checkout's commit, or the version where there is none.

    A process says it once: what it has imported does not change when files do.
    """
    found = _git("rev-parse", "HEAD") or ""
    if not found:
        return f"precode_lib {precode_lib.__version__}"
    is_changed = _git("status", "--porcelain", "--", "precode_lib") != ""
    return f"{found.strip()}{' with changes' if is_changed else ''}"


def make_writable(folder: Path) -> None:
    """Make the folder, and see that a file can be written into it; else OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


@contextmanager
def claimed(work: Path, key: str, *, patience: float = 0) -> Iterator[None]:
    """Keep others from this cell meanwhile; raises BusyError if another is at it.

    The operating system gives the claim back when a process dies, however it dies.

    Args:
        patience: seconds to wait for another to let go.
    """
    from filelock import FileLock, Timeout

    work.mkdir(parents=True, exist_ok=True)
    lock = FileLock(work / f"{key}.lock")
    try:
        lock.acquire(timeout=patience)
    except Timeout as problem:
        raise BusyError(f"{key} is being run by another process") from problem
    try:
        yield
    finally:
        lock.release()


def made(device: "torch.device", seconds: float) -> dict[str, Any]:
    """How a result came about, at this moment and on this machine."""
    import torch

    now = datetime.now(timezone.utc)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "precode_lib": precode_lib.__version__,
        "commit": commit(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": f"{device.type}: {name}",
        "threads": torch.get_num_threads(),
        "date": now.strftime("%Y-%m-%d"),
        "time": now.strftime("%H:%M:%S.%f"),
        "processor_seconds": round(seconds, 3),  # smoke takes hundredths
    }


def rounded(value: Any, digits: int = 6) -> Any:
    """Floats with so many significant digits, in whatever they are nested in."""
    if isinstance(value, float):
        return float(f"{value:.{digits}g}")
    if isinstance(value, Mapping):
        return {name: rounded(each, digits) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(each, digits) for each in value]
    return value


def _moment(finished: Finished) -> tuple[str, str]:
    """When it was made; the first files say the day alone, and count as early on it."""
    return finished.made["date"], finished.made.get("time", "")


def _read(file: Path) -> Finished:
    try:
        entry = json.loads(file.read_text(encoding="utf-8"))
        cell = from_dict(entry["cell"])
        parts = entry["result"], entry["pictures"], entry["made"]
        # The first files say neither.
        version, data = entry.get("version", 1), entry.get("data", "")
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise ValueError(
            f"{file} is not a result that can be read ({problem}); move it away, and "
            "the cell is run again."
        ) from problem
    return Finished(cell, *parts, key=file.stem, version=version, data=data)


def _units(finished: Finished) -> dict[str, str]:
    """What the values of a result are, and the one field that has a unit of its own."""
    known = kind_of(finished.cell).values
    said = {name: str(known[name]) for name in finished.result if name in known}
    return {"setup.beta": "of a KL in bits", **said}


def _is_on_pictures_of(finished: Finished, other: Finished) -> bool:
    """Whether two results are of the same pictures, as far as both say so."""
    described, theirs = ([_described(p) for p in f.pictures] for f in (finished, other))
    is_said = bool(finished.data and other.data)
    return described == theirs and (not is_said or finished.data == other.data)


def _described(pictures: Mapping[str, Any]) -> dict[str, Any]:
    """A collection without what the first files do not say of it."""
    return {name: value for name, value in pictures.items() if name != "indices"}


def _repository() -> Path | None:
    """The folder of the book's repository, if the library lies in it."""
    folder = Path(precode_lib.__file__).parents[1]
    return folder if (folder / "pyproject.toml").exists() else None


def _git(*arguments: str) -> str | None:
    """What git says in the repository; None where there is no git, or no checkout."""
    folder = _repository()
    if folder is None or not (folder / ".git").exists():
        return None
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _pretty(entry: Mapping[str, Any]) -> str:
    """One line per field, lists of numbers on one line: small, and good to compare."""
    lines = [
        f'"{part}": {{\n'
        + ",\n".join(f"  {json.dumps(n)}: {json.dumps(v)}" for n, v in value.items())
        + "\n}"
        if isinstance(value, Mapping)
        else f'"{part}": {json.dumps(value)}'
        for part, value in entry.items()
    ]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        names = [line for line in text.splitlines() if line.startswith("model name")]
        return names[0].split(":", 1)[1].strip()
    except (OSError, IndexError):
        return platform.processor() or platform.machine()

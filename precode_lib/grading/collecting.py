"""Find the hand-ins of a folder and read them, before any of them is run."""

import hashlib
import os
import re
import stat
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from . import assembly, helpers, names
from .assembly import Assembled, Clean
from .reading import NotANotebookError, content
from .walking import Part, parts

LARGEST = 20_000_000  # bytes of a notebook with pictures in it
# Of one student; more is no work, and would keep the others waiting.
MOST_FILES = 200
MOST_BYTES = 100_000_000  # read
MOST_RUN = 5  # versions of one notebook
MOST_SAID = 5  # remarks of one kind on one student
_COPY = re.compile(
    r"\((\d{1,6})\)|\bcopy[ _-]?(\d{0,6})|[ _-]kopie[ _-]?(\d{0,6})", re.I
)


@dataclass(frozen=True)
class HandIn:
    """One file of a student.

    Args:
        student: the first folder below the one of all hand-ins, or what stands before
            the chapter's name in the file's name; as it is shown.
        file: its path in the folder of all hand-ins, as it is shown.
        clean: the notebook it belongs to; None if that cannot be known.
        assembled: what is run; None if there is a problem.
        problem: why it cannot be run.
        changed: when the file was last changed, in seconds.
        digest: of the content, and of the modules that come with it.
        owner: what the student is really called; no two students share it.
        path: what the file is really called; no two files share it.
    """

    student: str
    file: str
    clean: Clean | None
    assembled: Assembled | None
    problem: str
    changed: float
    digest: str
    owner: str
    path: str

    @property
    def age(self) -> tuple:
        """Orders a student's files: the later is the larger.

        Where the times are the same, as after unpacking, a copy such as
        `labels (1).ipynb` is later than what it is a copy of.
        """
        return self.changed, *_name_age(self.path)


@dataclass(frozen=True)
class Collected:
    """What a folder holds.

    Args:
        hand_ins: in the alphabetical order of their paths.
        remarks: sentences on what was not taken, and on names that look alike.
    """

    hand_ins: Sequence[HandIn]
    remarks: Sequence[str]


def collect(folder: Path, clean: Mapping[str, Clean]) -> Collected:
    """All hand-ins of a folder; whatever one of them is, the others are read."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder; name the one with hand-ins.")
    found = parts(folder)
    of_owner: dict[str, list[Path]] = defaultdict(list)
    for part in found:
        for path in part.notebooks:
            of_owner[_owner(path.relative_to(folder), clean)].append(path)
    if not of_owner:
        raise FileNotFoundError(f"there is no .ipynb file in {folder} or below.")
    modules = {place: its for part in found for place, its in part.modules.items()}
    hand_ins: list[HandIn] = []
    remarks = []
    for owner, paths in of_owner.items():
        theirs, left = _of_one(folder, owner, paths, clean, modules)
        hand_ins += theirs
        remarks += [f"Not all of {names.printable(owner)} was read: {left}"] * bool(
            left
        )
    hand_ins.sort(key=lambda one: names.alphabetical(one.path))
    hand_ins = _named(hand_ins)
    return Collected(
        hand_ins, [*_confusable(hand_ins), *remarks, *_beside(folder, found)]
    )


def _of_one(
    folder: Path,
    owner: str,
    paths: Sequence[Path],
    clean: Mapping[str, Clean],
    modules: Mapping[Path, Sequence[Path]],
) -> tuple[list[HandIn], str]:
    """One student's hand-ins, and what is to be said where they are too many."""
    latest = sorted(paths, key=lambda path: _path_age(folder, path), reverse=True)
    hand_ins, size = [], 0
    for path in latest[:MOST_FILES]:
        if size > MOST_BYTES:
            break
        # A folder of all students' files is nobody's, so its modules are not either.
        beside = modules.get(path.parent, ()) if path.parent != folder else ()
        one, read = _read(folder, path, owner, clean, beside)
        hand_ins.append(one)
        size += read
    left = ""
    if len(hand_ins) < len(paths):
        left = f"of {len(paths):,} notebooks only the {len(hand_ins):,} latest were"
    return _latest_only(hand_ins), left


def _path_age(folder: Path, path: Path) -> tuple:
    """Regular files after others, and later files after earlier ones."""
    is_file, changed = False, 0.0
    try:
        status = os.lstat(path)
        is_file, changed = stat.S_ISREG(status.st_mode), status.st_mtime
    except OSError:
        pass  # said when it is read
    return is_file, changed, *_name_age(path.relative_to(folder).as_posix())


def _name_age(path: str) -> tuple:
    name = path.rpartition("/")[2]
    copies = [m for found in _COPY.findall(name) for m in found if m]
    number = int(copies[-1]) if copies else int(bool(_COPY.search(name)))
    return number, names.natural(path)


def _latest_only(hand_ins: Sequence[HandIn]) -> list[HandIn]:
    """Without what would be run, where there are many later ones for the notebook."""
    runs: Counter[str] = Counter()
    kept = []
    for one in sorted(hand_ins, key=lambda one: one.age, reverse=True):
        if one.assembled is not None:
            runs[one.clean.stem] += 1
            if runs[one.clean.stem] > MOST_RUN:
                why = f"it was not run, as there are {MOST_RUN} later ones for it."
                one = replace(one, assembled=None, problem=why)
        kept.append(one)
    return kept


def _named(hand_ins: Sequence[HandIn]) -> list[HandIn]:
    """With names to be shown, of which no two are alike."""
    students = names.told_apart(one.owner for one in hand_ins)
    files = names.told_apart(one.path for one in hand_ins)
    return [
        replace(one, student=students[one.owner], file=files[one.path])
        for one in hand_ins
    ]


def _confusable(hand_ins: Sequence[HandIn]) -> list[str]:
    students = {one.owner: one.student for one in hand_ins}
    files: dict[str, dict[str, str]] = defaultdict(dict)
    for one in hand_ins:
        files[one.owner][one.path] = one.file
    sentences = _alike(students, "students")
    for owner, theirs in files.items():
        found = _alike(theirs, "files")
        sentences += found[:MOST_SAID]
        if (more := len(found) - MOST_SAID) > 0:
            sentences.append(f"Look alike: {more:,} more of {students[owner]}")
    return sentences


def _alike(shown: Mapping[str, str], kind: str) -> list[str]:
    return [
        f"Look alike, and are {len(group)} {kind}: "
        + ", ".join(shown[name] for name in group[:5])
        for group in names.alike(shown)
    ]


def _beside(folder: Path, found: Sequence[Part]) -> list[str]:
    """What the folder holds besides hand-ins: perhaps students' other files."""
    sentences = []
    for part in found:
        remarks = dict(part.remarks)
        is_said = part.name.startswith(".") or folder / part.name in remarks
        if not part.notebooks and not is_said:
            why = remarks.pop(part.example, "")
            sentences.append(f"No notebook: {_content(folder, part, why)}")
        for path, why in [*remarks.items()][:MOST_SAID]:
            sentences.append(f"Not looked at: {_shown(folder, path)}: {why}")
        if (more := len(remarks) - MOST_SAID) > 0:
            sentences.append(f"Not looked at: {more:,} more of {part.name}")
    return [names.printable(sentence) for sentence in sentences]


def _shown(folder: Path, path: Path) -> str:
    return names.printable(path.relative_to(folder).as_posix())[:300]


def _content(folder: Path, part: Part, why: str) -> str:
    top = folder / part.name
    if top.is_symlink():
        return f"{part.name} (a link, which is not followed)"
    if part.example == top:  # a file by itself
        return part.name
    if part.example is None:
        return part.name if part.remarks else f"{part.name} (empty)"
    inside = f"with {part.example.relative_to(top)}"
    if part.others > 1:
        inside += f" and {part.others - 1:,} more"
    return f"{part.name} ({inside}{why and ', '}{why})"


def _read(
    folder: Path,
    path: Path,
    owner: str,
    clean: Mapping[str, Clean],
    beside: Sequence[Path],
) -> tuple[HandIn, int]:
    """One hand-in, and how many bytes were read of it."""
    data, changed, problem = b"", 0.0, ""
    its_clean = assembled = None
    digest = hashlib.sha256()
    try:
        its_clean = clean.get(assembly.stem_in(path.name, clean))
        data, changed = content(path, LARGEST, advice="Clear its outputs.")
        digest.update(data)
        notebook = assembly.parse(data)
        its_clean = assembly.which(notebook, path.name, clean)
        if its_clean is None:
            raise NotANotebookError(
                "which exercises it is for cannot be told, nor has it answers."
            )
        modules = helpers.wanted(assembly.code_cells(notebook), beside)
        digest.update(modules.digest)
        assembled = assembly.assemble(notebook, its_clean, modules)
    except NotANotebookError as error:
        problem = str(error)
    except Exception as error:  # whatever it is, it is about this file alone
        problem = f"it cannot be read: {type(error).__name__}: {str(error)[:200]}"
    relative = path.relative_to(folder).as_posix()
    return HandIn(
        student=owner,
        file=relative,
        clean=its_clean,
        assembled=assembled,
        problem=names.printable(problem),
        changed=changed,
        digest=digest.hexdigest(),
        owner=owner,
        path=relative,
    ), len(data)


def _owner(relative: Path, clean: Mapping[str, Clean]) -> str:
    if len(relative.parts) > 1:
        return relative.parts[0]
    name = relative.stem
    before = name.partition(assembly.stem_in(name, clean) or name)[0].strip(" _-.")
    return before or name

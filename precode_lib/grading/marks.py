"""From what was found to marks: a row per hand-in and exercise, and tables of them."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields

from precode_lib.checks.examiner import CUT_SHORT

from .collecting import HandIn, printable
from .running import Run

STATES = ("right", "unanswered", "wrong", "raised", "missing", "stopped")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "|", "%")


@dataclass(frozen=True)
class Row:
    """The mark of one exercise of one hand-in.

    Args:
        student: as `HandIn` says.
        notebook: the chapter's name.
        file: the hand-in.
        exercise: the marker's name; empty if it is not known what was handed in.
        state: "right", if and only if the examiner said so; "unanswered" (TODO is still
            there), "wrong", "raised" (an error in the student's code), "missing" (there
            is no such answer cell) or "stopped" (the hand-in, before it came to this).
        message: for the student.
        asked: how often the notebook asked; more than once is worth a look.
        seconds: its cells took, as the hand-in's side says.
    """

    student: str
    notebook: str
    file: str
    exercise: str
    state: str
    message: str
    asked: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Marked:
    """A hand-in with its rows, and the texts that a person has to read."""

    hand_in: HandIn
    rows: Sequence[Row]
    texts: Mapping[str, str]
    run: Run | None = None

    @property
    def ended(self) -> bool:
        """Whether it was run, and not stopped before its end."""
        return all(row.state != "stopped" for row in self.rows)


def mark(hand_in: HandIn, run: Run | None) -> Marked:
    """The marks of a hand-in; run is None where it could not be run."""
    clean = hand_in.clean
    head = (hand_in.student, clean.stem if clean else "", hand_in.file)
    if run is None or clean is None or hand_in.assembled is None:
        names = clean.names if clean else [""]
        rows = [Row(*head, name, "stopped", hand_in.problem) for name in names]
        return Marked(hand_in, rows, {})
    rows = [Row(*head, name, *_mark(hand_in, run, name)) for name in clean.names]
    kinds = {exercise.name: exercise.kind for exercise in clean.exercises}
    texts = {
        name: str(found["text"])
        for name in clean.names
        if kinds[name] == "Open question"
        and (found := run.findings.get(f"{clean.stem}.{name}"))
    }
    return Marked(hand_in, rows, texts, run)


def _mark(hand_in: HandIn, run: Run, name: str) -> tuple[str, str, int, float]:
    assembled = hand_in.assembled
    cells = [i for i, its in enumerate(assembled.exercise_of) if its == name]
    seconds = round(sum(run.cells[i]["seconds"] for i in cells if i in run.cells), 1)
    is_there = name in assembled.answers
    found = run.findings.get(f"{hand_in.clean.stem}.{name}")
    if found is None:
        state, message = _unasked(run, cells) if is_there else _MISSING
        return state, message, 0, seconds
    state, message, asked = found["state"], found["message"], found["asked"]
    if state == "unanswered" and not is_there:
        state, message = _MISSING
    if message == CUT_SHORT and run.stopped:
        state, message = "stopped", _reason(run)
    return state, message, asked, seconds


_MISSING = ("missing", "there is no answer cell for this exercise in the hand-in.")


def _unasked(run: Run, cells: Sequence[int]) -> tuple[str, str]:
    """Why an exercise that was answered was not judged."""
    errors = [run.cells[i]["error"] for i in cells if i in run.cells]
    error = next(filter(None, errors), "")
    if "kernel died" in error.lower() or "kernel dead" in error.lower():
        return "stopped", "the notebook's process ended here or before."
    if "timeout" in error.lower() or "printed more" in error:
        return "stopped", f"its cell was stopped: {error}"
    if error:
        return "raised", f"its cell stopped with {error}"
    if run.stopped:
        return "stopped", _reason(run)
    return "raised", "its check was run but nobody was asked."


def _reason(run: Run) -> str:
    return f"the notebook was stopped: {run.stopped}."


def counted(marked: Sequence[Marked]) -> list[Marked]:
    """Of several files of a student for one notebook, the one that was changed last."""
    latest: dict[tuple[str, str], Marked] = {}
    for one in sorted(marked, key=lambda m: (m.hand_in.changed, m.hand_in.file)):
        stem = one.hand_in.clean.stem if one.hand_in.clean else ""
        latest[one.hand_in.student, stem] = one
    kept = {id(one) for one in latest.values()}
    return [one for one in marked if id(one) in kept]


def solved(one: Marked) -> tuple[int, int]:
    """How many exercises of a hand-in are right, and of how many."""
    total = len(one.hand_in.clean.names) if one.hand_in.clean else 0
    return sum(row.state == "right" for row in one.rows), total


def marks_csv(marked: Sequence[Marked]) -> str:
    """One line per hand-in and exercise."""
    names = [field.name for field in fields(Row)]
    return _csv(names, [[*asdict(row).values()] for one in marked for row in one.rows])


def summary_csv(marked: Sequence[Marked]) -> str:
    """One line per student: of each notebook how many exercises are right."""
    known = {one.hand_in.clean.stem for one in marked if one.hand_in.clean}
    stems = sorted(known)
    of_student: dict[str, dict[str, Marked]] = {}
    for one in counted(marked):
        stem = one.hand_in.clean.stem if one.hand_in.clean else ""
        of_student.setdefault(one.hand_in.student, {})[stem] = one
    lines = []
    for student, notebooks in sorted(of_student.items()):
        pairs = [solved(notebooks[s]) if s in notebooks else None for s in stems]
        cells = [f"{p[0]} of {p[1]}" if p else "" for p in pairs]
        total = [sum(part) for part in zip((0, 0), *filter(None, pairs), strict=True)]
        lines.append([student, *cells, *total])
    return _csv(["student", *stems, "solved", "total"], lines)


def _csv(head: Sequence[str], lines: Sequence[Sequence]) -> str:
    file = io.StringIO()
    # \r\n is CSV's own; quoting everything leaves a spreadsheet least to guess.
    writer = csv.writer(file, quoting=csv.QUOTE_ALL)
    writer.writerow(head)
    writer.writerows([[harmless(value) for value in line] for line in lines])
    return file.getvalue()


def harmless(value: object) -> object:
    """A value that no spreadsheet takes for a formula, in one line."""
    if not isinstance(value, str):
        return value
    text = printable(" / ".join(value.split("\n")))
    # Blanks before it do not stop every spreadsheet.
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text


def as_json(marked: Sequence[Marked]) -> str:
    """All rows as JSON."""
    return json.dumps([asdict(row) for one in marked for row in one.rows], indent=1)

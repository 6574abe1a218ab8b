"""From what was found to marks: a row per hand-in and exercise, and tables of them."""

import csv
import io
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace

from precode_lib.checks.examiner import CUT_SHORT, MOST_TEXT, NOTHING_CAME

from .assembly import Clean
from .collecting import HandIn, alphabetical, printable
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
        seconds: its cells took, as the hand-in's side says. Whole, since a spreadsheet
            may take 3.8 for a day in August.
    """

    student: str
    notebook: str
    file: str
    exercise: str
    state: str
    message: str
    asked: int = 0
    seconds: int = 0


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


def mark(
    hand_in: HandIn, run: Run | None, only: Collection[str] | None = None
) -> Marked:
    """The marks of a hand-in.

    Args:
        hand_in: that was run.
        run: None where it could not be run.
        only: the exercises that count, such as "labels.any_features"; None for all.
    """
    clean = hand_in.clean
    head = (hand_in.student, clean.stem if clean else "", hand_in.file)
    names = chosen(clean, only) if clean else [""]
    if run is None or clean is None or hand_in.assembled is None:
        rows = [Row(*head, name, "stopped", hand_in.problem) for name in names]
        return Marked(hand_in, rows, {})
    rows = [Row(*head, name, *_mark(hand_in, run, name)) for name in names]
    texts = {}
    for number, row in enumerate(rows):
        if clean.exercise(row.exercise).kind != "Open question":
            continue
        found = run.findings.get(f"{clean.stem}.{row.exercise}", {"text": ""})
        texts[row.exercise] = str(found["text"])
        if row.state in ("unanswered", "missing") and hand_in.assembled.words:
            rows[number] = replace(row, message=ELSEWHERE)
            texts[row.exercise] = "\n\n".join(hand_in.assembled.words)[:MOST_TEXT]
    return Marked(hand_in, rows, {name: t for name, t in texts.items() if t}, run)


def chosen(clean: Clean, only: Collection[str] | None) -> list[str]:
    """The names of a notebook's exercises that count."""
    all_names = clean.names
    return [n for n in all_names if only is None or f"{clean.stem}.{n}" in only]


def _mark(hand_in: HandIn, run: Run, name: str) -> tuple[str, str, int, int]:
    assembled = hand_in.assembled
    cells = [i for i, its in enumerate(assembled.exercise_of) if its == name]
    seconds = round(sum(run.cells[i]["seconds"] for i in cells if i in run.cells))
    is_there = name in assembled.answers
    found = run.findings.get(f"{hand_in.clean.stem}.{name}")
    if found is None:
        given = [i for i, its in enumerate(assembled.exercise_of) if not its]
        state, message = _unasked(run, cells, given) if is_there else _MISSING
        return state, message, 0, seconds
    state, message, asked = found["state"], found["message"], found["asked"]
    if state == "unanswered":
        state, message = (state, "there is no answer yet.") if is_there else _MISSING
    if message.startswith(NOTHING_CAME) and (why := _cut_off(run, cells)):
        state, message = "stopped", why
    if message == CUT_SHORT and run.stopped:
        state, message = "stopped", _reason(run)
    return state, message, asked, seconds


_MISSING = ("missing", "there is no answer cell for this exercise in the hand-in.")
ELSEWHERE = (
    "the answer cell holds no answer, but there is text in other cells, for a person "
    "to read."
)


def _unasked(run: Run, cells: Sequence[int], given: Sequence[int]) -> tuple[str, str]:
    """Why an exercise that was answered was not judged."""
    if why := _cut_off(run, cells):
        return "stopped", why
    # Without the imports an honest answer raises, and so it would seem to be at fault.
    before = [i for i in given if cells and i < cells[-1]]
    if why := _cut_off(run, before):
        return "stopped", f"a given cell before it did not end: {why}"
    if error := _errors(run, cells):
        return "raised", f"its cell stopped with {error[0]}"
    if run.stopped:
        return "stopped", _reason(run)
    return "raised", "its check was run but nobody was asked."


def _errors(run: Run, cells: Sequence[int]) -> list[str]:
    return [e for i in cells if i in run.cells and (e := run.cells[i]["error"])]


def _cut_off(run: Run, cells: Sequence[int]) -> str:
    """Why the first of these cells with an error did not end; empty if it raised."""
    error = next(iter(_errors(run, cells)), "")
    if "kernel died" in error.lower() or "kernel dead" in error.lower():
        earlier = [e for e in _errors(run, sorted(run.cells)) if _is_stop(e)]
        reason = f": {earlier[0]}" if earlier else "."
        return f"the notebook's process ended here or before{reason}"
    return f"its cell was stopped: {error}" if _is_stop(error) else ""


def _is_stop(error: str) -> bool:
    return "timeout" in error.lower() or "printed more" in error


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
    total = len(one.rows) if one.hand_in.clean else 0
    return sum(row.state == "right" for row in one.rows), total


def marks_csv(marked: Sequence[Marked]) -> str:
    """One line per hand-in and exercise."""
    records = _records(marked)
    names = [*(field.name for field in fields(Row)), "counts"]
    return _csv(names, [[*record.values()] for record in records])


def _records(marked: Sequence[Marked]) -> list[dict]:
    """All rows; `counts` is "no" where the student has a later file."""
    last = {id(one) for one in counted(marked)}
    return [
        {**asdict(row), "counts": "yes" if id(one) in last else "no"}
        for one in marked
        for row in one.rows
    ]


def summary_csv(marked: Sequence[Marked]) -> str:
    """One line per student: of each notebook how many exercises are right.

    `stopped` counts those of which nothing is known, and which a person should look at.
    """
    known = {one.hand_in.clean.stem for one in marked if one.hand_in.clean}
    stems = sorted(known)
    of_student: dict[str, dict[str, Marked]] = {}
    for one in counted(marked):
        stem = one.hand_in.clean.stem if one.hand_in.clean else ""
        of_student.setdefault(one.hand_in.student, {})[stem] = one
    lines = []
    for student in sorted(of_student, key=alphabetical):
        notebooks = of_student[student]
        pairs = [solved(notebooks[s]) if s in notebooks else None for s in stems]
        cells = [f"{p[0]} of {p[1]}" if p else "" for p in pairs]
        total = [sum(part) for part in zip((0, 0), *filter(None, pairs), strict=True)]
        rows = [row for one in notebooks.values() for row in one.rows]
        stopped = sum(row.state == "stopped" for row in rows)
        lines.append([student, *cells, *total, stopped])
    return _csv(["student", *stems, "solved", "total", "stopped"], lines)


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
    return json.dumps(_records(marked), indent=1)

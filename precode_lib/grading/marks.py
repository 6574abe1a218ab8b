"""From what was found to marks: a row per hand-in and exercise."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from precode_lib.marking.examiner import MOST_TEXT

from .assembly import Clean
from .collecting import HandIn
from .endings import OF_THE_MACHINE
from .running import Run

STATES = ("right", "unanswered", "wrong", "raised", "missing", "stopped")
MOST_SECONDS, MOST_ASKED = 99_999, 9_999  # in a table


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
    """A hand-in with its marks.

    Args:
        hand_in: that was marked.
        rows: one for each exercise.
        texts: by exercise, what a person has to read.
        run: what was found; None where it could not be run.
        elsewhere: exercises whose text was in other cells than the answer's.
    """

    hand_in: HandIn
    rows: Sequence[Row]
    texts: Mapping[str, str]
    run: Run | None = None
    elsewhere: Sequence[str] = ()

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
    if run is None or clean is None or hand_in.assembled is None:
        return unmarked(hand_in, hand_in.problem, only)
    head = (hand_in.student, clean.stem, hand_in.file)
    rows = [Row(*head, n, *_mark(hand_in, run, n)) for n in chosen(clean, only)]
    texts, elsewhere = {}, []
    for number, row in enumerate(rows):
        if clean.exercise(row.exercise).kind != "Open question":
            continue
        found = run.findings.get(f"{clean.stem}.{row.exercise}", {"text": ""})
        texts[row.exercise] = str(found["text"])
        if row.state in ("unanswered", "missing") and hand_in.assembled.words:
            rows[number] = replace(row, message=ELSEWHERE)
            elsewhere.append(row.exercise)
            texts[row.exercise] = "\n\n".join(hand_in.assembled.words)[:MOST_TEXT]
    texts = {name: text for name, text in texts.items() if text}
    return Marked(hand_in, rows, texts, run, elsewhere)


def unmarked(hand_in: HandIn, why: str, only: Collection[str] | None = None) -> Marked:
    """The marks of a hand-in of which nothing is known: each is "stopped"."""
    clean = hand_in.clean
    head = (hand_in.student, clean.stem if clean else "", hand_in.file)
    names = chosen(clean, only) if clean else [""]
    return Marked(hand_in, [Row(*head, name, "stopped", why) for name in names], {})


def chosen(clean: Clean, only: Collection[str] | None) -> list[str]:
    """The names of a notebook's exercises that count."""
    all_names = clean.names
    return [n for n in all_names if only is None or f"{clean.stem}.{n}" in only]


def _mark(hand_in: HandIn, run: Run, name: str) -> tuple[str, str, int, int]:
    assembled = hand_in.assembled
    cells = [i for i, its in enumerate(assembled.exercise_of) if its == name]
    took = sum(run.cells[i]["seconds"] for i in cells if i in run.cells)
    seconds = round(min(max(took, 0), MOST_SECONDS))
    is_there = name in assembled.answers
    missing = ("missing", f"{_MISSING}: {assembled.missing.get(name)}")
    found = run.findings.get(f"{hand_in.clean.stem}.{name}")
    if found is None:
        given = [i for i, its in enumerate(assembled.exercise_of) if not its]
        state, message = _unasked(run, cells, given) if is_there else missing
        return state, message, 0, seconds
    state, message, code = found["state"], found["message"], found.get("code")
    if state == "unanswered" and not is_there:
        state, message = missing
    if code == "nothing_came" and (why := _cut_off(run, cells)):
        state, message = "stopped", why
    if code == "cut_short" and run.stopped:
        state, message = "stopped", _reason(run)
    return state, message, min(found["asked"], MOST_ASKED), seconds


_MISSING = "there is no answer cell for this exercise here"
ELSEWHERE = (
    "the answer cell holds no answer, but there is text in other cells, for a person "
    "to read."
)


def _unasked(run: Run, cells: Sequence[int], given: Sequence[int]) -> tuple[str, str]:
    """Why an exercise that was answered was not judged."""
    if run.cause in OF_THE_MACHINE:
        return "stopped", _reason(run)
    if why := _cut_off(run, cells):
        return "stopped", why
    # Without the imports an honest answer raises, and so it would seem to be at fault.
    before = [i for i in given if cells and i < cells[-1]]
    if why := _cut_off(run, before):
        return "stopped", f"a given cell before it did not end: {why}"
    if failed := _failed(run, cells):
        return "raised", f"its cell stopped with {failed[0]['error']}"
    if run.stopped:
        return "stopped", _reason(run)
    return "raised", "its check was run but nobody was asked."


def _cut_off(run: Run, cells: Sequence[int]) -> str:
    """Why the first of these cells with an error did not end; empty if it raised."""
    first = next(iter(_failed(run, cells)), None)
    if first is None or first["how"] == "raised":
        return ""
    if first["how"] == "died":
        every = _failed(run, sorted(run.cells))
        earlier = [c["error"] for c in every if c["how"] in ("late", "flood")]
        reason = f": {earlier[0]}" if earlier else "."
        return f"the notebook's process ended here or before{reason}"
    return f"its cell was stopped: {first['error']}"


def _failed(run: Run, cells: Sequence[int]) -> list[dict]:
    return [run.cells[i] for i in cells if i in run.cells and run.cells[i]["error"]]


def _reason(run: Run) -> str:
    return f"the notebook was stopped: {run.stopped}."


def counted(marked: Sequence[Marked]) -> list[Marked]:
    """Of several files of a student for one notebook, the one that was changed last."""
    latest: dict[tuple[str, str], Marked] = {}
    for one in marked:
        stem = one.hand_in.clean.stem if one.hand_in.clean else ""
        other = latest.setdefault((one.hand_in.owner, stem), one)
        if other.hand_in.age < one.hand_in.age:
            latest[one.hand_in.owner, stem] = one
    kept = {one.hand_in.path for one in latest.values()}
    return [one for one in marked if one.hand_in.path in kept]


def passed_over(marked: Sequence[Marked]) -> set[str]:
    """The paths of the files that do not count, as there are later ones."""
    kept = {one.hand_in.path for one in counted(marked)}
    return {one.hand_in.path for one in marked} - kept


def solved(one: Marked) -> tuple[int, int]:
    """How many exercises of a hand-in are right, and of how many."""
    total = len(one.rows) if one.hand_in.clean else 0
    return sum(row.state == "right" for row in one.rows), total


def by_student(marked: Iterable[Marked]) -> dict[str, list[Marked]]:
    """The hand-ins of each student, by what the student is really called."""
    found: dict[str, list[Marked]] = {}
    for one in marked:
        found.setdefault(one.hand_in.owner, []).append(one)
    return found

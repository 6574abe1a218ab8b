"""One page for the lecturer and one text for each student.

Whatever comes from a hand-in is text here, never markup: all of it goes through
`_text`, and the page's own policy allows no script and loads nothing.
"""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from html import escape

from precode_lib.marking import HANDED_IN

from .assembly import Clean
from .marks import STATES, Marked, Row, by_student, counted, solved
from .marks import passed_over as passed_over_of
from .names import printable

MOST_SAID = 3  # remarks of one kind on one student
MOST_REMARKS = 20  # on a terminal; the page has all

_MEANING = {
    "right": "solved",
    "unanswered": "not answered",
    "wrong": "not right",
    "raised": "the code stopped with an error",
    "missing": "no answer cell",
    "stopped": "could not be run to this point",
}
_SIGN = dict(zip(STATES, "✓·✗!?■", strict=True))
_STYLE = """
:root { color-scheme: light dark; --line: #8886; --right: #1a6b2d; --not: #a1260d; }
@media (prefers-color-scheme: dark) { :root { --right: #7fd391; --not: #ff9c85; } }
body { font: 1rem/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem;
  padding: 0 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; }
caption { text-align: start; font-weight: 600; padding-block: .5rem; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .8rem; text-align: start;
  vertical-align: top; }
.right { color: var(--right); } .not { color: var(--not); }
.right, .not { display: inline-block; min-width: 1em; text-align: center; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font: inherit; margin: 0;
  max-width: 45rem; }
blockquote { border-inline-start: 3px solid var(--line); margin: .5rem 0;
  padding-inline-start: 1rem; }
h2, p, li { overflow-wrap: anywhere; } small { font-weight: normal; }
summary { cursor: pointer; padding-block: .3rem; }
"""


def page(marked: Sequence[Marked], *, how: str, others: Sequence[str] = ()) -> str:
    """The lecturer's page: a table of all, then each hand-in with its texts.

    Args:
        marked: in the order to show them.
        how: sentences on how they were run.
        others: sentences on what the folder holds besides.
    """
    passed_over = passed_over_of(marked)
    students = {one.hand_in.owner for one in marked}
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Marks</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>",
        "<h1>Marks</h1>",
        f"<p>{len(students)} students, {len(marked)} hand-ins. {_text(how)}</p>",
        _remarks(remarks(marked, others)),
        _overview(marked, passed_over),
        _legend(),
        *(_hand_in(one, number, passed_over) for number, one in enumerate(marked)),
        "</main>\n</body>\n</html>\n",
    ]
    return "\n".join(parts)


def remarks(marked: Sequence[Marked], others: Sequence[str] = ()) -> list[str]:
    """What a person should look at before believing the tables, a sentence each."""
    found = []
    passed_over = passed_over_of(marked)
    for theirs in by_student(marked).values():
        every = [_stopped(theirs), _missing(theirs), _elsewhere(theirs)]
        every += [_not_taken(theirs), _later(theirs, passed_over)]
        for kind in every:
            found += kind[:MOST_SAID]
            if len(kind) > MOST_SAID:
                start = kind[0].partition(":")[0]
                more, who = len(kind) - MOST_SAID, theirs[0].hand_in.student
                found.append(f"{start}: {more:,} more of {who}")
    return [printable(sentence) for sentence in [*found, *others]]


def for_terminal(remarks: Sequence[str]) -> list[str]:
    """The first of many remarks, and how many the page has besides."""
    more = len(remarks) - MOST_REMARKS
    last = [f"{more} more: see the report."] if more > 0 else []
    return [*remarks[:MOST_REMARKS], *last]


def summary(marked: Sequence[Marked], how: str) -> str:
    """What came of a class, in a sentence; `how` names the sandbox."""
    stopped = sum(not one.ended for one in marked)
    return (
        f"{len(marked)} hand-ins marked, {stopped} of them stopped or unreadable; "
        f"sandbox: {how}."
    )


def _stopped(theirs: Sequence[Marked]) -> list[str]:
    firsts = [
        (one.hand_in.file, next((r for r in one.rows if r.state == "stopped"), None))
        for one in theirs
    ]
    return [
        f"Stopped or unreadable: {file}: {row.message[:500]}"
        for file, row in firsts
        if row is not None
    ]


def _missing(theirs: Sequence[Marked]) -> list[str]:
    found = []
    for one in theirs:
        causes = [_cause(one, row) for row in one.rows if row.state == "missing"]
        if causes:
            found.append(f"Missing: {one.hand_in.file}: {' '.join(causes)}"[:1000])
    return found


def _cause(one: Marked, row: Row) -> str:
    cause = one.hand_in.assembled.missing.get(row.exercise, "not handed in.")
    return f"{row.exercise}: {cause}"


def _elsewhere(theirs: Sequence[Marked]) -> list[str]:
    return [
        f"Text outside its answer cell: {one.hand_in.file}"
        for one in theirs
        if one.elsewhere
    ]


def _not_taken(theirs: Sequence[Marked]) -> list[str]:
    return [
        f"Not taken, though imported: {one.hand_in.file}: {sentence}"
        for one in theirs
        if one.hand_in.assembled is not None
        for sentence in one.hand_in.assembled.refused
    ]


def _later(theirs: Sequence[Marked], passed_over: Collection[str]) -> list[str]:
    return [
        f"Does not count: {one.hand_in.file}; the same student has a later one for "
        "this notebook"
        for one in theirs
        if one.hand_in.path in passed_over
    ]


def _remarks(sentences: Sequence[str]) -> str:
    if not sentences:
        return ""
    items = "\n".join(f"<li>{_text(one)}</li>" for one in sentences)
    return f"<h2>To look at</h2>\n<ul>{items}</ul>"


def _text(value: object) -> str:
    """Text from anywhere, fit to stand between tags and in attributes."""
    lines = str(value).split("\n")
    return escape("\n".join(map(printable, lines)), quote=True)


def _overview(marked: Sequence[Marked], passed_over: Collection[str]) -> str:
    rows = []
    for number, one in enumerate(marked):
        right, total = solved(one)
        stem = one.hand_in.clean.stem if one.hand_in.clean else "unknown"
        signs = " ".join(_sign(row.state) for row in one.rows)
        not_counted = "; does not count" if one.hand_in.path in passed_over else ""
        rows.append(
            f'<tr><th scope="row" dir="auto"><a href="#hand-in-{number}">'
            f"{_text(one.hand_in.student)}</a></th><td>{_text(stem)}</td>"
            f"<td>{right} of {total}{not_counted}</td><td>{signs}</td></tr>"
        )
    head = "".join(
        f'<th scope="col">{name}</th>'
        for name in ("Student", "Notebook", "Solved", "Exercises")
    )
    return (
        '<div class="wide" role="region" aria-label="All hand-ins" tabindex="0">'
        f"<table><caption>All hand-ins</caption><thead><tr>{head}</tr></thead>\n"
        f"<tbody>{chr(10).join(rows)}</tbody></table></div>"
    )


def _sign(state: str) -> str:
    kind = "right" if state == "right" else "not"
    meaning = _MEANING[state]
    return (
        f'<span class="{kind}" role="img" aria-label="{meaning}">{_SIGN[state]}</span>'
    )


def _legend() -> str:
    parts = [f"{_sign(state)} {state}: {_MEANING[state]}" for state in STATES]
    return f"<p>{'; '.join(parts)}.</p>"


def _hand_in(one: Marked, number: int, passed_over: Collection[str]) -> str:
    hand_in, run = one.hand_in, one.run
    stem = hand_in.clean.stem if hand_in.clean else "unknown notebook"
    notes = [f"File: {hand_in.file}."]
    if run is not None:
        notes.append(f"{run.seconds:.0f} s, {run.memory / 1e6:,.0f} MB.")
        notes += [f"Stopped: {run.stopped}."] if run.stopped else []
    if run is not None and run.malformed:
        notes.append("It spoke to the examiner as no check does: look at it.")
    if hand_in.path in passed_over:
        notes.append("Does not count: the student has a later one for this notebook.")
    shown = one.rows if run is not None else one.rows[:1]  # else all are the same
    rows = "\n".join(_row(row, one) for row in shown)
    head = "".join(
        f'<th scope="col">{name}</th>' for name in ("Exercise", "State", "Message")
    )
    return (
        f'<section id="hand-in-{number}"><h2><bdi>{_text(hand_in.student)}</bdi>: '
        f"{_text(stem)}</h2>\n<p>{_text(' '.join(notes))}</p>\n"
        f'<div class="wide" role="region" aria-label="Exercises, {number + 1}" '
        f'tabindex="0"><table><thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody>'
        "</table></div></section>"
    )


def _row(row: Row, one: Marked) -> str:
    often = f" Asked {row.asked} times; the first counts." if row.asked > 1 else ""
    message = f'<pre dir="auto">{_text(row.message)}{often}</pre>'
    if row.exercise in one.texts:
        message += (
            "<details open><summary>The answer, for you to read</summary>"
            f'<blockquote dir="auto"><pre>{_text(one.texts[row.exercise])}</pre>'
            "</blockquote>"
            "</details>"
        )
    clean = one.hand_in.clean
    name = _text(row.exercise or "unknown")
    if one.run is None:
        name = "all"
    elif clean is not None:
        name = f"{_text(_name(row, clean))}<br><small>{name}</small>"
    return (
        f'<tr><th scope="row">{name}</th>'
        f"<td>{_sign(row.state)} {row.state}</td><td>{message}</td></tr>"
    )


def feedback(marked: Sequence[Marked]) -> dict[str, str]:
    """For each student a text to hand back, by the name of its file."""
    of_student = by_student(counted(marked))
    files = file_names(of_student)
    texts = {}
    for owner, theirs in of_student.items():
        greeting = f"For {printable(theirs[0].hand_in.student)}\n"
        texts[files[owner]] = "\n".join([greeting, *map(_feedback, theirs)])
    return texts


def _feedback(one: Marked) -> str:
    clean = one.hand_in.clean
    right, total = solved(one)
    heading = clean.title if clean else one.hand_in.file
    handed_in = any(_is_for_a_person(row, clean) for row in one.rows)
    solved_or = "solved or handed in" if handed_in else "solved"
    lines = [heading, "=" * len(heading), f"{right} of {total} {solved_or}.", ""]
    for row in one.rows:
        lines += [f"{_name(row, clean)}: {_meaning(row, clean)}"]
        lines += [f"   {printable(line)}" for line in _words(row, clean)]
        lines += [""]
    return "\n".join(lines)


def _name(row: Row, clean: Clean | None) -> str:
    if clean is None:
        return "Hand-in"
    exercise = clean.exercise(row.exercise)
    return f"{exercise.number}. {printable(exercise.title)}"


def _is_for_a_person(row: Row, clean: Clean | None) -> bool:
    is_open = clean is not None and clean.exercise(row.exercise).kind == "Open question"
    return is_open and row.state == "right"


def _meaning(row: Row, clean: Clean | None) -> str:
    if _is_for_a_person(row, clean):
        return HANDED_IN.removesuffix(".")
    return _MEANING[row.state]


def _words(row: Row, clean: Clean | None) -> list[str]:
    """A message's lines; of an open question not as if anybody had read the answer."""
    message = row.message
    if _is_for_a_person(row, clean):
        message = message.removeprefix(f"{HANDED_IN} ")
    return message.split("\n")


def file_names(students: Iterable[str]) -> dict[str, str]:
    """A name for each student's file: theirs where it can be one, and never another's.

    Also where the system takes capitals for small letters, or keeps names to itself.
    """
    students = {*students}
    plain = {student: _plain(student) for student in students}
    folded = Counter(one.casefold() for one in students if plain[one] == one)
    names = {}
    for student in students:
        is_theirs = plain[student] == student and folded[student.casefold()] == 1
        if is_theirs and student and not _RESERVED.search(student):
            names[student] = f"{student}.txt"
        else:
            digest = hashlib.sha256(student.encode("utf-8", "surrogateescape"))
            start = plain[student] or "student"
            names[student] = f"{start}-{digest.hexdigest()[:16]}.txt"
    return names


# What Windows keeps for devices, and what ends as a name of ours that is no student's.
_RESERVED = re.compile(
    r"^(con|prn|aux|nul|com[0-9]|lpt[0-9])$|-[0-9a-f]{16}$", re.IGNORECASE
)


def _plain(student: str) -> str:
    ascii_only = unicodedata.normalize("NFKD", student).encode("ascii", "ignore")
    return re.sub(r"[^A-Za-z0-9-]+", "_", ascii_only.decode()).strip("_-")[:60]

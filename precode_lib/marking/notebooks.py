"""An exercise notebook: what it asks, and a student's copy of the solved one.

A solved notebook holds, for each exercise, in this order:

- a markdown cell `## 2. Title`, then a line `*Implement · medium · 15 minutes*`, then
  the task, with its hints in `<details>`;
- cells that are given;
- an answer cell, `# Answer: name` on its first line, with the solution between
  `### BEGIN SOLUTION` and `### END SOLUTION`; in a student's copy the lines there that
  start with `#: ` stand in its place;
- a check cell, `# Check: name` on its first line;
- markdown cells tagged "solution", which a student's copy leaves out.
"""

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass

EXERCISE_KINDS = ("By hand", "Implement", "Explore", "Open question")
DIFFICULTIES = ("easy", "medium", "hard")
BEGIN, END, KEPT = "### BEGIN SOLUTION", "### END SOLUTION", "#: "
COMPARED = "nbval-check-output"  # nbval's tag: the stored output must come again

_HEADING = re.compile(
    r"## (?P<number>\d+)\. (?P<title>.+)\n\n"
    r"\*(?P<kind>.+?) · (?P<difficulty>\w+) · (?P<minutes>\d+) minutes\*(?:\n|$)"
)
_MARK = re.compile(r"# (Answer|Check): (\w+)$")


@dataclass(frozen=True)
class Exercise:
    """What a reader wants to know before starting one.

    Args:
        name: of the function in `precode_lib.checks` that marks it.
        number: its place in the notebook, from 1.
        title: in a few words.
        kind: one of `EXERCISE_KINDS`.
        difficulty: one of `DIFFICULTIES`.
        minutes: about how long it takes.
    """

    name: str
    number: int
    title: str
    kind: str
    difficulty: str
    minutes: int


def source(cell: dict) -> str:
    """A cell's text, which a file may hold as lines."""
    text = cell["source"]
    return text if isinstance(text, str) else "".join(text)


def mark(cell: dict) -> tuple[str, str]:
    """What a code cell is for: "Answer" or "Check", and of which exercise; or ""."""
    first = source(cell).partition("\n")[0].rstrip()
    found = _MARK.match(first) if cell["cell_type"] == "code" else None
    return (found[1], found[2]) if found else ("", "")


def title(notebook: dict) -> str:
    """The notebook's first heading."""
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown" and source(cell).startswith("# "):
            return source(cell)[2:].partition("\n")[0].strip()
    raise ValueError("the notebook has no title; start it with a heading `# ...`.")


def exercises(notebook: dict) -> list[Exercise]:
    """The exercises in order; a ValueError says where a notebook breaks the pattern."""
    found, heading, expected = [], None, "heading"
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown" and source(cell).startswith("## "):
            _expect(expected, "heading", source(cell))
            heading, expected = _heading(source(cell), len(found) + 1), "Answer"
        role, name = mark(cell)
        if role:
            _expect(expected, role, source(cell))
            if role == "Check" and found[-1].name != name:
                raise ValueError(f"the check after {found[-1].name} is of {name}.")
            if role == "Answer":
                found.append(Exercise(name, **heading))
            expected = "Check" if role == "Answer" else "heading"
    _expect(expected, "heading", "the end")
    if len({one.name for one in found}) < len(found):
        raise ValueError("two exercises have the same name.")
    return found


def _expect(expected: str, came: str, where: str) -> None:
    if expected != came:
        first = where.partition("\n")[0]
        raise ValueError(f"expected {expected}, got {came} at {first!r}.")


def _heading(text: str, number: int) -> dict:
    found = _HEADING.match(text)
    if not found:
        first = text.partition("\n")[0]
        raise ValueError(
            f"{first!r}: expected `## 1. Title`, a blank line, and "
            "`*Kind · difficulty · 10 minutes*`."
        )
    parts = found.groupdict()
    if int(parts["number"]) != number:
        raise ValueError(f"exercise {number} has the number {parts['number']}.")
    if parts["kind"] not in EXERCISE_KINDS or parts["difficulty"] not in DIFFICULTIES:
        raise ValueError(f"{parts['kind']} · {parts['difficulty']}: not one of ours.")
    return {**parts, "number": number, "minutes": int(parts["minutes"])}


def student(solved: dict) -> dict:
    """A student's copy: without solutions, and of the outputs only the given ones."""
    exercises(solved)  # a copy of a malformed notebook would be no use
    notebook = copy.deepcopy(solved)
    notebook["cells"] = [
        _unsolved(cell) for cell in notebook["cells"] if "solution" not in _tags(cell)
    ]
    return notebook


def _tags(cell: dict) -> list[str]:
    return cell["metadata"].get("tags", [])


def _unsolved(cell: dict) -> dict:
    if cell["cell_type"] != "code":
        return cell
    role, name = mark(cell)
    if role == "Answer":
        if BEGIN not in source(cell):
            raise ValueError(f"the answer of {name} has no {BEGIN}.")
        cell["source"] = "\n".join(_without_solution(source(cell)))
    if role == "Check":
        cell["metadata"] |= {"editable": False, "deletable": False}
    if role or COMPARED not in _tags(cell):
        cell["outputs"], cell["execution_count"] = [], None
    return cell


def _without_solution(text: str) -> Iterator[str]:
    inside, kept = False, 0
    for line in text.split("\n"):
        bare = line.strip()
        if bare in (BEGIN, END):
            if inside == (bare == BEGIN):
                raise ValueError(f"{bare} where it should not be.")
            if bare == END and not kept:
                raise ValueError(f"a solution leaves nothing; add a line `{KEPT}...`.")
            inside, kept = bare == BEGIN, 0
        elif not inside:
            yield line
        elif bare.startswith(KEPT.strip()):
            kept += 1
            yield (line[: len(line) - len(line.lstrip())] + bare[len(KEPT) :]).rstrip()
    if inside:
        raise ValueError(f"{END} is missing.")

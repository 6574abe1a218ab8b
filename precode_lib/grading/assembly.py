"""Put a hand-in's answers into a clean notebook; everything else of it is ignored.

Given cells and checks come from the clean notebook, answers from the hand-in, and so do
the cells a student added, which stay where they were: before or after the answer they
stood next to. Tags, ids, outputs and metadata of the hand-in go nowhere, so a check
that was edited, deleted or told to be skipped is as good as new.
"""

import difflib
import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from precode_lib.marking.notebooks import Exercise, exercises, mark, title

from .helpers import NO_MODULES, Modules
from .names import printable
from .reading import NotANotebookError

MOST_CELLS = 500  # code cells of a hand-in; a clean notebook has about twenty
MOST_CODE = 2_000_000  # characters of them
MOST_WORDS = 40_000  # characters of text cells that are kept for a person
FIRST_LINES = 20  # of a cell, in which its mark may be
_ANSWER = re.compile(r"\s*#+\s*answer\s*:\s*(\w+)(?=$|[\s:;,.(–—])", re.IGNORECASE)
# What may be above a mark: nothing, comments, commands of Jupyter, imports.
_ABOVE = re.compile(r"\s*(?:$|#|%|!|import\b|from\b)")


@dataclass(frozen=True)
class Clean:
    """A notebook as the students got it.

    Args:
        stem: its chapter, and the module of its markers.
        title: its heading.
        exercises: in order.
        cells: its code cells' texts, in order.
        words: its text cells, as `text_cells` gives them.
        digest: of the file.
    """

    stem: str
    title: str
    exercises: Sequence[Exercise]
    cells: Sequence[str]
    words: Sequence[str]
    digest: str

    @property
    def names(self) -> list[str]:
        """Of the exercises, as their markers are called."""
        return [exercise.name for exercise in self.exercises]

    def exercise(self, name: str) -> Exercise:
        """The exercise with this name."""
        return next(one for one in self.exercises if one.name == name)


@dataclass(frozen=True)
class Assembled:
    """What is run.

    Args:
        text: the notebook, as JSON in ASCII.
        exercise_of: of each code cell, the exercise it is for, or nothing.
        answers: by exercise, the text of the answer cell that was handed in.
        words: text cells that were added or changed; they may hold an answer in words.
        missing: of each exercise without an answer cell, the likely cause.
        refused: modules beside it that do not come along, and why.
    """

    text: str
    exercise_of: Sequence[str]
    answers: Mapping[str, str]
    words: Sequence[str] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
    refused: Sequence[str] = ()


def clean_notebooks(folder: Path) -> dict[str, Clean]:
    """The notebooks of a folder by their chapters' names."""
    found = {}
    for path in sorted(folder.glob("*.ipynb")):
        data = path.read_bytes()
        notebook = json.loads(data)
        found[path.stem] = Clean(
            path.stem,
            title(notebook),
            exercises(notebook),
            code_cells(notebook),
            text_cells(notebook),
            hashlib.sha256(data).hexdigest(),
        )
    if not found:
        raise FileNotFoundError(f"there are no exercise notebooks in {folder}.")
    return found


def parse(data: bytes) -> dict[str, Any]:
    """The notebook in a file's content."""
    try:
        notebook = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError, MemoryError):
        raise NotANotebookError("it is no notebook: no JSON in UTF-8.") from None
    if not isinstance(notebook, dict) or "nbformat" not in notebook:
        raise NotANotebookError("it is no notebook: there is no nbformat in it.")
    if notebook["nbformat"] != 4:
        raise NotANotebookError(
            "its notebook format is not version 4; save it again in Jupyter."
        )
    cells = notebook.get("cells")
    if not isinstance(cells, list) or not all(isinstance(c, dict) for c in cells):
        raise NotANotebookError("it is no notebook: it has no list of cells.")
    return notebook


def code_cells(notebook: Mapping[str, Any]) -> list[str]:
    """The text of each code cell, with plain ends of lines."""
    cells = [cell for cell in notebook["cells"] if cell.get("cell_type") == "code"]
    if len(cells) > MOST_CELLS:
        raise NotANotebookError(f"it has more than {MOST_CELLS} code cells.")
    found = [_source(cell) for cell in cells]
    if sum(map(len, found)) > MOST_CODE:
        raise NotANotebookError(f"its code has more than {MOST_CODE:,} characters.")
    return found


def role(text: str, names: Collection[str]) -> tuple[str, str]:
    """What a code cell is for: "Answer" or "Check", and of which of the names; or "".

    An answer's mark may have comments, commands and imports above it, and words behind.
    """
    exact = mark({"cell_type": "code", "source": text})
    if exact[0] == "Check":
        return exact
    for line in text.split("\n", FIRST_LINES)[:FIRST_LINES]:
        found = _ANSWER.match(line)
        if found and found[1] in names:
            return "Answer", found[1]
        if not _ABOVE.match(line):
            break
    return "", ""


def text_cells(notebook: Mapping[str, Any]) -> list[str]:
    """The texts of all cells that hold no code, without the blanks around them."""
    found: list[str] = []
    for cell in notebook["cells"]:
        with suppress(NotANotebookError):  # for people; none has to be right
            if cell.get("cell_type") != "code":
                found.append(_source(cell).strip())
    return found


def _source(cell: Mapping[str, Any]) -> str:
    text = cell.get("source", "")
    if isinstance(text, list) and all(isinstance(line, str) for line in text):
        text = "".join(text)
    if not isinstance(text, str):
        raise NotANotebookError("it is no notebook: a cell holds no text.")
    # Half a surrogate pair is no character, and would stop what comes after.
    text = text.encode("utf-8", "replace").decode("utf-8")
    return text.replace("\r\n", "\n").replace("\r", "\n").lstrip("\ufeff\n")


def which(
    notebook: Mapping[str, Any] | None, name: str, clean: Mapping[str, Clean]
) -> Clean | None:
    """The clean notebook a hand-in belongs to: by metadata, by file name, by answers.

    Args:
        notebook: the hand-in, or None where it cannot be read.
        name: of its file.
        clean: by chapter.
    """
    metadata = (notebook or {}).get("metadata")
    ours = metadata.get("precode") if isinstance(metadata, dict) else None
    chapter = ours.get("chapter") if isinstance(ours, dict) else None
    if isinstance(chapter, str) and chapter.rpartition("/")[2] in clean:
        return clean[chapter.rpartition("/")[2]]
    named = stem_in(name, clean)
    if named or notebook is None:
        return clean.get(named)
    every = {name for one in clean.values() for name in one.names}
    answered = {role(text, every)[1] for text in code_cells(notebook)}
    shared = {one.stem: len(answered & {*one.names}) for one in clean.values()}
    best = max(shared, key=shared.__getitem__)
    is_one = [*shared.values()].count(shared[best]) == 1
    return clean[best] if shared[best] and is_one else None


def stem_in(name: str, clean: Mapping[str, Clean]) -> str:
    """The longest chapter's name in a file's name, as in `lena_labels (1).ipynb`."""
    return max((s for s in clean if s in name), key=len, default="")


def assemble(
    notebook: Mapping[str, Any], clean: Clean, modules: Modules = NO_MODULES
) -> Assembled:
    """The clean notebook with the hand-in's answers and the cells that were added."""
    code, words = code_cells(notebook), text_cells(notebook)
    answers, before, after = _sorted(code, clean)
    if not answers:
        raise NotANotebookError(
            f"it holds none of the answer cells of {clean.stem}; their first line is "
            "`# Answer: ...`."
        )
    # The exercise, and the text.
    cells = [("", modules.cell)] if modules.cell else []
    for text in clean.cells:
        kind, name = role(text, clean.names)
        if kind == "Answer":
            cells += [(name, added) for added in before.get(name, ())]
            text = answers.get(name, text)
        if kind == "Check":
            cells += [(name, added) for added in after.get(name, ())]
        cells.append((name, text))
    missing = [name for name in clean.names if name not in answers]
    return Assembled(
        _written([text for _, text in cells]),
        [name for name, _ in cells],
        answers,
        _first(text for text in words if text and text not in clean.words),
        {name: _likely(name, clean, code, words) for name in missing},
        modules.refused,
    )


def _first(texts: Iterable[str]) -> list[str]:
    """As many as a person reads."""
    kept, size = [], 0
    for text in texts:
        size += len(text)
        kept.append(text[:MOST_WORDS])
        if size > MOST_WORDS:
            break
    return kept


def _likely(name: str, clean: Clean, code: Sequence[str], words: Sequence[str]) -> str:
    """The likely cause that an exercise has no answer cell."""
    if any(_marks(text, name) for text in words):
        return "its mark is in a cell of text, which is not run."
    for text in code:
        if lines := _marks(text, name):
            return f"its mark is only in line {lines[0]} of a cell, below other code."
    others = [found[1] for text in code for found in _every_mark(text)]
    others = [other for other in others if other not in clean.names]
    near = difflib.get_close_matches(name.lower(), map(str.lower, others[:50]), 1, 0.7)
    if near:
        shown = printable(next(o for o in others if o.lower() == near[0]))[:60]
        return f"a cell is marked `# Answer: {shown}`."
    given = next(text for text in clean.cells if role(text, [name])[0] == "Answer")
    unmarked = {one for t in code if not role(t, clean.names)[0] for one in _defined(t)}
    for one in _defined(given):
        if one in unmarked:
            return f"a cell without the mark `# Answer: {name}` defines {one}."
    return "no cell looks like it; it may have been deleted."


def _defined(text: str) -> list[str]:
    """The functions and variables that code defines, not in a block of its own."""
    pattern = r"^def (\w+)|^(\w+)(?:\s*,\s*\w+)*\s*=(?!=)"
    return [a or b for a, b in re.findall(pattern, text, flags=re.MULTILINE)]


def _every_mark(text: str) -> list[re.Match]:
    return [found for line in text.split("\n") if (found := _ANSWER.match(line))]


def _marks(text: str, name: str) -> list[int]:
    """The lines that would mark a cell as the answer, from 1."""
    lines = enumerate(text.split("\n"), 1)
    return [n for n, line in lines if (m := _ANSWER.match(line)) and m[1] == name]


def _sorted(
    cells: Sequence[str], clean: Clean
) -> tuple[dict[str, str], dict[str, list[str]], dict[str, list[str]]]:
    """Answers by exercise, and what was added before each answer and before its check.

    Of two answers to one exercise the later counts, as in Jupyter; the earlier one is
    run before it. What stands after the last check changes nothing and is left out.
    """
    given = {*clean.cells}
    answers: dict[str, str] = {}
    before: dict[str, list[str]] = {}
    after: dict[str, list[str]] = {}
    pending: list[str] = []
    last = ""
    for text in cells:
        kind, name = role(text, clean.names)
        if kind == "Answer":
            if name in answers:
                pending.insert(0, answers[name])
            before.setdefault(name, []).extend(pending)
            answers[name], pending, last = text, [], name
        elif kind == "Check":
            if name == last:
                after.setdefault(name, []).extend(pending)
                pending, last = [], ""
        elif text.strip() and text not in given:
            pending.append(text)
    if last:
        after.setdefault(last, []).extend(pending)
    return answers, before, after


def _written(texts: Sequence[str]) -> str:
    cells = [
        {
            "cell_type": "code",
            "id": f"cell-{number}",
            "metadata": {},
            "source": text,
            "outputs": [],
            "execution_count": None,
        }
        for number, text in enumerate(texts)
    ]
    return json.dumps(
        {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}
    )

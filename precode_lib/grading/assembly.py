"""Put a hand-in's answers into a clean notebook; everything else of it is ignored.

Given cells and checks come from the clean notebook, answers from the hand-in, and so do
the cells a student added, which stay where they were: before or after the answer they
stood next to. Tags, ids, outputs and metadata of the hand-in go nowhere, so a check
that was edited, deleted or told to be skipped is as good as new.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from precode_lib.checks.notebooks import Exercise, exercises, mark, title

MOST_CELLS = 500  # code cells of a hand-in; a clean notebook has about twenty


class NotANotebookError(ValueError):
    """A file that is no notebook with answers; the message says why."""


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
    """

    text: str
    exercise_of: Sequence[str]
    answers: Mapping[str, str]
    words: Sequence[str] = ()


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
            [text for _, text in code_cells(notebook)],
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


def code_cells(notebook: Mapping[str, Any]) -> list[tuple[tuple[str, str], str]]:
    """Of each code cell its mark and text, with plain ends of lines."""
    found = []
    for cell in notebook["cells"]:
        if cell.get("cell_type") == "code":
            text = _source(cell)
            found.append((mark({"cell_type": "code", "source": text}), text))
    if len(found) > MOST_CELLS:
        raise NotANotebookError(f"it has more than {MOST_CELLS} code cells.")
    return found


def text_cells(notebook: Mapping[str, Any]) -> list[str]:
    """The texts of all cells that hold no code, without the blanks around them."""
    found = []
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
    answered = {name for (role, name), _ in code_cells(notebook) if role == "Answer"}
    shared = {one.stem: len(answered & {*one.names}) for one in clean.values()}
    best = max(shared, key=shared.__getitem__)
    is_one = [*shared.values()].count(shared[best]) == 1
    return clean[best] if shared[best] and is_one else None


def stem_in(name: str, clean: Mapping[str, Clean]) -> str:
    """The longest chapter's name in a file's name, as in `lena_labels (1).ipynb`."""
    return max((s for s in clean if s in name), key=len, default="")


def assemble(notebook: Mapping[str, Any], clean: Clean) -> Assembled:
    """The clean notebook with the hand-in's answers and the cells that were added."""
    answers, before, after = _sorted(code_cells(notebook), clean)
    cells: list[tuple[str, str]] = []  # the exercise, the text
    for text in clean.cells:
        role, name = mark({"cell_type": "code", "source": text})
        if role == "Answer":
            cells += [(name, added) for added in before.get(name, ())]
            text = answers.get(name, text)
        if role == "Check":
            cells += [(name, added) for added in after.get(name, ())]
        cells.append((name, text))
    if not answers:
        raise NotANotebookError(
            f"it holds none of the answer cells of {clean.stem}; their first line is "
            "`# Answer: ...`."
        )
    return Assembled(
        _written([text for _, text in cells]),
        [name for name, _ in cells],
        answers,
        [text for text in text_cells(notebook) if text and text not in clean.words],
    )


def _sorted(
    cells: Sequence[tuple[tuple[str, str], str]], clean: Clean
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
    for (role, name), text in cells:
        if role == "Answer" and name in clean.names:
            if name in answers:
                pending.insert(0, answers[name])
            before.setdefault(name, []).extend(pending)
            answers[name], pending, last = text, [], name
        elif role == "Check":
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

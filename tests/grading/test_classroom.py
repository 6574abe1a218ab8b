"""A class hands in: good work, typical mistakes, and programs that mean harm."""

import csv
import hashlib
import time
from pathlib import Path

import hand_ins
import pytest
from hand_ins import CHAPTER, NAMES, RIGHT, hand_in, notebook, solved, with_answer

from precode_lib.grading import crowds, room, sandbox
from precode_lib.grading.limits import MB, Limits

needs_bwrap = pytest.mark.skipif(
    bool(sandbox.bwrap_problem()), reason=f"no sandbox: {sandbox.bwrap_problem()}"
)
# Of a loaded machine: an honest cell waits for a core now and then.
LIMITS = Limits(seconds=240, cell_seconds=45, memory=1500 * MB)
ALL_RIGHT = dict.fromkeys(NAMES, "right")


def all_but(name, state):
    return {**ALL_RIGHT, name: state}


def from_colab(found):
    """As Colab saves it: format 4.0, no ids, lines of Windows, all checks deleted."""
    found = {**found, "nbformat_minor": 0, "metadata": {"colab": {}}}
    cells = [c for c in found["cells"] if "# Check" not in "".join(c["source"])]
    for cell in cells:
        cell.pop("id", None)
        cell["source"] = "".join(cell["source"]).replace("\n", "\r\n")
    return {**found, "cells": cells}


def told_to_skip(found):
    """With all that keeps nbval from looking, and checks that do nothing."""
    for cell in found["cells"]:
        if "# Check" in "".join(cell["source"]):
            cell["metadata"] = {"tags": ["nbval-skip", "raises-exception"]}
            cell["source"] = "# NBVAL_SKIP\n" + "print('correct.')"
            cell["outputs"] = [
                {"output_type": "stream", "name": "stdout", "text": "correct."}
            ]
    return found


def good(folder):
    for number in range(8):
        hand_in(folder, f"good_{number}", solved())
    hand_in(folder, "good_8", from_colab(solved()))
    hand_in(folder, "good_9", notebook(added=["import math", "helper = math.pi"]))
    return {f"good_{number}": ALL_RIGHT for number in range(10)}


def wrong(folder):
    marks = {}
    for number, mistake in enumerate(hand_ins.TYPICAL):
        (name,) = mistake
        content = notebook({**RIGHT, **mistake})
        hand_in(folder, f"wrong_{number}", told_to_skip(content))
        marks[f"wrong_{number}"] = all_but(name, "wrong")
    return marks


STOPPED = dict.fromkeys(NAMES, "stopped")
FORGED = {
    "by_hand": "wrong",
    "closed_form": "wrong",
    "label": "raised",
    "enough_noise": "wrong",
    "two_photographs": "raised",  # it unset where to ask, so nobody was asked
}
# Each with the marks it gets: what was right before stays right.
HOSTILE = {
    "loops": (with_answer("by_hand", hand_ins.LOOP), all_but("by_hand", "stopped")),
    "deletes": (notebook(added=[hand_ins.DELETE]), ALL_RIGHT),
    "prints": (with_answer("label", hand_ins.GIGABYTE), None),
    "forges": (notebook(hand_ins.FORGED), FORGED),
    "forks": (
        with_answer("closed_form", hand_ins.FORK_BOMB),
        {**STOPPED, "by_hand": "right"},
    ),
    "eats": (with_answer("label", hand_ins.MEMORY), all_but("label", "raised")),
    "shares": (
        with_answer("label", hand_ins.SHARED_MEMORY),
        {**STOPPED, "by_hand": "right", "closed_form": "right"},
    ),
    "kills": (
        with_answer("label", hand_ins.KILL_PARENT),
        {**STOPPED, "by_hand": "right", "closed_form": "right"},
    ),
    "kills_all": (notebook(added=[hand_ins.KILL_ALL]), STOPPED),
    "exits": (
        with_answer("label", hand_ins.EXIT),
        {**STOPPED, "by_hand": "right", "closed_form": "right"},
    ),
}


def hostile(folder, names=tuple(HOSTILE)):
    # Where root's processes have no limit, a fork bomb is best not lit.
    names = [name for name in names if name != "forks" or crowds.is_possible()]
    for name in names:
        hand_in(folder, name, HOSTILE[name][0])
    return {name: HOSTILE[name][1] for name in names}


def marks_of(out: Path) -> dict[str, dict[str, str]]:
    with open(out / "marks.csv", encoding="utf-8-sig", newline="") as file:
        rows = [*csv.DictReader(file)]
    students: dict[str, dict[str, str]] = {}
    for row in rows:
        students.setdefault(row["student"], {})[row["exercise"]] = row["state"]
    return students


def grade(folder: Path, jobs: int = 2) -> dict[str, dict[str, str]]:
    out = room.default_out(folder)
    settings = room.Settings(
        folder=folder,
        out=out,
        exercises=room.book_exercises(),
        kind="bwrap",
        limits=LIMITS,
        jobs=jobs,
    )
    room.grade(settings)
    return marks_of(out)


def fingerprint(folder: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and path.stat().st_size < MB
    }


@needs_bwrap
@pytest.mark.slow
def test_a_small_class_gets_exactly_its_marks(tmp_path):
    folder = tmp_path / "hand-ins"
    expected = hostile(folder, ("deletes", "forges", "eats", "kills"))
    hand_in(folder, "good", solved())
    hand_in(folder, "wrong", told_to_skip(notebook({**RIGHT, **hand_ins.TYPICAL[2]})))
    hand_in(folder, "binary", b"\x89PNG\x00")
    expected |= {"good": ALL_RIGHT, "wrong": all_but("closed_form", "wrong")}
    before = fingerprint(folder)
    assert grade(folder) == expected | {"binary": STOPPED}
    assert fingerprint(folder) == before
    # The second time nothing is run, and the marks are the same.
    began = time.monotonic()
    assert grade(folder) == expected | {"binary": STOPPED}
    assert time.monotonic() - began < 20


@needs_bwrap
@pytest.mark.slow
@pytest.mark.classroom_all
def test_a_whole_class_gets_exactly_its_marks(tmp_path):
    folder = tmp_path / "hand-ins"
    expected = good(folder) | wrong(folder) | hostile(folder)
    broken = hand_ins.break_files(folder)
    before = fingerprint(folder)
    began = time.monotonic()
    marks = grade(folder)
    print(f"{time.monotonic() - began:.0f} seconds for {len(marks)} hand-ins")
    # What ends a flood of output depends on the machine: its size, memory, or time.
    flood = marks.pop("prints")
    assert expected.pop("prints") is None
    assert flood["label"] in ("stopped", "raised")
    assert (flood["by_hand"], flood["closed_form"]) == ("right", "right")
    assert {name: marks.pop(name) for name in broken} == dict.fromkeys(broken, STOPPED)
    assert marks == expected
    assert fingerprint(folder) == before
    report = (room.default_out(folder) / "report.html").read_text(encoding="utf-8")
    assert f"{CHAPTER}" in report

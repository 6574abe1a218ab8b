"""A class hands in: good work, typical mistakes, and programs that mean harm."""

import csv
import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import hand_ins
import psutil
import pytest
from hand_ins import (
    CHAPTER,
    NAMES,
    RIGHT,
    code,
    hand_in,
    notebook,
    solved,
    with_answer,
)

from precode_lib.grading import room, sandbox
from precode_lib.grading.limits import MB, Limits

needs_bwrap = pytest.mark.skipif(
    bool(sandbox.bwrap_problem()), reason=f"no sandbox: {sandbox.bwrap_problem()}"
)
# Of a loaded machine: an honest cell waits for a core now and then.
LIMITS = Limits(seconds=240, cell_seconds=45, memory=1500 * MB)
ALL_RIGHT = dict.fromkeys(NAMES, "right")
STOPPED = dict.fromkeys(NAMES, "stopped")


def all_but(name, state):
    return {**ALL_RIGHT, name: state}


# Ten honest ones, each unusual in another way: all of them are right.


def edited(found, change):
    """With the text of each cell changed; None deletes it."""
    cells = []
    for cell in found["cells"]:
        text = change("".join(cell["source"]))
        cells += [] if text is None else [{**cell, "source": text}]
    return {**found, "cells": cells}


def from_colab(found):
    """As Colab saves it: format 4.0, no ids, lines of Windows, all checks deleted."""
    found = {**found, "nbformat_minor": 0, "metadata": {"colab": {}}}
    found = edited(found, lambda t: None if "# Check" in t else t)
    for cell in found["cells"]:
        cell.pop("id", None)
        cell["source"] = cell["source"].replace("\n", "\r\n")
    return found


def reversed_cells(found):
    """The cells from the last to the first, without checks and imports."""
    found = edited(found, lambda t: t if "# Answer" in t else None)
    return {**found, "cells": found["cells"][::-1]}


def timed(found):
    """Marks that are neither the first line nor alone in it."""

    def change(text):
        if "# Answer" not in text:
            return text
        first, _, rest = text.partition("\n")
        return f"%%time\n# mine\n{first} (final version)\n{rest}"

    return edited(found, change)


def tried(found):
    """With cells of the student's own that ask whether the answer is right."""
    own = [code(f"check.{name}({name})") for name in ("closed_form", "label")]
    at = next(i for i, c in enumerate(found["cells"]) if "Check: label" in str(c))
    found["cells"][at:at] = own
    return found


NUMPY = {
    "by_hand": "import numpy as np\n"
    "dW = np.array([[.25, -.5], [-.25, .5]])[:, ::-1]\n"
    "db = [np.float32(-0.25), np.float64(0.25)]",
    "closed_form": "def closed_form(dW, db):\n"
    "    W, b = dW.numpy(), db.numpy()\n"
    "    used = np.abs(b) > np.abs(b).max() / 2\n"
    "    return (W[used] / b[used][:, None]).mean(0)",
    "label": "def label(db):\n    return np.argmin(db.numpy())",
    "enough_noise": "sigma = np.array(3e-2)",
    "two_photographs": 'text = """每一行返回两张照片的加权平均值，权重是它们各自的误差'
    '除以误差之和；不同行的误差不同，所以混合比例也不同。"""',
}
WORKERS = """
from torch.utils.data import DataLoader, TensorDataset
import torch
data = TensorDataset(torch.arange(64.0))
seen = [batch for batch in DataLoader(data, batch_size=8, num_workers=2)]
assert len(seen) == 8
"""
PLOTS = """
%matplotlib inline
import matplotlib.pyplot as plt
import sys, threading
!pip install einops
fig, axes = plt.subplots(4, 4)
for axis in axes.flat:
    axis.plot(range(1000))
plt.show()
print("\\n".join(map(str, range(20_000))))
threading.Thread(target=lambda: None).start()
assert "👩\u200d👩\u200d👧" and "علی\u200cرضا"
"""
USES_MODULES = {
    **RIGHT,
    "closed_form": "from helpers import closed_form",
    "label": "import helpers\nlabel = helpers.label",
}
MODULES = {
    "helpers.py": "from more import largest\n"
    "def closed_form(dW, db):\n    return dW[largest(db)] / db[largest(db)]\n"
    "def label(db):\n    return int(db.argmin())\n",
    "more.py": "def largest(db):\n    return int(db.abs().argmax())\n",
}
PERSIAN = "علی\u200cرضا"
HONEST = {
    "official": solved,
    "colab": lambda: from_colab(solved()),
    "backwards": lambda: reversed_cells(notebook()),
    "timed": lambda: timed(notebook()),
    "numpy": lambda: notebook(NUMPY),
    "workers": lambda: with_answer("closed_form", WORKERS + RIGHT["closed_form"]),
    "plots": lambda: with_answer("label", PLOTS + RIGHT["label"]),
    "modules": lambda: notebook(USES_MODULES),
    PERSIAN: lambda: notebook(added=["import math", "helper = math.pi"]),
    "tries": lambda: tried(notebook()),
}


def honest(folder, names=tuple(HONEST)):
    for name in names:
        path = hand_in(folder, name, HONEST[name]())
        if name == "modules":
            for file, text in MODULES.items():
                (path.parent / file).write_text(text)
        if name == PERSIAN:
            # An older file, and one of the same time that a browser called otherwise.
            hand_in(folder, name, notebook({}))
            copy = path.with_stem(f"{path.stem} (1)")
            copy.write_text(json.dumps(HONEST[name]()))
            for file in (path, copy):
                os.utime(file, (1e9, 1e9))
    return dict.fromkeys(names, ALL_RIGHT)


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


def wrong(folder):
    marks = {}
    for number, mistake in enumerate(hand_ins.TYPICAL):
        (name,) = mistake
        content = notebook({**RIGHT, **mistake})
        hand_in(folder, f"wrong_{number}", told_to_skip(content))
        marks[f"wrong_{number}"] = all_but(name, "wrong")
    return marks


FORGED = {
    "by_hand": "wrong",
    "closed_form": "wrong",
    "label": "raised",
    "enough_noise": "wrong",
    "two_photographs": "raised",  # it unset where to ask, so nobody was asked
}
UNTIL_LABEL = {**STOPPED, "by_hand": "right", "closed_form": "right"}
# Two who look alike, and how they are shown.
TWINS = {f"twin{c}": f"twin\ufffd [twin\\x0{ord(c)}]" for c in "\x01\x02"}
RIGHT_TWIN, WRONG_TWIN = TWINS
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
        all_but("label", "raised"),
    ),
    "kills": (with_answer("label", hand_ins.KILL_PARENT), UNTIL_LABEL),
    "kills_all": (notebook(added=[hand_ins.KILL_ALL]), STOPPED),
    "exits": (with_answer("label", hand_ins.EXIT), UNTIL_LABEL),
    "poisons": (notebook(added=[hand_ins.POISON]), ALL_RIGHT),
    "times_out": (with_answer("label", hand_ins.TIMEOUT), all_but("label", "raised")),
    "settings": (
        with_answer("by_hand", hand_ins.SETTINGS + RIGHT["by_hand"]),
        ALL_RIGHT,
    ),
    "daemons": (notebook(added=[hand_ins.DAEMONS]), ALL_RIGHT),
    "markup": (with_answer("label", hand_ins.MARKUP), all_but("label", "raised")),
    "asks": (
        with_answer("enough_noise", hand_ins.ASKS),
        all_but("enough_noise", "wrong"),
    ),
    "shadows": (
        with_answer("label", f"import {', '.join(hand_ins.SHADOWS)}\n{RIGHT['label']}"),
        all_but("label", "raised"),
    ),
    "thousands": (notebook(), {**ALL_RIGHT, "": "stopped"}),
    RIGHT_TWIN: (notebook(), ALL_RIGHT),
    WRONG_TWIN: (
        with_answer("label", "def label(db):\n    return -1"),
        all_but("label", "wrong"),
    ),
}


# Why each fails, in words of its report: an attack that has met something else, such
# as a name that the library has given up, has not been defeated. Of the others, such as
# who deletes files or leaves processes behind, all answers are right.
REASONS = {
    "loops": {"by_hand": "its cell was stopped: Timeout of 45 seconds exceeded"},
    "forges": {
        "by_hand": "db is not [0, 0]",
        "closed_form": "a Agreeable is not accepted",
        "label": "your function stopped with NotSolved: correct.",
        "enough_noise": "σ is not 0",
        "two_photographs": "nobody was asked",
    },
    "forks": {"closed_form": "it ran more than 48 processes"},
    "eats": {"label": "its cell stopped with MemoryError"},
    "shares": {"label": "PermissionError: [Errno 1] Operation not permitted"},
    "kills": {"label": "its driver ended with code 137"},
    "kills_all": {"by_hand": "its driver ended with code 137"},
    "exits": {"label": "the notebook's process ended here or before"},
    "times_out": {"label": "its cell stopped with TimeoutError"},
    "markup": {"label": "=1+1;<script>alert(1)</script>"},
    "asks": {"enough_noise": "σ is not 0.001"},
    "shadows": {"label": "No module named 'conftest'"},
    "thousands": {"": "its notebook format is not version 4"},
    TWINS[WRONG_TWIN]: {"label": "the label should be"},
}


def other_reasons(folder: Path) -> list[tuple[str, str, str]]:
    """The marks of hostile hand-ins that have another reason than their own."""
    rows = rows_of(room.default_out(folder))
    return [
        (row["student"], row["exercise"], row["message"])
        for row in rows
        if REASONS.get(row["student"], {}).get(row["exercise"], "")
        not in row["message"]
    ]


def test_every_hostile_hand_in_has_a_reason_or_is_right_all_the_same():
    harmless = {name for name, (_, marks) in HOSTILE.items() if marks == ALL_RIGHT}
    floods = {"prints"}  # what ends it depends on the machine
    assert {TWINS.get(n, n) for n in HOSTILE.keys() - harmless - floods} == {*REASONS}


def hostile(folder, names=tuple(HOSTILE)):
    for name in names:
        path = hand_in(folder, name, HOSTILE[name][0])
        if name == "shadows":
            for module in hand_ins.SHADOWS:
                (path.parent / f"{module}.py").write_text(hand_ins.FAKE)
        if name == "thousands":
            for number in range(300):
                (path.parent / f"folder_{number}.ipynb").mkdir()
                junk = path.with_name(f"junk_{number}.ipynb")
                junk.write_text('{"nbformat": 3}')
                os.utime(junk, (1e9, 1e9))
    return {TWINS.get(name, name): HOSTILE[name][1] for name in names}


def rows_of(out: Path) -> list[dict[str, str]]:
    """What is known of each exercise of each student, of the files that count."""
    with open(out / "marks.csv", encoding="utf-8-sig", newline="") as file:
        return [row for row in csv.DictReader(file) if row["counts"] == "yes"]


def marks_of(rows: list[dict[str, str]]) -> dict[str, dict[str, str]]:
    students: dict[str, dict[str, str]] = {}
    for row in rows:
        students.setdefault(row["student"], {})[row["exercise"]] = row["state"]
    return students


def unlike(folder: Path, expected: dict[str, dict[str, str]]) -> str:
    """The reasons of all marks that are others, for whom a test has failed."""
    return "".join(
        f"\n{row['student']} {row['exercise']}: {row['state']}, {row['message']}"
        for row in rows_of(room.default_out(folder))
        if row["state"] != expected.get(row["student"], {}).get(row["exercise"])
    )


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
    return marks_of(rows_of(out))


def fingerprint(folder: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and path.stat().st_size < MB
    }


def sleepers() -> list[int]:
    """The processes that a hand-in would have left behind."""
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if hand_ins.NAP in " ".join(process.info["cmdline"] or [])
    ]


@needs_bwrap
@pytest.mark.slow
def test_a_small_class_gets_exactly_its_marks(tmp_path):
    folder = tmp_path / "hand-ins"
    expected = hostile(folder, ("forges", "poisons", "kills"))
    expected |= honest(folder, ("modules", "timed"))
    hand_in(folder, "wrong", told_to_skip(notebook({**RIGHT, **hand_ins.TYPICAL[2]})))
    hand_in(folder, "binary", b"\x89PNG\x00")
    expected |= {"wrong": all_but("closed_form", "wrong"), "binary": STOPPED}
    before = fingerprint(folder)
    assert grade(folder) == expected, unlike(folder, expected)
    assert other_reasons(folder) == []
    assert fingerprint(folder) == before
    # The second time nothing is run, and the marks are the same.
    runs = {path: path.stat().st_mtime for path in runs_of(folder)}
    assert grade(folder) == expected, unlike(folder, expected)
    assert {path: path.stat().st_mtime for path in runs_of(folder)} == runs


def runs_of(folder: Path) -> list[Path]:
    return [*(room.default_out(folder) / "runs").glob("[!.]*.json")]


@contextmanager
def quiet(folder):
    yield


@contextmanager
def beside_four_busy_processes(folder):
    """As on a machine that has much else to do."""
    busy = [multiprocessing.Process(target=_compute, daemon=True) for _ in range(4)]
    for process in busy:
        process.start()
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.join()


def _compute():
    while True:
        pass


@contextmanager
def killed_in_the_middle(folder):
    """A first call has been killed, without a chance to end anything."""
    words = ["-m", "precode_lib.cli", "grade", str(folder), "--jobs", "2"]
    words += ["--timeout", f"{LIMITS.seconds:g}", "--memory", f"{LIMITS.memory / MB:g}"]
    words += ["--cell-timeout", f"{LIMITS.cell_seconds:g}", "--sandbox", "bwrap"]
    process = subprocess.Popen([sys.executable, *words], stderr=subprocess.DEVNULL)
    try:
        while len(runs_of(folder)) < 12:
            assert process.poll() is None
            time.sleep(0.2)
        family = psutil.Process(process.pid).children(recursive=True)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    # Nothing of it goes on; what was found is used.
    assert psutil.wait_procs(family, timeout=60)[1] == []
    kept = {path: path.read_bytes() for path in runs_of(folder)}
    yield
    assert kept.items() <= {path: path.read_bytes() for path in runs_of(folder)}.items()


@needs_bwrap
@pytest.mark.slow
@pytest.mark.classroom_all
@pytest.mark.parametrize(
    "how",
    [quiet, beside_four_busy_processes, killed_in_the_middle],
    ids=lambda f: f.__name__,
)
def test_a_class_of_forty_gets_exactly_its_marks(tmp_path, how):
    folder = tmp_path / "hand-ins"
    expected = honest(folder) | wrong(folder) | hostile(folder)
    assert len(expected) == 40
    broken = hand_ins.break_files(folder)
    before = fingerprint(folder)
    began = time.monotonic()
    with how(folder):
        marks = grade(folder)
    print(f"{time.monotonic() - began:.0f} seconds for {len(marks)} hand-ins")
    # What ends a flood of output depends on the machine: its size, memory, or time.
    flood = marks.pop("prints")
    assert expected.pop("prints") is None
    assert flood["label"] in ("stopped", "raised")
    assert (flood["by_hand"], flood["closed_form"]) == ("right", "right")
    assert {name: marks.pop(name) for name in broken} == dict.fromkeys(broken, STOPPED)
    assert marks == expected, unlike(folder, expected)
    assert other_reasons(folder) == []
    assert fingerprint(folder) == before
    assert sleepers() == []
    report = (room.default_out(folder) / "report.html").read_text(encoding="utf-8")
    assert f"{CHAPTER}" in report
    assert "<script" not in report

"""The command `precode grade`: what it asks for, writes, keeps and returns."""

import csv
import json
import os
import sys
import threading

import hand_ins
import pytest
from hand_ins import CHAPTER, NAMES, hand_in, notebook

from precode_lib import cli
from precode_lib.grading import room, running, sandbox


@pytest.fixture
def folder(tmp_path):
    for student in ("anna", "ben", "carl"):
        hand_in(tmp_path / "hand-ins", student, notebook())
    return tmp_path / "hand-ins"


@pytest.fixture
def ran(monkeypatch):
    """Hand-ins take no time and are right; the list of what was run."""
    done = []

    def run(text, chapter, names, **settings):
        done.append(settings)
        found = {"state": "right", "message": "correct.", "asked": 1, "text": "why"}
        findings = {
            f"{chapter}.{n}": {"name": f"{chapter}.{n}", **found} for n in names
        }
        return running.Run(findings=findings)

    monkeypatch.setattr(running, "run", run)
    monkeypatch.setattr(sandbox, "bwrap_problem", lambda: "")
    monkeypatch.setattr(sandbox, "none_problem", lambda: "")
    return done


def grade(folder, *options):
    return cli.main(["grade", str(folder), "--quiet", *options])


@pytest.mark.skipif(
    "PRECODE_REQUIRE_SANDBOX" not in os.environ, reason="a machine may have no sandbox"
)
def test_the_sandbox_works_where_it_is_required():
    assert sandbox.bwrap_problem() == ""


def test_marks_lie_beside_the_folder(folder, ran, capsys):
    assert grade(folder) == cli.OK
    out = folder.with_name("hand-ins-marks")
    assert {p.name for p in out.iterdir()} == {
        *("marks.csv", "summary.csv", "marks.xlsx", "report.html", "feedback", "runs")
    }
    assert {p.name for p in (out / "feedback").iterdir()} == {
        *("anna.txt", "ben.txt", "carl.txt")
    }
    with open(out / "marks.csv", encoding="utf-8-sig", newline="") as file:
        rows = [*csv.DictReader(file)]
    assert len(rows) == 3 * len(NAMES)
    assert {row["state"] for row in rows} == {"right"}
    assert {row["notebook"] for row in rows} == {CHAPTER}
    assert "3 hand-ins marked, 0 of them" in capsys.readouterr().out
    assert "sandbox of bubblewrap" in (out / "report.html").read_text(encoding="utf-8")
    assert not [p for p in folder.rglob("*") if p.suffix not in ("", ".ipynb")]


def test_only_what_changed_is_run_again(folder, ran):
    grade(folder)
    assert len(ran) == 3
    grade(folder)
    assert len(ran) == 3
    hand_in(folder, "ben", notebook(added=["import math"]))
    grade(folder)
    assert len(ran) == 4
    grade(folder, "--again")
    assert len(ran) == 7
    grade(folder, "--timeout", "60")
    assert len(ran) == 10
    assert ran[-1]["limits"].cell_seconds == 20


def test_what_cannot_be_run_is_in_the_table_and_in_the_exit_code(folder, ran, capsys):
    hand_ins.break_files(folder)
    assert grade(folder, "--json") == cli.INCOMPLETE
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 10 * len(NAMES)
    stopped = {row["student"] for row in rows if row["state"] == "stopped"}
    assert len(stopped) == 7
    assert len(ran) == 3


def test_what_a_person_should_look_at_is_said_at_the_end(folder, ran, capsys):
    hand_in(folder, "dora", b"{")
    (folder / "otto").mkdir()
    (folder / "otto" / "work.zip").write_text("")
    assert grade(folder) == cli.INCOMPLETE
    said = capsys.readouterr().err
    page = (room.default_out(folder) / "report.html").read_text(encoding="utf-8")
    for words in (
        f"Stopped or unreadable: dora/{CHAPTER}.ipynb: it is no notebook",
        "No notebook: otto (with work.zip, an archive is not opened)",
    ):
        assert words in said
        assert words in page


def test_very_many_remarks_are_left_to_the_report(folder, ran, capsys):
    for number in range(30):
        (folder / f"empty_{number}").mkdir()
    grade(folder)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 21
    assert said[-1] == "10 more: see the report."


def test_only_some_exercises_may_count(folder, ran, capsys):
    names = f"{CHAPTER}.label,{CHAPTER}.by_hand"
    assert grade(folder, "--only", names, "--json") == cli.OK
    rows = json.loads(capsys.readouterr().out)
    assert {row["exercise"] for row in rows} == {"by_hand", "label"}
    assert len(ran) == 3
    grade(folder)  # another choice runs nothing again
    assert len(ran) == 3


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("nothing.x", "no notebook is called 'nothing'"),
        ("labels.x", "labels.ipynb has labels.by_hand, labels.any_features"),
        ("noise.by_hand", "no hand-in is for noise.by_hand"),
    ],
)
def test_exercises_that_are_not_there_are_said(folder, ran, names, words, capsys):
    assert grade(folder, "--only", names) == cli.MISUSED
    assert words in capsys.readouterr().err
    assert ran == []


def test_a_choice_without_a_notebook_is_not_understood(folder, ran, capsys):
    with pytest.raises(SystemExit, match="2"):
        grade(folder, "--only", "label")
    assert "labels.by_hand,labels.any_features" in capsys.readouterr().err


def test_the_bar_knows_how_many_there_are_before_the_first_has_ended(
    folder, ran, monkeypatch
):
    told = []
    settings = room.Settings(
        folder=folder,
        out=room.default_out(folder),
        exercises=room.book_exercises(),
        kind="bwrap",
    )
    room.grade(settings, lambda step: told.append((step.done, step.total)))
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_the_folder_of_hand_ins_and_the_marks_are_hidden_from_each(folder, ran):
    grade(folder)
    assert {*ran[0]["hidden"]} == {folder, room.default_out(folder)}


def test_ctrl_c_keeps_what_was_finished_and_ends_what_runs(
    folder, ran, monkeypatch, capsys
):
    done, ended = running.run, threading.Event()

    def run(*given, **settings):
        if len(ran) < 2:
            return done(*given, **settings)
        # As a real run: it goes on until somebody says that it is interrupted.
        ended.set() if settings["interrupted"].wait(30) else None
        return running.Run(stopped="interrupted")

    def interrupt(step):
        if step.done == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(running, "run", run)
    original = room.grade

    def interrupted(settings, progress):
        return original(settings, interrupt)

    monkeypatch.setattr(room, "grade", interrupted)
    assert grade(folder) == cli.STOPPED
    assert ended.is_set()
    monkeypatch.undo()
    out = room.default_out(folder)
    assert len([*(out / "runs").glob("*.json")]) == 2
    assert "Not all are marked yet." in (out / "report.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--out", "IN"], "is inside"),
        (["--exercises", "EMPTY"], "no exercise notebooks"),
    ],
)
def test_what_would_do_harm_or_nothing_exits_with_2(
    folder, ran, tmp_path, options, words, capsys
):
    places = {"IN": str(folder / "marks"), "EMPTY": str(tmp_path / "empty")}
    (tmp_path / "empty").mkdir()
    options = [places.get(option, option) for option in options]
    assert grade(folder, *options) == cli.MISUSED
    assert words in capsys.readouterr().err
    assert ran == []
    assert not (folder / "marks").exists()


def test_without_a_sandbox_it_stops_and_says_what_to_do(
    folder, ran, monkeypatch, capsys
):
    monkeypatch.setattr(sandbox, "bwrap_problem", lambda: "there is no bwrap.")
    # Whoever runs this test.
    monkeypatch.setattr(sandbox, "none_problem", lambda: "", raising=False)
    assert grade(folder) == cli.MISUSED
    err = capsys.readouterr().err
    assert "apt-get install bubblewrap" in err
    assert "--sandbox none" in err
    assert ran == []
    assert grade(folder, "--sandbox", "none") == cli.OK
    page = room.default_out(folder) / "report.html"
    assert "WITHOUT a sandbox" in page.read_text(encoding="utf-8")


def test_without_psutil_it_says_what_to_install(folder, ran, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert grade(folder) == cli.MISUSED
    assert "pip install 'precode-lib[classroom]'" in capsys.readouterr().err


def test_exercises_without_markers_are_said(folder, ran, tmp_path, capsys):
    other = tmp_path / "exercises"
    other.mkdir()
    text = json.dumps(notebook({}))
    (other / "unheard_of.ipynb").write_text(text)
    hand_in(folder, "dora", {**notebook(), "metadata": {}}).rename(
        folder / "dora" / "unheard_of.ipynb"
    )
    assert grade(folder, "--exercises", str(other)) == cli.MISUSED
    assert "unheard_of.ipynb has no markers" in capsys.readouterr().err


def test_half_of_the_cores_work(monkeypatch):
    for cores, jobs in [(None, 1), (1, 1), (2, 1), (8, 4)]:
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        assert room.default_jobs() == jobs

"""Nothing about one hand-in ends, stalls or changes the marks of another."""

import csv
import io
import json
import math
import os
import sys

import pytest
from hand_ins import CHAPTER, NAMES, hand_in, notebook

from precode_lib import cli
from precode_lib.grading import (
    pace,
    report,
    room,
    running,
    sandbox,
    store,
    tables,
    writing,
)
from precode_lib.grading.endings import OF_THE_MACHINE

FILE = f"{CHAPTER}.ipynb"
EVERY_RIGHT = {"anna": {"right"}, "eve": {"right"}, "zoe": {"right"}}


@pytest.fixture
def folder(tmp_path):
    for student in ("anna", "eve", "zoe"):
        marker = notebook(added=[f"# {student}"])
        hand_in(tmp_path / "hand-ins", student, marker)
    return tmp_path / "hand-ins"


def findings(text):
    state = "right"
    found = {"state": state, "message": "correct.", "asked": 1, "text": text}
    return {f"{CHAPTER}.{n}": {"name": f"{CHAPTER}.{n}", **found} for n in NAMES}


@pytest.fixture
def runs(monkeypatch):
    """Runs that take no time: eve's is what the test says. The list of who was run."""

    class Runs(list):
        of_eve = staticmethod(lambda: running.Run(findings=findings("")))

    runs = Runs()

    def run(text, chapter, names, **settings):
        who = next(name for name in ("anna", "eve", "zoe") if f'"# {name}"' in text)
        runs.append(who)
        if who == "eve":
            return runs.of_eve()
        return running.Run(findings=findings("why"), cells={3: cell(0.5)})

    monkeypatch.setattr(running, "run", run)
    monkeypatch.setattr(sandbox, "bwrap_problem", lambda: "")
    monkeypatch.setattr(store, "library_digest", lambda: "of this library")
    return runs


def cell(seconds, error=""):
    how = "raised" if error else "well"
    return {"error": error, "seconds": seconds, "how": how}


def grade(folder, *options):
    return cli.main(["grade", str(folder), "--quiet", *options])


def rows_of(folder):
    out = room.default_out(folder)
    with open(out / "marks.csv", encoding="utf-8-sig", newline="") as file:
        return [*csv.DictReader(file)]


def states_of(folder):
    states: dict[str, set] = {}
    for row in rows_of(folder):
        states.setdefault(row["student"], set()).add(row["state"])
    return states


POISON = {
    "nan": lambda: running.Run(findings=findings(""), cells={2: cell(math.nan)}),
    "infinite": lambda: running.Run(findings=findings(""), cells={2: cell(math.inf)}),
    "huge": lambda: running.Run(findings=findings(""), cells={2: cell(1e300)}),
    "sum": lambda: running.Run(
        findings=findings(""), cells={n: cell(1.7e308) for n in range(20)}
    ),
    "negative": lambda: running.Run(findings=findings(""), cells={2: cell(-1e9)}),
    "no_number": lambda: running.Run(findings=findings(""), cells={2: cell("x")}),
    "no_cell": lambda: running.Run(findings=findings(""), cells={2: 3}),
    "number_for_error": lambda: running.Run(
        findings=findings(""), cells={2: cell(1.0, 7)}
    ),
}


@pytest.mark.parametrize("poison", POISON)
def test_numbers_that_are_none_in_a_log_change_nothing(folder, runs, poison):
    runs.of_eve = POISON[poison]
    assert grade(folder) == cli.OK
    assert states_of(folder) == EVERY_RIGHT
    assert all(len(row["seconds"]) <= 5 for row in rows_of(folder))
    assert all(0 <= int(row["seconds"]) < 1e5 for row in rows_of(folder))
    assert grade(folder) == cli.OK
    assert sorted(runs) == ["anna", "eve", "zoe"]  # nothing was run again


def raise_(error):
    raise error


FAILURES = {
    "raises": lambda: raise_(RuntimeError("can't start new thread")),
    "memory": lambda: raise_(MemoryError()),
    "deep": lambda: raise_(RecursionError("too deep")),
    "system": lambda: raise_(OSError(24, "Too many open files")),
    "nothing": lambda: None,
    "no_finding": lambda: running.Run(findings={f"{CHAPTER}.label": 3}),
    "no_state": lambda: running.Run(
        findings={f"{CHAPTER}.label": {"state": "excellent", "message": "x"}}
    ),
    "asked_nan": lambda: running.Run(
        findings={
            f"{CHAPTER}.label": {
                "state": "right",
                "message": "",
                "text": "",
                "asked": math.nan,
            }
        }
    ),
    "endless": lambda: running.Run(stopped="x" * 1_000_000),
    "memory_nan": lambda: running.Run(findings=findings(""), memory=math.nan),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_whatever_becomes_of_one_run_the_others_are_marked(
    folder, runs, failure, capsys
):
    runs.of_eve = FAILURES[failure]
    for calls in (1, 2):
        assert grade(folder) == cli.INCOMPLETE
        states = states_of(folder)
        assert states == {"anna": {"right"}, "eve": {"stopped"}, "zoe": {"right"}}
        assert f"Stopped or unreadable: eve/{FILE}: " in capsys.readouterr().err
        # Tried again each time; the others are not.
        assert runs.count("eve") == calls
        assert (runs.count("anna"), runs.count("zoe")) == (1, 1)


@pytest.mark.parametrize(
    ("module", "name"),
    [(room, "mark"), (report, "_row"), (report, "_feedback"), (tables, "_records")],
)
def test_a_hand_in_of_which_nothing_can_be_written_stops_no_other(
    folder, runs, module, name, monkeypatch, capsys
):
    real = getattr(module, name)

    def breaks(*given, **more):
        if "correct. eve" in str(given):
            raise KeyError("nobody thought of it")
        return real(*given, **more)

    runs.of_eve = lambda: running.Run(
        findings=json.loads(
            json.dumps(findings("")).replace("correct.", "correct. eve")
        )
    )
    monkeypatch.setattr(module, name, breaks)
    assert grade(folder) == cli.INCOMPLETE
    states = states_of(folder)
    assert states == {"anna": {"right"}, "eve": {"stopped"}, "zoe": {"right"}}
    said = capsys.readouterr().err
    assert f"eve/{FILE}: no marks can be made of what was found: KeyError" in said
    feedback = room.default_out(folder) / "feedback"
    assert {p.name for p in feedback.iterdir()} == {"anna.txt", "eve.txt", "zoe.txt"}


def with_(**changes):
    """What a stored run becomes with other parts, which JSON takes from anybody."""
    return lambda kept: json.dumps({**kept, **changes}).encode()


LABEL = f"{CHAPTER}.label"
GOOD = {"name": LABEL, "state": "right", "message": "", "text": "", "asked": 1}
BROKEN = {
    "half": lambda kept: json.dumps(kept).encode()[:-30],
    "list": lambda kept: b"[]",
    "null": lambda kept: b"null",
    "deep": lambda kept: b"[" * 100_000,
    "binary": lambda kept: b"\xff\xfe",
    "little": lambda kept: b'{"cells": {}}',
    "more": with_(unheard_of=1),
    "cells": with_(cells=[1]),
    "cell": with_(cells={"1": 3}),
    "number": with_(cells={"x": cell(1.0)}),
    "below": with_(cells={"-1": cell(1.0)}),
    "nan": with_(cells={"1": cell(math.nan)}),
    "huge": with_(cells={"1": cell(1e300)}),
    "how": with_(cells={"1": {**cell(1.0), "how": "anyhow"}}),
    "cause": with_(cause="anything"),
    "finding": with_(findings={LABEL: 3}),
    "state": with_(findings={LABEL: {**GOOD, "state": "excellent"}}),
    "message": with_(findings={LABEL: {**GOOD, "message": ["x"]}}),
    "asked": with_(findings={LABEL: {**GOOD, "asked": math.nan}}),
    "stopped": with_(stopped=3),
    "endless": with_(stopped="x" * 200_000),
    "seconds": with_(seconds=math.nan),
    "negative": with_(seconds=-1e9),
    "memory": with_(memory=10**400),
    "malformed": with_(malformed="no"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_stored_run_that_is_unsound_is_thrown_away_and_run_again(
    folder, runs, broken
):
    assert grade(folder) == cli.OK
    places = sorted((room.default_out(folder) / "runs").iterdir())
    good = {place: place.read_bytes() for place in places}
    for place, content in good.items():
        place.write_bytes(BROKEN[broken](json.loads(content)))
    assert grade(folder) == cli.OK
    assert states_of(folder) == EVERY_RIGHT
    assert runs.count("eve") == 2
    assert {place: place.read_bytes() for place in places} == good
    assert grade(folder) == cli.OK
    assert runs.count("eve") == 2


def test_an_unsound_file_is_not_there_any_more(folder, runs, monkeypatch):
    assert grade(folder) == cli.OK
    places = [*(room.default_out(folder) / "runs").iterdir()]
    for place in places:
        place.write_bytes(b"{")
    monkeypatch.setattr(store.Store, "save", lambda *given: None)
    assert grade(folder) == cli.OK
    assert not any(place.exists() for place in places)


def test_a_stored_run_of_which_no_marks_can_be_made_is_thrown_away(
    folder, runs, monkeypatch
):
    assert grade(folder) == cli.OK
    real = room.mark

    def mark(one, *given):
        return raise_(KeyError("x")) if one.owner == "eve" else real(one, *given)

    monkeypatch.setattr(room, "mark", mark)
    assert grade(folder) == cli.INCOMPLETE
    assert len([*(room.default_out(folder) / "runs").iterdir()]) == 2
    monkeypatch.setattr(room, "mark", real)
    assert grade(folder) == cli.OK
    assert runs.count("eve") == 2


@pytest.mark.parametrize("cause", OF_THE_MACHINE)
def test_what_could_not_be_run_is_not_kept(tmp_path, cause):
    kept = store.Store(tmp_path / "runs", "bwrap", None)
    kept.save(None, running.Run(stopped="why", cause=cause))
    assert not (tmp_path / "runs").exists()


def test_half_characters_and_odd_names_reach_the_files(folder, runs):
    odd = json.loads(
        json.dumps(findings("\ud800")).replace("correct.", "\\udc80\\u0000")
    )
    runs.of_eve = lambda: running.Run(findings=odd, cells={2: cell(1.0, "\ud800")})
    (folder / "eve").rename(folder / "e\x1bv\udcff\u202ee")
    assert grade(folder) == cli.OK
    assert len(states_of(folder)) == 3


def test_students_whose_paths_look_alike_keep_their_own_marks(folder, runs, capsys):
    (folder / "eve").rename(folder / "eve\x01")
    (folder / "zoe").rename(folder / "eve\x02")
    wrong = json.loads(json.dumps(findings("")).replace('"right"', '"wrong"'))
    runs.of_eve = lambda: running.Run(findings=wrong)
    assert grade(folder) == cli.OK
    assert states_of(folder) == {
        "anna": {"right"},
        "eve\ufffd [eve\\x01]": {"wrong"},
        "eve\ufffd [eve\\x02]": {"right"},
    }
    out = room.default_out(folder)
    summary = (out / "summary.csv").read_text(encoding="utf-8-sig")
    assert summary.count("0 of 5") == 1
    assert summary.count("5 of 5") == 2
    assert len([*(out / "feedback").iterdir()]) == 3
    assert "Look alike, and are 2 students: eve" in capsys.readouterr().err


def test_each_students_first_notebook_comes_before_anybodys_second(
    folder, runs, monkeypatch
):
    for number in range(3):
        more = notebook(added=["# eve"])
        hand_in(folder, "eve", more).rename(
            folder / "eve" / f"{CHAPTER} ({number}).ipynb"
        )
    hand_in(folder, "eve", notebook(added=["# eve"]))
    assert grade(folder, "--jobs", "1") == cli.OK
    assert sorted(runs[:3]) == ["anna", "eve", "zoe"]
    assert runs[3:] == ["eve"] * 3


def test_files_are_written_now_and_then_and_at_the_end(folder, runs, monkeypatch):
    written = []
    monkeypatch.setattr(
        writing.Files,
        "write",
        lambda files, marked, is_whole: written.append((len(marked), is_whole)),
    )
    assert grade(folder, "--jobs", "1") == cli.OK
    assert written == [(3, True)]
    now = iter(range(1000))
    monkeypatch.setattr(writing.time, "monotonic", lambda: 100.0 * next(now))
    assert grade(folder, "--jobs", "1", "--again") == cli.OK
    assert (1, False) in written
    assert written[-1] == (3, True)


def test_what_a_killed_call_left_half_written_goes_later(folder, runs):
    assert grade(folder) == cli.OK
    out = room.default_out(folder)
    places = [out / ".partial-1.csv", out / "runs" / ".partial-2.json"]
    for place in places:
        place.write_text("{")
        os.utime(place, (1e9, 1e9))
    (out / ".partial-3.csv").write_text("of a call that is going on")
    assert grade(folder) == cli.OK
    assert [place.name for place in out.rglob(".partial-*")] == [".partial-3.csv"]


def test_a_stop_that_was_the_machines_fault_is_not_kept(folder, runs):
    runs.of_eve = lambda: running.Run(stopped="words", cause="machine")
    assert grade(folder) == grade(folder) == cli.INCOMPLETE
    assert runs.count("eve") == 2
    runs.of_eve = lambda: running.Run(stopped="words", cause="time")
    assert grade(folder) == grade(folder) == cli.INCOMPLETE
    assert runs.count("eve") == 3


def test_the_cost_is_said_before_anything_is_run(folder, runs, capsys):
    assert cli.main(["grade", str(folder), "--jobs", "2", "--timeout", "600"]) == cli.OK
    said = capsys.readouterr().err
    assert said.startswith(
        "3 hand-ins, 3 of them to run, 2 at a time: about 30 seconds, if each takes 20 "
        "seconds; up to 15 minutes on a quiet machine, if each meets its limit.\n"
    )
    cli.main(["grade", str(folder), "--jobs", "2", "--timeout", "600"])
    assert "3 hand-ins, none of which has to be run." in capsys.readouterr().err


def test_the_rest_takes_what_the_last_ones_took():
    counted = pace.Pace(jobs=2)
    assert counted.left(0) == 0
    assert counted.left(10) == 10 * pace.USUAL / 2
    assert counted.left(1) == pace.USUAL  # one is not run by two
    for _ in range(5):
        counted.add(1000)
    for _ in range(pace.RECENT):
        counted.add(6)
    assert counted.left(10) == 30
    said = {5: "10 seconds", 44: "40 seconds", 300: "5 minutes", 9000: "2.5 hours"}
    assert {seconds: pace.in_words(seconds) for seconds in said} == said


def test_without_a_terminal_a_line_each_minute_says_how_far_it_is(
    folder, runs, monkeypatch, capsys
):
    now = iter(range(10_000))
    monkeypatch.setattr(cli.time, "monotonic", lambda: 40.0 * next(now))
    assert cli.main(["grade", str(folder), "--jobs", "1"]) == cli.OK
    lines = capsys.readouterr().err.splitlines()
    assert f"3 of 3 hand-ins, all are run, zoe/{FILE}" in lines
    assert any("of 3 hand-ins, about 10 seconds left, " in line for line in lines)


def test_an_error_of_ours_says_after_whom_it_came(folder, runs, monkeypatch, capsys):
    real = writing.Files.now_and_then

    def breaks(files, marked):
        if len(marked) == 2:
            raise RecursionError("deep")
        real(files, marked)

    monkeypatch.setattr(writing.Files, "now_and_then", breaks)
    assert grade(folder, "--jobs", "1") == cli.MISUSED
    said = capsys.readouterr().err
    assert f"precode: deep; it came after eve/{FILE}. What was finished is kept" in said
    assert len(rows_of(folder)) == 10


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_names_that_the_terminal_cannot_write_are_no_problem(
    folder, runs, monkeypatch, options
):
    (folder / "eve").rename(folder / "\u0639\u0644\u06cc\udcff")
    runs.of_eve = lambda: running.Run(stopped="\u0639\ud800")
    # As Python opens them where only ASCII can be written.
    for name, errors in (("stdout", "strict"), ("stderr", "backslashreplace")):
        stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors=errors)
        monkeypatch.setattr(sys, name, stream)
    assert cli.main(["grade", str(folder), *options]) == cli.INCOMPLETE

"""A hand-in's seconds are its own: however busy the machine is, it comes as far."""

import json
import math
import os
import subprocess
import sys
from types import SimpleNamespace

import hand_ins
import psutil
import pytest
from boxes import needs_bwrap, stopped

from precode_lib.grading import inside, marks, room, running, usage
from precode_lib.grading.endings import Stop
from precode_lib.grading.limits import Limits


class Process:
    """As psutil shows one."""

    def __init__(self, pid, seconds, state):
        self.pid, self.seconds, self.state = pid, seconds, state

    def oneshot(self):
        from contextlib import nullcontext

        return nullcontext()

    def create_time(self):
        return 1.0

    def cpu_times(self):
        return SimpleNamespace(user=self.seconds, system=0.0)


@pytest.fixture
def clock(monkeypatch):
    """A clock of which the machine's own is set by hand, and threads by their name."""
    machine = SimpleNamespace(now=0.0)
    monkeypatch.setattr(usage.time, "monotonic", lambda: machine.now)
    monkeypatch.setattr(usage, "_is_busy", lambda process: process.state in "RD")
    made = usage.Clock(looked=0.0)
    return SimpleNamespace(machine=machine, clock=made)


def look(clock, now, *family):
    clock.machine.now = now
    return clock.clock.look(family)


def test_waiting_for_a_core_is_free(clock):
    assert look(clock, 10, Process(1, 2.0, "R")) == 2
    assert look(clock, 500, Process(1, 3.0, "R")) == 3
    assert look(clock, 600, Process(1, 3.0, "R"), Process(2, 0.0, "S")) == 3


def test_sleeping_is_not(clock):
    assert look(clock, 10, Process(1, 2.0, "S"), Process(2, 0.0, "S")) == 10
    assert look(clock, 15, Process(1, 2.0, "S")) == 15


def test_several_processes_compute_together(clock):
    assert look(clock, 10, Process(1, 8.0, "R"), Process(2, 7.0, "R")) == 15


def test_who_has_ended_has_computed_all_the_same(clock):
    assert look(clock, 10, Process(1, 1.0, "R"), Process(2, 7.0, "R")) == 8
    assert look(clock, 11, Process(1, 2.0, "R")) == 9


def test_threads_that_compute_are_seen_behind_a_first_one_that_sleeps():
    code = (
        "import threading, time\n"
        "def work():\n"
        "    while True: pass\n"
        "threading.Thread(target=work, daemon=True).start()\n"
        "print(1, flush=True); time.sleep(100)"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        member = psutil.Process(process.pid)
        found = [usage._is_busy(member) for _ in range(200)]
        process.kill()
    assert any(found)
    assert not usage._is_busy(SleepingForEver.process())


class SleepingForEver:
    """A process of which nothing is to be expected."""

    @classmethod
    def process(cls):
        made = subprocess.Popen(["/bin/sleep", "600"])
        try:
            for _ in range(1000):
                member = psutil.Process(made.pid)
                if not usage._is_busy(member):
                    return SimpleNamespace(pid=0, status=lambda: psutil.STATUS_SLEEPING)
            return member
        finally:
            made.kill(), made.wait()


BURN = "while True:\n    pass"


@needs_bwrap
def test_one_that_computes_is_stopped_by_the_seconds_it_has_computed(monkeypatch):
    limits = Limits(seconds=3)
    assert "longer than 3 seconds" in stopped(BURN, monkeypatch, limits=limits)


@needs_bwrap
def test_one_that_never_gets_a_core_ends_by_the_clock(monkeypatch):
    # As on a machine that is busy for ever: it is ready, and computes nothing.
    monkeypatch.setattr(usage.Clock, "look", lambda clock, family: 0.0)
    reason = stopped(BURN, monkeypatch, limits=Limits(seconds=0.5))
    assert "longer than 2.5 seconds by the clock" in reason


def test_what_the_examiner_computes_is_the_hand_in_s_time(monkeypatch):
    asked = []
    watch = running._Watch(
        None,
        SimpleNamespace(pid=1),
        SimpleNamespace(is_full=0),
        Limits(),
        running.Run(),
        helper=SimpleNamespace(pid=7),
    )
    monkeypatch.setattr(running, "_family", lambda pid: [Process(pid, 1.0, "R")])
    monkeypatch.setattr(running._Watch, "_too_much_memory", lambda *_: Stop())
    monkeypatch.setattr(running._Watch, "_root", lambda _: 1)
    monkeypatch.setattr(usage, "first_to_go", lambda process: asked.append(process.pid))
    monkeypatch.setattr(usage, "_is_busy", lambda process: True)
    assert watch._too_much() == Stop()
    assert watch.result.worked == 2
    assert asked == [1]  # the examiner stays as it is


@pytest.mark.parametrize("seconds", ["NaN", "1e300", "-1.0", "Infinity", "1e6", "true"])
def test_no_number_of_seconds_that_a_hand_in_writes_is_taken_for_one(seconds):
    line = f'{{"cell": 4, "event": "ends", "error": "", "seconds": {seconds}}}'
    result = running.Run()
    running._note_cells(SimpleNamespace(lines=lambda: [json.loads(line)]), result)
    assert result.cells == {}


def test_honest_seconds_are_kept():
    line = {"cell": 4, "event": "ends", "error": "", "seconds": 3.2}
    result = running.Run()
    running._note_cells(SimpleNamespace(lines=lambda: [line]), result)
    assert result.cells == {4: {"error": "", "seconds": 3.2, "how": "well"}}
    assert math.isfinite(result.cells[4]["seconds"])


@pytest.mark.parametrize(("malformed", "asked"), [(200, 0), (0, 200), (150, 50)])
def test_who_calls_on_the_examiner_without_end_is_said(malformed, asked):
    result = running.Run(malformed=malformed, findings={"x": {"asked": asked}})
    running._note_calls(result)
    assert result.stopped == "it called on the examiner 200 times"
    few = running.Run(malformed=malformed // 2, findings={"x": {"asked": asked // 2}})
    running._note_calls(few)
    assert (few.stopped, few.cause) == ("", "")


@pytest.mark.parametrize(
    ("error", "said", "how"),
    [
        ("KeyError: 1", "late", "late"),
        ("KeyError: 1", "forever", "raised"),
        ("KeyError: 1", ["late"], "raised"),
        ("KeyError: 1", None, "raised"),
        ("", "late", "well"),
    ],
)
def test_of_how_a_cell_ended_only_what_is_known_is_kept(error, said, how):
    line = {"cell": 4, "event": "ends", "error": error, "seconds": 3.2, "how": said}
    result = running.Run()
    running._note_cells(SimpleNamespace(lines=lambda: [line]), result)
    assert result.cells[4]["how"] == how


@needs_bwrap
@pytest.mark.slow
def test_when_its_examiner_has_ended_a_hand_in_is_tried_again(tmp_path):
    # The listening socket is still there, so a notebook would ask and wait for ever.
    one = hand_ins.handed_in()
    run = running.run(
        one.assembled.text, "no_chapter", ["label"], kind="bwrap", limits=Limits()
    )
    assert (run.cause, run.findings) == ("examiner", {})
    assert run.stopped == "its examiner ended with code 1; mark it again"
    assert {row.state for row in marks.mark(one, run).rows} == {"stopped"}


class CellError(Exception):
    """As nbval's, with the traceback of the cell."""

    def __init__(self, message, traceback=""):
        super().__init__(3, message, "source", traceback)
        self.inner_traceback = traceback


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            CellError("Cell execution caused an exception", "a\nTimeoutError"),
            "TimeoutError",
        ),
        (
            CellError("Cell execution caused an exception", "NameError: timeout"),
            "NameError: timeout",
        ),
        (
            CellError("Timeout of 3 seconds exceeded executing cell", "Keyboard"),
            "Timeout of 3 seconds exceeded executing cell",
        ),
        (RuntimeError("Kernel dead on test start"), "Kernel dead on test start"),
    ],
)
def test_nbval_s_own_sentence_says_that_time_was_up_and_no_word_of_a_student_s(
    error, words
):
    assert inside._described(error) == words


@needs_bwrap
@pytest.mark.slow
@pytest.mark.classroom_all  # it takes the cores that other tests need
def test_beside_busy_processes_the_marks_are_the_same(tmp_path):
    folder = tmp_path / "hand-ins"
    hand_ins.hand_in(folder, "anna", hand_ins.notebook())
    busy = [subprocess.Popen([sys.executable, "-c", BURN]) for _ in range(4)]
    try:
        # By the clock it takes longer than these seconds, on two cores several times.
        limits = Limits(seconds=60, cell_seconds=15)
        graded = room.grade(
            room.Settings(
                folder=folder,
                out=tmp_path / "marks",
                exercises=room.book_exercises(),
                kind="bwrap",
                limits=limits,
            )
        )
    finally:
        for process in busy:
            process.kill(), process.wait()
    (marked,) = graded.marked
    assert {row.exercise: row.state for row in marked.rows} == dict.fromkeys(
        hand_ins.NAMES, "right"
    )
    assert marked.run.worked < 60
    assert os.cpu_count()

"""The examiner: what it says of honest notebooks, and of those that are not."""

import io
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from boxes import needs_bwrap
from hand_ins import FORGED, notebook

import precode_lib
from precode_lib.checks import what_a_gradient_knows as check
from precode_lib.grading import running, sandbox
from precode_lib.grading.limits import MB, Limits
from precode_lib.marking import (
    TODO,
    NotSolved,
    examined,
    examiner,
    frames,
    plain,
    stubs,
)

CHAPTER = "what_a_gradient_knows"
NAMES = ("by_hand", "closed_form", "label", "enough_noise", "two_photographs")
RIGHT_BY_HAND = ([[-0.5, 0.25], [0.5, -0.25]], [-0.25, 0.25])


# The examiner forks; in these tests from a process that may have threads, too.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


class Examination:
    """An examiner in a process of its own, and in the end what it told."""

    def __init__(self, meeting):
        self.meeting, self.address = meeting, str(meeting / "socket")
        self.result = running.Run()

    def __enter__(self):
        self.told, telling = os.pipe()
        stop, self.stopping = os.pipe()
        with running._listening(self.meeting) as listener:
            # Forked from here and not started anew: torch is loaded already.
            self.process = os.fork()
            if self.process == 0:
                os.close(self.stopping)
                with suppress(BaseException), open(telling, "w") as told:
                    judges = examiner.markers(CHAPTER, NAMES)
                    examiner.serve(listener, judges, told, stop)
                os._exit(0)
        os.close(telling), os.close(stop)
        return self

    def __exit__(self, *problem):
        os.close(self.stopping)
        with open(self.told, "rb") as told:
            lines = [json.loads(line) for line in told.read().splitlines()]
        os.waitpid(self.process, 0)
        running._note_findings(SimpleNamespace(lines=lambda: lines), self.result)

    def ask(self, name, *answers):
        return examined.ask(f"{CHAPTER}.{name}", answers, self.address)

    def connect(self):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self.address)
        return connection

    def state(self, name):
        return self.result.findings[f"{CHAPTER}.{name}"]["state"]

    def asked(self, name):
        return self.result.findings[f"{CHAPTER}.{name}"]["asked"]


@pytest.fixture
def examination(tmp_path):
    return Examination(tmp_path)


def test_an_examiner_says_what_the_marker_says(examination, monkeypatch, capsys):
    with examination as exam:
        assert exam.ask("by_hand", *RIGHT_BY_HAND).is_right
        wrong = exam.ask("closed_form", lambda *g: g[0][0] / g[1][0])
        assert (wrong.state, "unit 0 is off" in wrong.message) == ("wrong", True)
        assert exam.ask("two_photographs", "too short").state == "wrong"
        monkeypatch.setenv("PRECODE_EXAMINER", exam.address)
        check.label(lambda db: int(db.argmin()))
        assert capsys.readouterr().out == "label: correct.\n"
        with pytest.raises(NotSolved, match="enough_noise: not answered yet"):
            check.enough_noise(TODO)
    assert {name: exam.state(name) for name in NAMES} == {
        "by_hand": "right",
        "closed_form": "wrong",
        "label": "right",
        "enough_noise": "unanswered",
        "two_photographs": "wrong",
    }
    finding = exam.result.findings[f"{CHAPTER}.two_photographs"]
    assert finding["text"] == "too short"


RUN = """
import ast, json, re, sys
path, folder = sys.argv[1:]
import precode_lib.checks
assert precode_lib.checks.__file__.startswith(folder)
space = {"__name__": "notebook"}
for cell in json.load(open(path, encoding="utf-8"))["cells"]:
    text = "".join(cell["source"])
    if cell["cell_type"] == "code" and "interactive" not in text and "%" != text[:1]:
        exec(re.sub(r"^( *)[%!].*$", r"\\1pass", text, flags=re.MULTILINE), space)
"""


@pytest.mark.parametrize("with_stubs", [False, True])
def test_a_notebook_that_sees_stubs_is_judged_like_one_that_sees_markers(
    examination, tmp_path_factory, with_stubs
):
    library = Path(precode_lib.__file__).parent
    folder = tmp_path_factory.mktemp("overlay") if with_stubs else library.parent
    if with_stubs:
        (folder / "precode_lib").mkdir()
        (folder / "data").symlink_to(library.parent / "data")
        for path in {*library.iterdir()} - {library / "checks"}:
            (folder / "precode_lib" / path.name).symlink_to(path)
        stubs.write(folder / "precode_lib" / "checks")
    notebook = library.parent / "book" / "solutions" / f"{CHAPTER}.ipynb"
    with examination as exam:
        names = {"PYTHONPATH": str(folder), "PRECODE_EXAMINER": exam.address}
        done = subprocess.run(
            [sys.executable, "-c", RUN, str(notebook), str(folder)],
            env={**os.environ, **names, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"},
            cwd="/",
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr[-2000:]
    assert {name: exam.state(name) for name in NAMES} == dict.fromkeys(NAMES, "right")
    assert code_of(exam, "two_photographs") == "handed_in"


IN_THE_BOX = """
import io, json, sys
from contextlib import redirect_stdout
space, told = {"__name__": "notebook"}, {}
for text in json.loads(sys.argv[1]):
    said, error = io.StringIO(), ""
    try:
        with redirect_stdout(said):
            exec(text, space)
    except Exception as problem:
        error = f"{type(problem).__name__}: {problem}"
    told[text.partition("\\n")[0]] = [said.getvalue(), error]
sys.__stdout__.write(json.dumps(told))
"""


@needs_bwrap
def test_a_notebook_that_forges_reaches_all_that_it_attacks(tmp_path):
    meeting = tmp_path / "meeting"
    meeting.mkdir()
    cells = ["".join(cell["source"]) for cell in notebook(FORGED)["cells"]]
    given = f"from precode_lib.checks import {CHAPTER} as check"
    cells = [given, *(x for x in cells if x.startswith(("# Answer", "# Check")))]
    lent = {"meeting": meeting, "scratch": tmp_path, "hidden": ()}
    limits = Limits(seconds=120, memory=2000 * MB)
    with Examination(meeting) as exam, sandbox.box("bwrap", limits, **lent) as box:
        command = [*box.command[: -len(sandbox._INSIDE)], sys.executable, "-c"]
        done = subprocess.run(
            [*command, IN_THE_BOX, json.dumps(cells)],
            env=dict(box.environment),
            pass_fds=box.descriptors,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    # Nothing keeps an attack from being made, and its notebook from saying so.
    assert [told[f"# Answer: {name}"][1] for name in NAMES] == [""] * len(NAMES)
    for name in ("by_hand", "two_photographs"):
        assert "correct." in told[f"# Check: {name}"][0]
    # But what the examiner found is another thing, each for its own reason.
    found = {name: exam.result.findings.get(f"{CHAPTER}.{name}") for name in NAMES}
    assert found.pop("two_photographs") is None  # nobody asked about it
    reasons = {
        "by_hand": ("wrong", "judged", "db is not [0, 0]"),
        "closed_form": ("wrong", "judged", "a Agreeable is not accepted"),
        "label": ("raised", "raised", "stopped with NotSolved: correct."),
        "enough_noise": ("wrong", "judged", "σ is not 0"),
    }
    for name, (state, code, words) in reasons.items():
        assert (found[name]["state"], found[name]["code"]) == (state, code), name
        assert words in found[name]["message"]
    # Who asks until it is right, and who asks and answers in one, has asked again.
    assert found["enough_noise"]["asked"] > 3
    assert found["label"]["asked"] == 3
    assert exam.result.malformed == 2


def code_of(exam, name):
    return exam.result.findings[f"{CHAPTER}.{name}"]["code"]


def test_a_code_that_no_rewording_changes_says_how_a_finding_came_about(examination):
    words = " ".join(f"word{n}" for n in range(40))
    with examination as exam:
        exam.ask("by_hand", 1, 2)
        exam.ask("closed_form", lambda *g: 1 / 0)
        exam.ask("label", lambda db: 3j)
        exam.ask("two_photographs", words)
    assert [code_of(exam, name) for name in NAMES if name != "enough_noise"] == [
        "judged",
        "raised",
        "judged",
        "handed_in",
    ]


def test_silence_and_a_judgement_cut_short_have_codes_of_their_own(tmp_path):
    def kill_or_call(answer, _):
        answer() if callable(answer) else os.kill(os.getpid(), 9)

    found = served(tmp_path, ask_once("crash"), judging(kill_or_call))
    (tmp_path / "socket").unlink()
    assert (found["x.y"].code, found["x.y"].state) == ("cut_short", "raised")

    found = served(tmp_path, ask_once(7), judging(lambda answer, _: answer / 0))
    (tmp_path / "socket").unlink()
    assert (found["x.y"].code, found["x.y"].state) == ("unjudged", "raised")

    def leave(address):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(address)
            answers = [{"function": True}]
            frames.send(connection, {"ask": "x.y", "answers": answers})
            frames.receive(connection, 60)
        examined.ask("x.y", (TODO,), address)  # stays until the first is judged

    found = served(tmp_path, leave, judging(kill_or_call))
    assert (found["x.y"].code, found["x.y"].state) == ("nothing_came", "raised")


def test_an_error_in_a_learners_function_comes_with_its_line(examination):
    def broken(db):
        return db @ torch.zeros(1, 1, 7)

    with examination as exam:
        verdict = exam.ask("label", broken)
    assert verdict.state == "raised"
    assert "db @ torch.zeros" in verdict.message


def test_the_examiner_of_a_run_is_another_process(tmp_path):
    result = running.Run()
    with running._listening(tmp_path) as listener:
        with running._examiner(listener, CHAPTER, ["label"]) as told:
            name, address = f"{CHAPTER}.label", str(tmp_path / "socket")
            rule = lambda db: int(db.argmin())  # noqa: E731
            assert examined.ask(name, (rule,), address).is_right
        running._note_findings(told, result)
    assert result.findings[name]["state"] == "right"


@pytest.mark.parametrize(
    ("output", "state", "words"),
    [
        (None, "wrong", "returned None"),
        (object(), "wrong", "a object is not accepted"),
        (float("nan"), "wrong", "NaN or infinity"),
        (10**4000, "wrong", "should be a number"),
        (10**5000, "wrong", "more than 4,300 digits"),
        (torch.zeros(3, 1_000_000), "wrong", "should be a number, got a tensor"),
        ("x" * 1_000_000, "wrong", "should be a number"),
    ],
    ids=["none", "object", "nan", "huge", "endless", "shape", "text"],
)
def test_whatever_a_function_returns_there_is_a_verdict(
    examination, output, state, words
):
    with examination as exam:
        verdict = exam.ask("label", lambda db: output)
    assert (verdict.state, exam.state("label")) == (state, state)
    assert words in verdict.message
    assert len(verdict.message) < 5000


def test_an_array_read_backwards_is_judged_like_any_other(examination):
    turned = [np.array(part)[::-1].copy() for part in RIGHT_BY_HAND]
    with examination as exam:
        assert exam.ask("by_hand", *(part[::-1] for part in turned)).is_right
        assert exam.ask("closed_form", lambda *g: np.flip(first_row(*g))).is_right
    assert (exam.state("by_hand"), exam.state("closed_form")) == ("right", "right")


def first_row(weight, bias):
    """The picture from its end, by the unit that tells most."""
    unit = bias.abs().argmax()
    return np.flip((weight[unit] / bias[unit]).numpy())


def test_of_several_answers_the_first_counts(examination):
    with examination as exam:
        assert exam.ask("enough_noise", TODO).state == "unanswered"
        for level in check.LEVELS:
            assert exam.ask("enough_noise", level).state == "wrong"
    assert exam.state("enough_noise") == "wrong"
    assert exam.asked("enough_noise") == 1 + len(check.LEVELS)


GARBAGE = [
    b"",
    b"\x00\x00",
    b"GET / HTTP/1.1\r\n\r\n",
    struct.pack(">I", 2**32 - 1) + b"x" * 1000,
    struct.pack(">I", 60_000_000) + b"[",
    struct.pack(">I", 4) + b"\xff\xfe\xfd\xfc",
    struct.pack(">I", 100_000) + b"[" * 100_000,
    struct.pack(">I", 3) + b"[1]",
    struct.pack(">I", 4) + b"null",
]
MESSAGES = [
    {"verdict": "right", "message": "correct."},
    {"ask": f"{CHAPTER}.by_hand", "verdict": "right", "answers": None},
    {"ask": "by_hand", "answers": []},
    {"ask": "labels.by_hand", "answers": []},
    {"ask": f"{CHAPTER}.leak_through_noise", "answers": []},
    {"ask": "../../etc/passwd", "answers": []},
    {"ask": torch.zeros(3), "answers": []},
    {"ask": ["by_hand"], "answers": []},
    {"ask": f"{CHAPTER}.by_hand", "answers": [1, 2]},
    {"ask": f"{CHAPTER}.by_hand", "answers": [{"plain": 1}] * 1000},
]


def nothing_comes(connection):
    connection.shutdown(socket.SHUT_WR)
    with suppress(ConnectionResetError):  # closed before all was read
        return connection.recv(10) == b""
    return True


def test_whoever_speaks_otherwise_is_counted_and_gets_nothing(examination):
    with examination as exam:
        for data in GARBAGE:
            with exam.connect() as connection, suppress(BrokenPipeError):
                connection.sendall(data)
                assert nothing_comes(connection)
        for message in MESSAGES:
            with exam.connect() as connection:
                frames.send(connection, message)
                assert nothing_comes(connection)
        # And it is as well as before.
        assert exam.ask("by_hand", *RIGHT_BY_HAND).is_right
    assert exam.result.malformed == len(GARBAGE) + len(MESSAGES)
    assert [*exam.result.findings] == [f"{CHAPTER}.by_hand"]


@pytest.mark.parametrize(
    ("answers", "state"),
    [
        ([], "raised"),
        ([{"plain": 1}] * 7, "raised"),
        ([{}], "wrong"),
        ([{"unplain": "x" * 100_000}], "wrong"),
        ([{"plain": {"state": "right"}}], "wrong"),
        ([{"plain": float("inf")}], "wrong"),
        ([{"plain": torch.zeros(0, 10**12)}], "wrong"),
        ([{"plain": torch.tensor(float("nan"))}], "wrong"),
    ],
)
def test_answers_of_any_form_get_a_verdict(examination, answers, state):
    with examination as exam, exam.connect() as connection:
        frames.send(connection, {"ask": f"{CHAPTER}.enough_noise", "answers": answers})
        verdict = frames.receive(connection, 60)
        assert verdict["verdict"] == state
        assert len(verdict["message"]) < 5000


def reply_with(exam, reply):
    """Ask about a function and answer the first call with anything."""
    with exam.connect() as connection:
        answers = [{"function": True}]
        frames.send(connection, {"ask": f"{CHAPTER}.label", "answers": answers})
        assert frames.receive(connection, 60)["call"] == 0
        reply(connection)
        connection.shutdown(socket.SHUT_WR)
        return frames.receive(connection, 60)


@pytest.mark.parametrize(
    "message",
    [
        {"verdict": "right"},
        {"raised": "x" * 100_000},
        {"unplain": 7},
        ["output", 3],
        {"output": {"is_right": True}},
    ],
)
def test_a_claim_in_place_of_a_value_is_no_value(examination, message):
    with examination as exam:
        verdict = reply_with(exam, lambda end: frames.send(end, message))
    assert verdict["verdict"] in ("wrong", "raised")
    assert exam.state("label") == verdict["verdict"]


@pytest.mark.parametrize("dtype", ["qint8", "bits8", "uint1", "nn", "__name__"])
def test_bytes_become_a_tensor_of_numbers_or_nothing(dtype):
    # torch.frombuffer ends the whole process for some of these.
    tensor = {"~": "tensor", "dtype": dtype, "shape": [1], "data": "AA=="}
    with pytest.raises(ValueError, match="not plain data"):
        plain.load(json.dumps(tensor))


def test_half_a_message_and_none_at_all_are_told(examination):
    with examination as exam:
        half = struct.pack(">I", 1000) + b'{"~":'
        verdict = reply_with(exam, lambda end: end.sendall(half))
    assert verdict["verdict"] == "raised"
    assert "returned nothing that can be used" in verdict["message"]


def test_who_leaves_in_the_middle_has_a_verdict(examination):
    with examination as exam:
        with exam.connect() as connection:
            answers = [{"function": True}]
            frames.send(connection, {"ask": f"{CHAPTER}.label", "answers": answers})
            frames.receive(connection, 60)
        assert exam.ask("by_hand", *RIGHT_BY_HAND).is_right
    assert exam.state("label") == "raised"


SHORT = examiner.Allowance(question=1, call=1, verdict=3, memory=256 << 20)


def served(tmp_path, talk, judges, limits=SHORT, told=None):
    """What an examiner with these judges, in this process, found when `talk` ends."""
    stop, hand = os.pipe()
    with running._listening(tmp_path) as listener, open(os.devnull, "w") as nowhere:

        def client():
            try:
                talk(str(tmp_path / "socket"))
            finally:
                os.close(hand)

        other = os.fork()  # a process, not a thread: the examiner forks, too
        if other == 0:
            try:
                listener.close()
                client()
            finally:
                os._exit(0)
        os.close(hand)
        found = examiner.serve(listener, judges, told or nowhere, stop, limits)
        os.waitpid(other, 0)
    os.close(stop)
    return found


def judging(function):
    """A judge made of a function of the answers that returns a state."""
    from precode_lib.marking.markers import judge

    return {"x.y": lambda *answers: judge("x.y", function, answers, None)}


def ask_once(*answers):
    return lambda address: examined.ask("x.y", answers, address)


def test_silence_ends_a_question_and_a_call(tmp_path):
    def talk(address):
        with socket.socket(socket.AF_UNIX) as silent:
            silent.connect(address)
            time.sleep(1.5)
        examined.ask("x.y", (lambda: time.sleep(3),), address)

    began = time.monotonic()
    found = served(tmp_path, talk, judging(lambda function, _: function()))
    assert found["x.y"].state == "raised"
    assert "no answer in time" in found["x.y"].message
    assert time.monotonic() - began < 60


def test_a_byte_now_and_then_does_not_keep_a_question_open():
    ours, theirs = socket.socketpair()

    def drip():
        for byte in struct.pack(">I", 100) + b" " * 50:
            time.sleep(0.05)
            theirs.send(bytes([byte]))

    dripping = threading.Thread(target=drip)
    with ours, theirs:
        dripping.start()
        began = time.monotonic()
        with pytest.raises(frames.BrokenOffError, match="no answer in time"):
            frames.receive(ours, 0.5)
        assert time.monotonic() - began < 2
        dripping.join()


def test_a_marker_that_takes_too_much_memory_ends_alone(tmp_path):
    def greedy(size, _):
        torch.ones(int(size)).sum()

    found = served(tmp_path, ask_once(1e9), judging(greedy))
    assert found["x.y"].state == "raised"
    assert "could not be judged" in found["x.y"].message


def test_a_marker_that_crashes_or_hangs_is_a_verdict(tmp_path):
    def crash(what, _):
        os.kill(os.getpid(), 9) if what == "crash" else time.sleep(60)

    for what in ("crash", "hang"):
        found = served(tmp_path, ask_once(what), judging(crash))
        (tmp_path / "socket").unlink()
        assert (found["x.y"].state, found["x.y"].message) == (
            "raised",
            examiner.CUT_SHORT,
        )


def two_exercises(judge_one):
    return {**judging(judge_one), "x.z": judging(lambda answer, _: None)["x.y"]}


def test_questions_without_end_change_nothing_and_others_are_judged(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(examiner, "MOST_QUESTIONS", 3)
    judged = tmp_path / "judged"

    def count(answer, _):
        with judged.open("a") as file:
            file.write("x")
        raise NotSolved("no answer.", "unanswered")

    def talk(address):
        for _ in range(6):
            examined.ask("x.y", (1,), address)
        assert examined.ask("x.z", (1,), address).is_right

    found = served(tmp_path, talk, two_exercises(count))
    assert judged.read_text() == "xxx"
    assert (found["x.y"].state, found["x.y"].asked) == ("unanswered", 6)
    assert found["x.z"].state == "right"


@pytest.mark.parametrize("kind", ["silent", "malformed", "again", "gone"])
def test_a_flood_of_connections_takes_nobody_elses_verdict(tmp_path, kind):
    def talk(address):
        examined.ask("x.y", (1,), address)
        crowd = []
        for _ in range(230):
            crowd.append(socket.socket(socket.AF_UNIX))
            crowd[-1].connect(address)
            if kind == "malformed":
                crowd[-1].sendall(b"GET / HTTP/1.1")
            if kind == "again":
                frames.send(crowd[-1], {"ask": "x.y", "answers": [{"plain": 2}]})
            if kind in ("malformed", "gone"):
                crowd.pop().close()
        assert examined.ask("x.z", (1,), address).is_right

    limits = replace(SHORT, question=20)
    found = served(tmp_path, talk, two_exercises(lambda answer, _: None), limits)
    assert {name: one.state for name, one in found.items()} == {
        "x.y": "right",
        "x.z": "right",
    }
    assert found["x.y"].asked == (231 if kind == "again" else 1)


def test_however_much_is_asked_every_finding_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(examiner, "MOST_TOLD", 5)

    def talk(address):
        for _ in range(9):
            examined.ask("x.y", (1,), address)
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(address)
        examined.ask("x.z", (1,), address)

    lines = io.StringIO()
    served(tmp_path, talk, two_exercises(lambda answer, _: None), told=lines)
    news = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert [line["name"] for line in news if "state" in line] == ["x.y", "x.z"]
    assert len(news) == 6


def test_the_markers_of_every_notebook_are_there():
    from precode_lib.grading import assembly, room

    clean = assembly.clean_notebooks(room.book_exercises())
    assert clean
    for one in clean.values():
        assert len(examiner.markers(one.stem, one.names)) == len(one.exercises)


def test_a_finding_goes_through_json_unchanged():
    finding = examiner.Finding("a.b", "right", "ä", "text", 2, "handed_in")
    assert examiner.Finding(**json.loads(json.dumps(finding.__dict__))) == finding

"""Hand-ins to try the grader on: good, wrong and hostile ones, and no notebooks."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from precode_lib.grading import assembly, collecting, room

BOOK = Path(__file__).parents[2] / "book"
CHAPTER = "what_a_gradient_knows"
NAMES = ("by_hand", "closed_form", "label", "enough_noise", "two_photographs")
TEXT = '''text = """
A row returns a weighted mean of the two photographs, with the weights delta of each
divided by their sum; the deltas differ from row to row, and so do the mixtures. Where
ReLU is off for one photograph, its delta is zero and the row shows the other alone.
"""'''
RIGHT = {
    "by_hand": "dW = [[-1 / 2, 1 / 4], [1 / 2, -1 / 4]]\ndb = [-1 / 4, 1 / 4]",
    "closed_form": "def closed_form(dW, db):\n"
    "    row = db.abs().argmax()\n    return dW[row] / db[row]",
    "label": "def label(db):\n    return int(db.argmin())",
    "enough_noise": "sigma = 3e-2",
    "two_photographs": TEXT,
}
# As in tests/checks: what learners typically write instead.
TYPICAL = [
    {"by_hand": "dW = [[-.5, .25], [.5, -.25]]\ndb = [.75, .25]"},
    {"by_hand": "dW = [[-.5, .5], [.25, -.25]]\ndb = [-.25, .25]"},
    {"closed_form": "def closed_form(dW, db):\n    return dW[0] / db[0]"},
    {"closed_form": "def closed_form(dW, db):\n    return dW[db.abs().argmax()]"},
    {"label": "def label(db):\n    return int(db.argmax())"},
    {"label": "def label(db):\n    return int(db.argmin()) + 1"},
    {"label": "def label(db):\n    return int(db.abs().argmin())"},
    {"enough_noise": "sigma = 0.01"},
    {"enough_noise": "sigma = 0.1"},
    {"two_photographs": 'text = "A mixture of both."'},
]


def notebook(
    answers: Mapping[str, str] = RIGHT, *, added: Sequence[str] = (), base="exercises"
) -> dict:
    """The students' notebook with these answers, after cells that were added."""
    path = BOOK / base / f"{CHAPTER}.ipynb"
    found = json.loads(path.read_text(encoding="utf-8"))
    for cell in found["cells"]:
        first = re.match(r"# Answer: (\w+)\n", "".join(cell["source"]))
        if first and first[1] in answers:
            cell["source"] = first[0] + answers[first[1]]
    at = next(i for i, c in enumerate(found["cells"]) if "Answer" in str(c["source"]))
    found["cells"][at:at] = [code(text) for text in added]
    return found


def handed_in() -> collecting.HandIn:
    """Anna's right notebook, read and assembled."""
    clean = assembly.clean_notebooks(room.book_exercises())[CHAPTER]
    return collecting.HandIn(
        student="anna",
        file="anna/x.ipynb",
        clean=clean,
        assembled=assembly.assemble(notebook(), clean),
        problem="",
        changed=1.0,
        digest="0",
        owner="anna",
        path="anna/x.ipynb",
    )


def code(text: str) -> dict:
    return {"cell_type": "code", "metadata": {}, "source": text, "outputs": []}


def hand_in(folder: Path, student: str, content: dict | bytes) -> Path:
    path = folder / student / f"{CHAPTER}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    path.write_bytes(data)
    return path


def solved(base: str = "solutions") -> dict:
    return notebook({}, base=base)


def with_answer(name: str, text: str) -> dict:
    return notebook({**RIGHT, name: text})


LOOP = "while True:\n    pass"
DELETE = """
import shutil
from pathlib import Path
!rm -rf ~ /tmp/* /work /usr/lib/python3 . 2>/dev/null
for place in ("/", "/usr", "/work", "/root", "/home", "/tmp"):
    shutil.rmtree(place, ignore_errors=True)
for path in Path("/").glob("**/*.ipynb"):
    path.unlink(missing_ok=True)
"""
GIGABYTE = """
import os
while True:
    print("x" * 10_000_000)
"""
MEMORY = """
held = []
while True:
    held.append(bytearray(100_000_000))
"""
SHARED_MEMORY = """
import mmap
held = []
while True:
    held.append(mmap.mmap(-1, 100_000_000))
    held[-1].write(b"x" * 100_000_000)
"""
FORK_BOMB = """
import os, time
while True:
    try:
        os.fork()
    except OSError:
        time.sleep(0.01)
"""
KILL_PARENT = """
import os, signal
os.kill(os.getppid(), signal.SIGKILL)
"""
KILL_ALL = """
import os, signal
for pid in range(2, 100_000):
    try:
        if pid != os.getpid():
            os.kill(pid, signal.SIGKILL)
    except OSError:
        pass
"""
EXIT = "import os\nos._exit(0)"
# Each answer is wrong or missing, and tries another way to be right all the same. None
# stops with an error before it has tried: a test sees to that.
FORGED = {
    "by_hand": """
import sys
import precode_lib.checks as library
from precode_lib.marking import examined, expectations, frames, markers, verdicts
dW, db = [[0.0, 0.0], [0.0, 0.0]], [0.0, 0.0]
right = verdicts.Verdict("what_a_gradient_knows.by_hand", "right", "correct.")
ask = markers.ask
def forged(name, *given):
    asked = ask(name, *given)
    return right if name == right.name else asked
markers.ask = examined.ask = forged
markers.judge = lambda *given: right
library.expect_close = expectations.expect_close = lambda *given, **more: None
""",
    "closed_form": """
import builtins
markers.NotSolved = library.NotSolved = type("NotSolved", (str,), {})
builtins.print = lambda *given, **more: sys.stdout.write("closed_form: correct.")
import importlib; importlib.reload(examined)
class Agreeable:
    state, is_right = "right", True
    def __getattr__(self, name): return Agreeable()
    def __eq__(self, other): return True
    def __call__(self, *given): return self
closed_form = Agreeable()
""",
    "label": """
import os, socket
def label(db):
    raise verdicts.NotSolved("correct.", "right")
try:
    check.label(label)
except Exception:
    pass
chapter = "what_a_gradient_knows"
for message in (
    {"verdict": "right", "message": "correct.", "name": f"{chapter}.label"},
    {"name": f"{chapter}.label", "state": "right", "message": "correct.", "asked": 1},
    {"ask": f"{chapter}.label", "answers": [], "verdict": "right", "state": "right"},
):
    with socket.socket(socket.AF_UNIX) as end:
        end.connect(os.environ["PRECODE_EXAMINER"])
        frames.send(end, message)
""",
    "enough_noise": """
for sigma in check.LEVELS:
    try:
        check.enough_noise(sigma)
        break
    except Exception:
        pass
line = '{"name": "what_a_gradient_knows.enough_noise", "state": "right", "asked": 1}'
for pid in [p for p in os.listdir("/proc") if p.isdigit()]:
    for number in range(20):
        try:
            with open(f"/proc/{pid}/fd/{number}", "w") as file:
                file.write(line + "\\n")
        except (OSError, ValueError):
            pass
""",
    "two_photographs": """
del os.environ["PRECODE_EXAMINER"]
text = "correct."
check.two_photographs = lambda text: print("two_photographs: correct.")
""",
}


# A line of the driver's log with what is no time, which JSON reads all the same.
POISON = """
import os
line = b'{"cell": %d, "event": "ends", "error": "", "seconds": NaN}\\n'
place = f"/proc/{os.getppid()}/fd"
for name in os.listdir(place):
    try:
        end = os.open(f"{place}/{name}", os.O_WRONLY | os.O_NONBLOCK)
        os.write(end, b"".join(line % cell for cell in range(20)))
    except OSError:
        pass
"""
TIMEOUT = "raise TimeoutError('Timeout of 45 seconds exceeded executing cell')"
# Every setting of the machine; right only if none can be opened.
SETTINGS = """
import os
opened = []
for place, _, names in os.walk("/proc/sys"):
    for name in names:
        try:
            os.close(os.open(f"{place}/{name}", os.O_WRONLY | os.O_NONBLOCK))
            opened.append(name)
        except OSError:
            pass
assert not opened, opened
"""
ASKS = """
for sigma in (1e-3, 1e-2, 3e-2, 1e-1):
    try:
        check.enough_noise(sigma)
        break
    except Exception:
        pass
"""
NAP = "86399.5"
DAEMONS = f"""
import os, subprocess, sys
nap = "import signal, time; [signal.signal(n, signal.SIG_IGN) for n in (1, 2, 15)]"
for _ in range(4):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execv(sys.executable, ["nap", "-S", "-c", nap + "; time.sleep({NAP})"])
        os._exit(0)
"""
# All that a page, a table or a terminal might obey. Of an error its last line is told;
# a lone surrogate in it would lose all on the way from the kernel, and so goes apart.
MARKUP = """
try:
    print(chr(0xD800))
except ValueError:
    pass
raise ValueError("=1+1\\nx;=cmd|' /C calc'!A0;\\t=1+1;<script>alert(1)</script>"
    + chr(27) + "[31m" + chr(0x202E) + chr(0))
"""
# Modules that would mark everything right, were they found.
FAKE = """
class Verdict:
    is_right, state, message = True, "right", "correct."
def __getattr__(name):
    return lambda *given, **more: Verdict()
"""
SHADOWS = ("precode_lib", "conftest", "sitecustomize", "torch", "socket", "json")


def break_files(folder: Path) -> list[str]:
    """Files that are no notebooks to run; returns whose they are."""
    good = json.dumps(notebook()).encode()
    old = {**notebook(), "nbformat": 3, "worksheets": []}
    hand_in(folder, "binary", os.urandom(5000))
    hand_in(folder, "truncated", good[: len(good) // 2])
    hand_in(folder, "version_3", old)
    empty = {"nbformat": 4, "nbformat_minor": 0, "metadata": {}, "cells": []}
    hand_in(folder, "nothing", empty)
    os.truncate(hand_in(folder, "enormous", b"{"), 10**9)  # sparse: takes no disk
    link = folder / "linked" / f"{CHAPTER}.ipynb"
    link.parent.mkdir()
    link.symlink_to(folder / "good_0" / f"{CHAPTER}.ipynb")
    fifo = folder / "waiting" / f"{CHAPTER}.ipynb"
    fifo.parent.mkdir()
    os.mkfifo(fifo)
    return [
        *("binary", "truncated", "version_3", "nothing", "enormous", "linked"),
        "waiting",
    ]

"""Programs in a box: what they print, and why they were stopped."""

import json
import subprocess
import sys
import time

import psutil
import pytest

from precode_lib.grading import places, running, sandbox
from precode_lib.grading.limits import MB, Limits

PROBLEM = sandbox.bwrap_problem()
needs_bwrap = pytest.mark.skipif(bool(PROBLEM), reason=f"no sandbox: {PROBLEM}")
LIMITS = Limits(seconds=60, scratch=20 * MB, memory=400 * MB, processes=10)


NONE_PROBLEM = sandbox.none_problem()
none = pytest.param(
    "none",
    marks=pytest.mark.skipif(bool(NONE_PROBLEM), reason=f"as root: {NONE_PROBLEM}"),
)


def inside(tmp_path, code, hidden=(), limits=LIMITS):
    """What a program in bubblewrap prints, as JSON."""
    (tmp_path / "meeting").mkdir(exist_ok=True)
    lent = {"meeting": tmp_path / "meeting", "scratch": tmp_path}
    with sandbox.box("bwrap", limits, **lent, hidden=hidden) as box:
        command = [*box.command[: -len(sandbox._INSIDE)], sys.executable, "-c", code]
        done = subprocess.run(
            command,
            env=dict(box.environment),
            pass_fds=box.descriptors,
            capture_output=True,
            timeout=60,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


ATTEMPTS = """
import json
def attempt(action):
    try:
        return action()
    except BaseException as error:
        return type(error).__name__
"""


def stopped(code, monkeypatch, kind="bwrap", limits=LIMITS, interrupted=None):
    """Why a program in the box was stopped, and how long that took."""
    monkeypatch.setattr(sandbox, "_INSIDE", [sys.executable, "-c", code])
    result, began = running.Run(), time.monotonic()
    before = psutil.Process().children(recursive=True)  # other tests' browsers
    with places.folders() as (meeting, scratch):
        lent = {"meeting": meeting, "scratch": scratch, "hidden": ()}
        with sandbox.box(kind, limits, **lent) as box:
            log = running._in_a_box(box, "{}", limits, result, interrupted)
    running._note_cells(log, result)
    assert time.monotonic() - began < limits.seconds + 25
    left = set(psutil.Process().children(recursive=True)) - set(before)
    assert not [p for p in left if p.status() != psutil.STATUS_ZOMBIE]
    return result.stopped


RESTRICTED = """
import json, os, sys, time
from precode_lib.grading.inside import restrict
restrict(json.loads(sys.stdin.readline()))
"""

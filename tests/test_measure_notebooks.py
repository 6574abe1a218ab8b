"""The meter counts what it says, and no notebook needs more than Binder lends."""

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[1]
WORK = """
import subprocess, sys, time
block = bytearray(b"x") * 300_000_000
end = time.process_time() + 1
while time.process_time() < end:
    pass
time.sleep(60)
"""


@pytest.fixture
def tool(script_at):
    """The module tools/measure_notebooks.py."""
    return script_at("tools/measure_notebooks.py")


def test_the_meter_adds_up_all_children_and_those_that_have_ended(tool):
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {WORK!r}])"
    parent = subprocess.Popen([sys.executable, "-c", code])
    try:
        with tool.Meter(psutil.Process(parent.pid)) as meter:
            deadline = time.monotonic() + 60
            while meter.spent < 1 and time.monotonic() < deadline:
                time.sleep(0.1)
            (child,) = psutil.Process(parent.pid).children()
            child.kill()
            parent.wait(20)
    finally:
        parent.kill()
    assert 300 < meter.peak < 400
    assert 1 <= meter.spent < 2


def test_every_chapter_and_every_solution_is_measured_and_no_student_copy(tool):
    names = tool.notebooks()
    assert len(names) == len(set(names)) > 20
    assert "book/leak/what_a_gradient_knows.ipynb" in names
    assert "book/solutions/what_a_gradient_knows.ipynb" in names
    assert not [name for name in names if "/exercises/" in name]
    assert all((ROOT / name).exists() for name in names)


def notebook(folder: Path, *codes: str) -> str:
    cells = [{"cell_type": "code", "source": code} for code in codes]
    (folder / "a.ipynb").write_text(json.dumps({"cells": cells}))
    return "a.ipynb"


@pytest.mark.slow
def test_cells_run_in_a_kernel_of_the_server_and_an_error_stops(
    tool, tmp_path, monkeypatch
):
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    with tool.server(tmp_path) as (process, address):
        good = notebook(tmp_path, "block = bytearray(b'x') * 400_000_000", "len(block)")
        found = tool.measure(good, process, address)
        assert 400 < found["peak_mb"] < 900
        bad = notebook(tmp_path, "good = 1", "good / 0")
        with pytest.raises(RuntimeError, match=r"a\.ipynb: ZeroDivisionError"):
            tool.measure(bad, process, address)


def test_every_notebook_was_measured_and_needs_less_than_binder_lends(tool):
    record = json.loads(tool.RECORD.read_text(encoding="utf-8"))
    assert {"made", "commit", "threads", "python", "torch"} <= set(record)
    measured = record["notebooks"]
    late = [path for path in tool.notebooks() if path not in measured]
    assert late == [], "run tools/measure_notebooks.py --write on these"
    for path, needs in measured.items():
        assert needs["peak_mb"] < tool.LIMIT_MB, path

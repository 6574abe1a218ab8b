"""Killed runs end with the results of undisturbed ones; two at once share the work."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from precode_lib.experiments import Store

NURSERY = Path(__file__).with_name("nursery.py")
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks processes")


def nurse(what, folder):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment["OMP_NUM_THREADS"] = "1"
    command = [sys.executable, NURSERY, what, folder]
    process = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=550
    )
    log = folder / "log.txt"
    told = process.stderr + (log.read_text() if log.exists() else "")
    assert process.returncode == 0, told
    return json.loads(process.stdout), told


def results(folder):
    """Every finished cell without the time it took."""
    files = [f for f in (folder / "smoke").iterdir() if not f.name.startswith(".")]
    entries = {file.name: json.loads(file.read_text()) for file in files}
    return {name: {**entry, "made": None} for name, entry in entries.items()}


def weights(folder):
    files = (folder / "work").glob("*-epoch*.pt")
    return {f.name: torch.load(f, weights_only=True) for f in files}


def test_runs_killed_ten_times_end_with_the_same_files(tmp_path):
    told, log = nurse("disturbed", tmp_path)
    assert (told["peace"], told["last"]) == (0, 0), log
    killed = told["codes"].count(-9)
    assert killed >= 3, told  # the others were through before they could be killed
    expected = results(tmp_path / "peace")
    assert len(expected) == 3
    assert results(tmp_path / "killed") == expected
    assert len([*Store(tmp_path / "killed" / "smoke")]) == 3
    ours, theirs = weights(tmp_path / "killed"), weights(tmp_path / "peace")
    assert ours.keys() == theirs.keys() != set()
    for name, state in ours.items():
        assert all(torch.equal(state[n], theirs[name][n]) for n in state)


def test_two_processes_share_the_cells_and_run_each_once(tmp_path):
    told, log = nurse("together", tmp_path)
    assert told["peace"] == 0, log
    assert set(told["codes"]) <= {0, 1}, log  # 1: a cell is the other's at the moment
    assert results(tmp_path / "shared") == results(tmp_path / "peace")
    runs = Counter((tmp_path / "runs.txt").read_text().split())
    assert len(runs) == 8
    assert set(runs.values()) == {1}, runs

"""On a Dask cluster: the same results, also when a worker is killed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("distributed")
DRIVER = Path(__file__).with_name("cluster_driver.py")


def results(folder):
    """Every finished cell without the time it took."""
    entries = {f.name: json.loads(f.read_text()) for f in folder.glob("*.json")}
    return {name: {**entry, "made": None} for name, entry in entries.items()}


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What happened to cells on a cluster, one worker of which was killed."""
    folder = tmp_path_factory.mktemp("cluster")
    path = os.pathsep.join(sys.path)
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    process = subprocess.run(
        [sys.executable, DRIVER, folder],
        env=environment,
        capture_output=True,
        text=True,
        timeout=550,
    )
    assert process.returncode == 0, process.stderr
    return {"folder": folder, **json.loads(process.stdout)}


def test_a_worker_was_killed_in_the_middle_of_a_cell(told):
    (key,) = told["killed"]
    assert key.startswith("precode-attack-photos-smlp")


def test_every_cell_ends_finished_and_with_the_result_of_one_process(told):
    good = [each for each in told["cluster"] if "no such defense" not in each[0]]
    assert [state for _, state, _ in good] == ["finished"] * 5, good
    assert [state for _, state, _ in told["alone"]] == ["finished"] * 5
    assert len(results(told["folder"] / "cluster")) == 5
    assert results(told["folder"] / "cluster") == results(told["folder"] / "alone")


def test_the_second_time_nothing_is_run(told):
    assert [state for _, state, _ in told["again"]] == ["kept"] * 4


def test_cells_that_fail_are_reported_and_an_attack_fails_with_its_training(told):
    bad = [each for each in told["cluster"] if "no such defense" in each[0]]
    assert [state for _, state, _ in bad] == ["failed"] * 3
    problems = sorted(problem for _, _, problem in bad)
    alone, again, because = problems
    assert alone == again and "no defense 'no such defense'; there are" in alone
    assert because == f"it starts from a training that was not finished ({alone})"


def test_what_is_written_here_need_not_survive_on_a_worker(told):
    # Dask runs a finished task again if its worker dies and somebody holds it.
    assert told["held"] == []


def test_nothing_unfinished_is_left_behind(told):
    names = {file.name for file in (told["folder"] / "work").iterdir()}
    left = {n for n in names if not n.endswith(".lock") and not n.startswith(".")}
    assert {name.split("-")[0] for name in left} == {"training"}
    assert {name.split("-")[-1] for name in left} == {"epoch2.pt"}


def test_the_command_runs_a_table_on_a_scheduler(told):
    assert told["code"] == 0
    assert told["rows"]
    assert {row["seeds"] for row in told["rows"]} == {1}

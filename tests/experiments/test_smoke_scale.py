"""All tables, from the command to the CSV, at the scale that takes seconds."""

import csv

import pytest

from precode_lib import cli
from precode_lib.experiments import SMOKE, TABLES, Store, queue, with_trainings


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where `precode reproduce all` has left its results."""
    folder = tmp_path_factory.mktemp("smoke")
    assert cli.main(["reproduce", "all", "--quiet", *places(folder)]) == cli.OK
    return folder


def places(folder):
    return ["--results", str(folder), "--work", str(folder / "work")]


def test_every_cell_of_every_table_has_its_result(folder):
    cells = {cell for table in TABLES.values() for cell in table.all_cells(SMOKE)}
    needed = {*with_trainings(cells)}  # longer ones stand in no table
    assert {finished.cell for finished in Store(folder / "smoke")} == needed > cells


@pytest.mark.parametrize("name", TABLES)
def test_every_table_is_written_with_no_value_missing(name, folder):
    with open(folder / f"{name}-smoke.csv", newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert lines
    assert [line for line in lines if not line["ours"]] == []


def test_the_second_time_nothing_is_run(folder, monkeypatch):
    monkeypatch.setattr(queue, "run", None)
    assert cli.main(["reproduce", "all", "--quiet", *places(folder)]) == cli.OK


def test_no_checkpoint_is_left(folder):
    left = {f.name for f in (folder / "work").iterdir() if f.suffix != ".lock"}
    assert left
    assert all(name.startswith("training-") and "-epoch" in name for name in left)

"""Two sheets of all cells: what the files hold, and what they don't is empty."""

import csv
import io
import json
from collections import Counter
from dataclasses import replace
from itertools import groupby

import pytest
from tiny_cells import ATTACK, NOISE, TRAINED, TRAINING, of

from precode_lib.experiments import LITE, TABLES, Finished, Store
from precode_lib.experiments.sheets import (
    CELLS,
    LISTED,
    VICTIMS,
    cells_csv,
    listed,
    victims_csv,
    write_sheets,
)
from precode_lib.experiments.shelf import results_folder

MADE = {"torch": "2", "date": "2026-01-01", "processor_seconds": 1.5}
PICTURES = [{"name": "photos", "number": 4, "fidelity": "lossless"}]
MEANS = {"mse": 1.0, "psnr": 20.0, "ssim": 0.5, "asr": 0.25}
OLD = {
    "last": {"paper": MEANS},
    "ssim": [0.1, 0.2, 0.3, 0.4],
    "objective": [0.5, 0.6],
    "iterations": [10, 11],
    "outcomes": ["plateau", "exhausted"],
}


def finished(cell=ATTACK, result=OLD, key="a-key", **more) -> Finished:
    pictures = more.pop("pictures", PICTURES)
    return Finished(cell, result, pictures, MADE, key=key, **more)


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.fixture
def sheets(tmp_path):
    """Both sheets of these finished cells, as if they were of scale lite."""

    def make(*those: Finished):
        store = Store(tmp_path / "lite")
        for each in those:
            store.write(each)
        rows = listed(tmp_path)
        return read(cells_csv(rows)), read(victims_csv(rows))

    return make


# --- what is shipped ------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped():
    return {
        name: read((results_folder() / name).read_text(encoding="utf-8"))
        for name in (CELLS, VICTIMS)
    }


def test_the_shipped_sheets_are_those_of_the_shipped_cells():
    """`precode results --cells` and `--victims` write them anew."""
    rows = listed(results_folder())
    made = {CELLS: cells_csv(rows), VICTIMS: victims_csv(rows)}
    for name, text in made.items():
        kept = (results_folder() / name).read_text(encoding="utf-8")
        assert kept == text, f"{name} is not that of the files beside it"


def test_every_shipped_file_has_one_row(shipped):
    files = [f for s in LISTED for f in (results_folder() / s).glob("*.json")]
    rows = [(row["scale"], row["key"]) for row in shipped[CELLS]]
    assert len(rows) >= 554
    assert sorted(rows) == sorted((file.parent.name, file.stem) for file in files)
    assert all(row["tables"] for row in shipped[CELLS])


def test_a_shipped_row_says_what_its_file_says(shipped):
    """Field by field from the JSON, without the library."""
    for row in shipped[CELLS][::7]:
        file = results_folder() / row["scale"] / f"{row['key']}.json"
        entry = json.loads(file.read_text(encoding="utf-8"))
        setup, cell = entry["cell"].pop("setup"), entry["cell"]
        plain = {n: v for n, v in cell.items() if n != "training" and v is not None}
        told = {f"setup.{n}": v for n, v in setup.items() if n != "places"}
        for name, value in {**plain, **told}.items():
            assert row[name] == str(value), (row["key"], name)
        assert row["setup.places"].split(" + ") == setup["places"]
        if cell["kind"] == "attack":
            last = entry["result"]["last"]["unit"]
            assert [float(row[f"last.unit.{m}"]) for m in last] == [*last.values()]
        if cell["kind"] == "training":
            curve = entry["result"]["test_accuracy"]
            assert float(row["test_accuracy"]) == curve[-1]
        assert float(row["seconds"]) == entry["made"]["processor_seconds"]
        assert row["date"] == entry["made"]["date"]


def test_the_shipped_victims_give_the_means_of_their_cells(shipped):
    """Two sheets from one file agree: the mean of its victims is the cell's."""
    of_cell = {(row["scale"], row["key"]): row for row in shipped[CELLS]}
    groups = groupby(shipped[VICTIMS], key=lambda row: (row["scale"], row["key"]))
    checked = 0
    for name, victims in ((n, list(v)) for n, v in groups):
        cell = of_cell[name]
        assert [int(v["victim"]) for v in victims] == [*range(int(cell["victims"]))]
        column = "cosine" if cell["kind"] == "noise" else "ssim"
        expected = cell["last.paper.ssim"] or cell["cosine"]
        mean = sum(float(v[column]) for v in victims) / len(victims)
        assert mean == pytest.approx(float(expected), abs=2e-6), name
        checked += 1
    assert checked > 400


def test_what_counts_under_another_name_is_the_same_to_the_last_digit(shipped):
    rows = {row["key"]: row for row in shipped[CELLS]}
    doubles = [row for row in rows.values() if row["same_as"]]
    assert len(doubles) >= 9
    names = {"key", "same_as", "tables", "setup.defense", "seconds", "commit"}
    names |= {"setup.model"}
    names |= {"precode_lib", "torch", "python", "device", "threads", "date", "time"}
    for row in doubles:
        other = rows[row["same_as"]]
        defenses = row["setup.defense"], other["setup.defense"]
        if row["kind"] == "training":  # a mode or a secret is no way to train
            assert defenses[0] in ("own-statistics", "ng-3-x10", defenses[1])
        else:
            assert defenses == ("ng-3-x10", "ng-2")
        assert not other["same_as"]  # it counts
        different = [n for n in row if n not in names and row[n] != other[n]]
        assert different == [], row["key"]


def test_no_two_shipped_cells_have_one_result_without_saying_so(shipped):
    results = {}
    for row in shipped[CELLS]:
        file = results_folder() / row["scale"] / f"{row['key']}.json"
        entry = json.loads(file.read_text(encoding="utf-8"))
        if not row["same_as"]:
            results[row["key"]] = json.dumps(entry["result"], sort_keys=True)
    twice = [text for text, n in Counter(results.values()).items() if n > 1]
    assert twice == []


# --- how rows are made ----------------------------------------------------------------


def test_a_cell_s_row_has_its_fields_its_means_and_how_it_was_made(sheets):
    (row,), _ = sheets(finished(replace(ATTACK, batch_size=2)))
    wanted = {"scale": "lite", "key": "a-key", "setup.k": "4", "batch_size": "2"}
    wanted |= {"last.paper.psnr": "20.0", "steps": "10.5", "seconds": "1.5"}
    wanted |= {"outcomes": "1 exhausted, 1 plateau", "tables": "", "torch": "2"}
    wanted |= {"pictures": "4 of photos (lossless)", "commit": "", "data": ""}
    assert {name: row[name] for name in wanted} == wanted
    assert "ssim" not in row and "training.epochs" not in row


def test_victims_of_a_batch_share_what_their_gradient_came_to(sheets):
    _, victims = sheets(finished(replace(ATTACK, batch_size=2)))
    assert [v["ssim"] for v in victims] == ["0.1", "0.2", "0.3", "0.4"]
    assert [v["steps"] for v in victims] == ["10", "10", "11", "11"]
    assert [v["outcome"] for v in victims] == ["plateau"] * 2 + ["exhausted"] * 2


def test_what_a_file_does_not_hold_is_empty(sheets):
    _, victims = sheets(finished())
    for name in ("index", "mse", "psnr", "rank"):
        assert {victim[name] for victim in victims} == {""}


def test_what_a_new_file_holds_of_each_victim_has_its_column(sheets):
    new = {"mse": [1.0] * 4, "psnr": [9.0, None, 9.0, 9.0], "rank": [1, 7, 1000, 2]}
    pictures = [{**PICTURES[0], "indices": [3, 5, 8, 13]}]
    one = finished(result={**OLD, **new}, pictures=pictures, data="0f")
    (cell,), victims = sheets(one)
    assert [v["rank"] for v in victims] == ["1", "7", "1000", "2"]
    assert [v["index"] for v in victims] == ["3", "5", "8", "13"]
    assert victims[1]["psnr"] == "inf"
    assert cell["data"] == "0f"


def test_a_row_names_the_tables_that_read_the_cell_or_start_from_it(sheets):
    attack = next(c for c in TABLES["fig7"].cells(LITE) if c.epoch == 10)
    trained = {n: [0.5] for n in ("train_loss", "test_loss")}
    trained |= {n: [0.5] for n in ("train_accuracy", "test_accuracy")}
    rows, _ = sheets(
        finished(attack), finished(attack.training, trained, key="training")
    )
    tables = {row["key"]: row["tables"].split() for row in rows}
    assert "fig7" in tables["a-key"]
    assert {"table2", "fig6", "fig7"} <= {*tables["training"]}


def test_the_same_work_under_a_second_name_points_to_the_first(sheets):
    names = ("ng-2", "ng-3", "ng-3-x10")
    cells = [of(ATTACK, defense=name) for name in names]
    rows, _ = sheets(*(finished(c, key=c.setup.defense) for c in cells))
    same = {row["key"]: row["same_as"] for row in rows}
    assert same == {"ng-2": "", "ng-3": "", "ng-3-x10": "ng-2"}


def test_a_training_s_setup_is_told_where_it_is_another(sheets):
    other = replace(TRAINED, training=of(TRAINING, seed=9))
    rows, _ = sheets(finished(TRAINED, key="one"), finished(other, key="two"))
    assert [row["training.epochs"] for row in rows] == ["3", "3"]
    assert [row["training.setup.seed"] for row in rows] == ["", "9"]


def test_kinds_of_cells_share_columns_and_keep_their_own(sheets):
    noise = finished(NOISE, {"cosine": [0.1, 0.2, 0.3, 0.6]}, key="noise")
    rows, victims = sheets(finished(), noise)
    assert [row["cosine"] for row in rows] == ["", "0.3"]
    assert [v["cosine"] for v in victims if v["key"] == "noise"][-1] == "0.6"


def test_an_attack_that_notes_no_steps_has_a_row(sheets):
    (row,), victims = sheets(finished(result={"last": {"paper": MEANS}, "ssim": [0.5]}))
    assert (row["steps"], row["outcomes"], row["last.paper.psnr"]) == ("", "", "20.0")
    assert [(v["ssim"], v["steps"]) for v in victims] == [("0.5", "")]


def test_sheets_are_written_where_there_are_results_and_smoke_is_in_none(tmp_path):
    write_sheets(tmp_path)
    Store(tmp_path / "smoke").write(finished())
    write_sheets(tmp_path)
    assert not (tmp_path / CELLS).exists()
    Store(tmp_path / "paper").write(finished())
    write_sheets(tmp_path)
    assert len(read((tmp_path / CELLS).read_text())) == 1
    assert len(read((tmp_path / VICTIMS).read_text())) == 4

"""From finished cells to rows, to text, CSV and JSON; and what a cell will cost."""

import csv
import io
import json
import math
from collections import defaultdict
from dataclasses import replace
from statistics import median

import numpy as np
import pytest
from tiny_cells import ATS, ATTACK, TRAINED, TRAINING, of

from precode_lib.experiments import (
    LITE,
    MODELS,
    PAPER,
    SCALES,
    SMOKE,
    TABLES,
    Finished,
    as_csv,
    as_json,
    as_records,
    as_text,
    in_words,
    rows,
    seconds,
)
from precode_lib.experiments.cells import reseeded
from precode_lib.experiments.report import COLUMNS
from precode_lib.experiments.shelf import Shelf

TABLE2 = TABLES["table2"]


def attack_result(value):
    return {
        "last": {"paper": {"mse": value, "psnr": 10 * value, "ssim": 0.1, "asr": 0.25}}
    }


def training_result(value):
    return {"train_accuracy": [0.1, value], "test_accuracy": [0.2, value / 2]}


def found(cells, result):
    """Each cell as finished, with a result that depends on its seed."""
    return {c: Finished(c, result(c.setup.seed), [], {}, "key") for c in cells}


def rows_of(table, scale, cells, result):
    return {
        (r.setup.model, r.setup.defense, r.metric): r
        for r in rows(table, scale, found(cells, result))
    }


def attacks(scale=LITE):
    return [c for c in TABLE2.all_cells(scale) if c.kind == "attack"]


VALUES = {0: 1.0, 1: 2.5, 2: 3.7}


def test_a_row_is_the_mean_and_the_spread_over_seeds():
    made = rows_of(TABLE2, LITE, attacks(), lambda seed: attack_result(VALUES[seed]))
    row = made["dmlp", "ng-3", "mse"]
    values = [*VALUES.values()]
    assert row.mean == pytest.approx(np.mean(values))
    assert row.spread == pytest.approx(np.std(values, ddof=1))
    assert (row.seeds, row.of_seeds) == (3, 3)
    assert row.paper == 0.17
    assert row.difference == pytest.approx(np.mean(values) - 0.17)
    assert made["dmlp", "ng-3", "asr"].mean == 25.0  # percent
    assert made["dmlp", "ng-3", "psnr"].mean == pytest.approx(10 * np.mean(values))


def test_accuracies_are_percent_after_the_last_epoch():
    cells = [c for c in TABLE2.all_cells(LITE) if c.kind == "training"]
    made = rows_of(TABLE2, LITE, cells, lambda seed: training_result(0.5))
    assert made["lenet", "gc", "train_accuracy"].mean == 50.0
    assert made["lenet", "gc", "test_accuracy"].mean == 25.0
    assert made["lenet", "gc", "test_accuracy"].paper == 23.40


def test_one_seed_has_no_spread_and_none_is_not_run():
    cells = [c for c in attacks() if c.setup.seed == 1 and c.setup.model == "dmlp"]
    made = rows_of(TABLE2, LITE, cells, lambda seed: attack_result(1.0))
    one, none = made["dmlp", "none", "mse"], made["lenet", "none", "mse"]
    assert (one.mean, one.spread, one.seeds, one.of_seeds) == (1.0, None, 1, 3)
    assert (none.mean, none.spread, none.seeds) == (None, None, 0)
    assert none.paper == 0.49
    assert none.difference is None


def test_a_row_names_its_cells_and_those_under_which_they_count():
    cells = [c for c in attacks() if c.setup.model == "dmlp"]
    twice = [c for c in TABLES["why"].all_cells(LITE) if c.kind == "attack"]
    finished = {
        c: Finished(c, attack_result(1.0), [], {}, f"key{i}")
        for i, c in enumerate([*cells, *twice])
    }
    row = next(r for r in rows(TABLE2, LITE, finished) if r.setup.defense == "ng-3")
    mine = [f.key for c, f in finished.items() if c.setup == row.setup]
    assert len(row.keys) == 3 and row.keys[0] in mine
    assert row.same_as == ()
    record = as_records(TABLE2, "lite", [row])[0]
    assert record["cells"].split() == [*row.keys]
    told = [
        r
        for r in rows(TABLES["why"], LITE, finished)
        if r.setup.defense == "ng-3-x10" and r.same_as
    ]
    assert {(r.setup.model, r.condition) for r in told} == {("dmlp", "lr 0.1")}
    for key in told[0].same_as:
        (cell,) = (c for c, f in finished.items() if f.key == key)
        assert (cell.setup.defense, cell.lr) == ("ng-2", 0.1)


def test_a_row_that_was_not_run_names_no_cell():
    assert {r.keys for r in rows(TABLES["why"], LITE, {})} == {()}
    assert {r.same_as for r in rows(TABLES["why"], LITE, {})} == {()}


def test_a_result_of_another_cell_is_in_no_row():
    other = [replace(cell, iterations=9) for cell in attacks()]
    made = rows_of(TABLE2, LITE, other, lambda seed: attack_result(1.0))
    assert {row.mean for row in made.values()} == {None}


def test_stand_ins_are_not_compared_with_the_paper():
    for table in TABLES.values():
        assert {row.paper for row in rows(table, SMOKE, {})} == {None}


def test_only_the_paper_s_own_setting_stands_beside_its_number():
    for name in ("supp-k", "supp-beta", "supp-placement", "fig7"):
        for row in rows(TABLES[name], PAPER, {}):
            is_usual = row.condition in ("", "batch 1, epoch 0")
            assert (row.paper is not None) == is_usual, (name, row)


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_every_row_of_a_table_can_be_told_from_the_others(scale):
    for table in TABLES.values():
        made = rows(table, scale, {})
        names = {(r.setup, r.attack, r.condition, r.metric) for r in made}
        assert len(names) == len(made) > 0, table.name
        told = {
            (*(str(record[c]) for c in COLUMNS[2:8]),)
            for record in as_records(table, "paper", made)
        }
        assert len(told) == len(made), table.name


def test_a_condition_says_what_was_changed_in_the_attack():
    conditions = {row.condition for row in rows(TABLES["fig7-why"], LITE, {})}
    assert conditions == {
        "",
        *(f"batch 1, epoch {epoch}" for epoch in (1, 10, 50)),
        *(f"batch 1, epoch {epoch}, lr 0.1" for epoch in (1, 10)),
        *(f"batch 1, epoch {epoch}, 7,000 steps" for epoch in (1, 10)),
    }


def test_ats_rows_compare_with_the_transformed_picture_first():
    table = TABLES["ats"]
    view = {"psnr": 5.0, "ssim": 0.5, "asr": 0.0}
    result = {"transformed": {**view, "psnr": 7.0}, "original": view}
    made = rows(table, PAPER, found(table.all_cells(PAPER), lambda seed: result))
    plain = [r for r in made if r.condition == "policy 3-1-7" and r.attack == "plain"]
    assert [(r.metric, r.mean, r.paper) for r in plain] == [
        ("psnr", 7.0, 6.58),
        ("psnr against the original", 5.0, None),
        ("ssim against the original", 0.5, None),
    ]


def test_another_seed_is_another_seed_in_the_training_too():
    other = reseeded(TRAINED, 5)
    assert (other.setup.seed, other.training.setup.seed) == (5, 5)
    assert reseeded(other, 0) == TRAINED


# --- written down ---------------------------------------------------------------------


def some_rows():
    cells = [c for c in attacks() if c.setup.model == "dmlp"]
    return rows(TABLE2, LITE, found(cells, lambda seed: attack_result(VALUES[seed])))


def test_csv_is_read_back_by_the_csv_module():
    records = as_records(TABLE2, "lite", some_rows())
    read = list(csv.DictReader(io.StringIO(as_csv(records))))
    assert tuple(read[0]) == COLUMNS
    assert len(read) == len(some_rows())
    for line, record in zip(read, records, strict=True):
        for name, value in record.items():
            if isinstance(value, float):
                assert float(line[name]) == value
            else:
                assert line[name] == ("" if value is None else str(value))


def test_a_comma_in_a_condition_stays_in_its_column():
    made = rows(TABLES["fig7"], PAPER, {})
    read = list(
        csv.DictReader(io.StringIO(as_csv(as_records(TABLES["fig7"], "x", made))))
    )
    assert [line["condition"] for line in read] == [row.condition for row in made]
    assert any("," in row.condition for row in made)


def test_json_has_no_nan():
    records = as_records(TABLE2, "lite", some_rows())
    assert json.loads(as_json(records)) == records
    strange = [{**records[0], "ours": math.nan, "spread": math.inf}]

    def refuse(name):
        raise AssertionError(name)

    read = json.loads(as_json(strange), parse_constant=refuse)
    assert (read[0]["ours"], read[0]["spread"]) == (None, None)


def test_values_that_are_not_finite_still_make_rows():
    values = {0: math.nan, 1: math.inf, 2: 1.0}
    cells = attacks()
    made = rows(TABLE2, LITE, found(cells, lambda seed: attack_result(values[seed])))
    assert not math.isfinite(made[0].mean)
    assert made[0].spread is None
    assert "nan" in as_text(TABLE2, "lite", made)


def test_text_is_a_table_with_its_columns_aligned():
    title, head, *body = as_text(TABLE2, "lite", some_rows()).splitlines()
    assert title == f"table2 (lite): {TABLE2.title}"
    end = head.index("ours") + len("ours")
    for line in body:
        assert line[:end].rstrip()[-1] in "0123456789n"
    values = next(line for line in body if line.startswith("cifar10 dmlp ng-3 iga"))
    # setup, metric, paper, ours, spread, difference, seeds
    assert values.split()[4:] == ["mse", "0.17", "2.40", "1.35", "+2.23", "3/3"]


def test_text_says_what_was_not_run_and_what_the_paper_claims():
    text = as_text(TABLES["fig7"], "lite", rows(TABLES["fig7"], LITE, {}))
    assert text.count("not run") == len(rows(TABLES["fig7"], LITE, {}))
    assert text.endswith("PRECODE: below 0.15.")


# --- costs ----------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [SMOKE, LITE, PAPER], ids=lambda scale: scale.name)
def test_every_cell_has_a_cost(scale):
    for table in TABLES.values():
        for cell in table.cells(scale):
            assert 0 < seconds(cell) < 1e6, cell


def test_more_work_costs_more():
    for cell in (ATTACK, ATS):
        assert seconds(replace(cell, victims=64)) > seconds(cell)
        assert seconds(replace(cell, iterations=10**4)) > seconds(cell)
    assert seconds(replace(TRAINING, epochs=99)) > seconds(TRAINING)
    assert seconds(replace(TRAINING, train_pictures=None)) > seconds(TRAINING)
    assert seconds(of(ATTACK, width=1024)) > seconds(of(ATTACK, width=64))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("defense", ["none", "ng-2", "gc-90", "precode"])
def test_every_setup_has_a_cost(model, defense):
    other = {"model": model, "defense": defense, "width": None}
    assert seconds(of(ATTACK, **other)) > 0
    assert seconds(of(TRAINING, **other)) > 0


def test_the_shipped_cells_took_about_what_was_guessed():
    """Each kind of cell that the repository holds, to a factor of two."""
    kinds = defaultdict(list)
    for cell, finished in Shelf.of(LITE).found.items():
        like = type(cell), cell.setup.model, cell.setup.defense
        kinds[like].append(finished.made["processor_seconds"] / seconds(cell))
    assert len(kinds) > 20
    far = {k: median(r) for k, r in kinds.items() if not 0.5 < median(r) < 2}
    assert far == {}


def test_what_was_measured_on_other_seeds_counts_more_than_a_guess():
    def measured(cell, taken):
        return Finished(cell, {}, [], {"processor_seconds": taken}, "key")

    known = [
        measured(of(ATTACK, seed=1), 100.0),
        measured(of(ATTACK, seed=2), 300.0),
        measured(of(ATTACK, width=17), 9999.0),
        measured(TRAINING, 5.0),
    ]
    assert seconds(ATTACK, known) == 200.0
    assert seconds(TRAINED, known) != 200.0


@pytest.mark.parametrize(
    ("total", "words"),
    [(0.4, "0 seconds"), (89, "89 seconds"), (120, "2 minutes"), (7200, "2.0 hours")],
)
def test_costs_are_said_in_words(total, words):
    assert in_words(total) == words

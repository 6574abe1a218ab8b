"""Cells on examples that are no pictures, with labels that are no classes.

What a newcomer writes for them is one file each, in `newcomers` and in the manual; the
library is not touched.
"""

import csv
import io
import json
import runpy
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from precode_lib.attacks import Search
from precode_lib.basics.thresholds import CLOSE
from precode_lib.data import Examples, Splits, split
from precode_lib.experiments import (
    ATTACKS,
    DATASETS,
    MODELS,
    SMOKE,
    AdaptiveCell,
    Architecture,
    AtsCell,
    AttackCell,
    Dataset,
    Found,
    Lab,
    NoiseCell,
    Setup,
    Store,
    Table,
    TrainingCell,
    cells_csv,
    find,
    listed,
    reproduce,
    rows,
    victims_csv,
)
from precode_lib.experiments.lab import stream
from precode_lib.experiments.runs.judging import judged
from precode_lib.experiments.shelf import side_by_side
from precode_lib.federated import observe
from precode_lib.metrics import relative_error
from precode_lib.training import PAPER, Randomness, fit

NEWCOMERS = Path(__file__).with_name("newcomers")
USUAL = {"victims": 4, "iterations": 20, "patience": 20, "lr": 1.0}


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    """What a test makes known is forgotten afterwards."""
    for registry in (ATTACKS, DATASETS, MODELS):
        monkeypatch.setattr(registry, "data", dict(registry.data))


@pytest.fixture
def run(tmp_path):
    """Run a table's cells, and give back what became of them, and its rows."""
    store, lab = Store(tmp_path / "lite"), Lab(tmp_path / "work")

    def run(table: Table):
        cells = table.all_cells(SMOKE)
        ends = [event for event in reproduce(cells, store, lab) if event.state]
        found = find(cells, store)
        return ends, found, rows(table, SMOKE, found)

    return run


def values(made, attack, **known) -> dict[str, float]:
    """The values of an attack's rows, by metric."""
    return {
        row.metric: row.mean
        for row in made
        if row.attack == attack
        and all(getattr(row, name) == value for name, value in known.items())
    }


def test_every_newcomer_needs_one_file():
    files = sorted(path.name for path in NEWCOMERS.glob("*.py"))
    assert files == ["masks.py", "rows_of_a_table.py"]


def test_rows_of_a_table_are_learnt_and_found(run):
    table = runpy.run_path(str(NEWCOMERS / "rows_of_a_table.py"))["TABLE"]
    ends, _, made = run(table)
    assert [(end.state, end.problem) for end in ends] == [("finished", "")] * 4
    for attack, condition in (
        ("lbfgs", "lr 1, 30 steps"),
        ("lbfgs", "batch 1, epoch 2, lr 1, 30 steps"),
        ("divide", ""),
    ):
        told = values(made, attack, condition=condition)
        assert [*told] == ["mse", "relative_error", "asr"], condition
        assert told["relative_error"] < CLOSE and told["asr"] == 100
    accuracies = values(made, "")
    assert [*accuracies] == ["train_accuracy", "test_accuracy"]
    heads, body = side_by_side(made)
    assert {"relative error", "ASR, %"} < {*heads} and "SSIM" not in heads
    assert "not run" not in str(body)


def test_masks_of_a_u_net_are_labels_of_a_cell(run):
    table = runpy.run_path(str(NEWCOMERS / "masks.py"))["TABLE"]
    ends, found, made = run(table)
    assert [(end.state, end.problem) for end in ends] == [("finished", "")] * 2
    one, two = (found[cell].result for cell in table.cells(SMOKE))
    assert (len(one["objective"]), len(two["objective"])) == (4, 2)
    assert len(one["relative_error"]) == len(two["relative_error"]) == 4
    assert {row.metric for row in made} == {"mse", "relative_error", "asr"}


# --- victim, attacker and trainer share the data set's loss ---------------------------


def several_labels(model, examples, labels):
    logits = model(examples)
    return F.binary_cross_entropy_with_logits(logits, labels, reduction="none").sum(1)


def mlp(shape, classes, *, width, generator):
    model = nn.Sequential(
        nn.Linear(*shape, width), nn.Sigmoid(), nn.Linear(width, classes)
    )
    for parameter in model.parameters():
        nn.init.uniform_(parameter, -0.5, 0.5, generator=generator)
    return model


def patients() -> Splits:
    generator = torch.Generator().manual_seed(0)
    measured = torch.randn(40, 6, generator=generator)
    ill = torch.randint(2, (40, 4), generator=generator).float()
    return split(Examples(measured, ill, tuple("abcd"), "patients"))


@pytest.fixture
def setup():
    DATASETS["patients"] = Dataset("patients", lambda path: patients(),
                                   loss=several_labels)  # fmt: skip
    MODELS["mlp"] = Architecture("MLP", mlp, width=16)
    return Setup("patients", "mlp")


def test_an_attack_s_cell_is_the_same_attack_by_hand(setup, run, lab):
    from precode_lib.experiments.runs.recipes import RECIPES

    cell = AttackCell(setup, "lbfgs", **USUAL)
    _, found, _ = run(Table("one", "One cell", lambda scale: [cell]))
    chosen = patients().train[:4]
    model = lab.model(setup, chosen).eval()
    seen = observe(
        model, chosen.images[:, None], chosen.labels[:, None], loss=several_labels
    )
    recipe = RECIPES["lbfgs"]
    recipe = replace(
        recipe, iterations=20, patience=20, optimizer=partial(recipe.optimizer, lr=1.0)
    )
    search = Search(seen, recipe, generator=stream(0, "attack"))
    for _ in search:
        pass
    last = search.result.last_images[:, 0]
    error = (last - chosen.images).norm(dim=1) / chosen.images.norm(dim=1)
    result = found[cell].result
    assert result["relative_error"] == pytest.approx(error.tolist(), rel=1e-4)
    means = result["examples"]["last"]
    assert means["mse"] == pytest.approx((last - chosen.images).square().mean().item(),
                                         rel=1e-4)  # fmt: skip
    objective = search.result.last_objective.tolist()
    assert result["objective"] == pytest.approx(objective, rel=1e-4)


def test_a_training_s_cell_has_the_data_set_s_loss_too(run, lab):
    def twice(model, examples, labels):
        return 2 * F.cross_entropy(model(examples), labels, reduction="none")

    turns = torch.arange(40) % 4
    rows_of_four = Examples(torch.randn(40, 6), turns, tuple("abcd"), "fours")
    parts = Splits(rows_of_four[:30], rows_of_four[30:])
    DATASETS["fours"] = Dataset("fours", lambda path: parts, loss=twice)
    MODELS["mlp"] = Architecture("MLP", mlp, width=16)
    cell = TrainingCell(Setup("fours", "mlp"), epochs=2)
    _, found, _ = run(Table("one", "One cell", lambda scale: [cell]))
    model = lab.model(cell.setup, parts.train)
    protocol = replace(PAPER, epochs=2)
    random = Randomness.seeded(0)
    epochs = [*fit(model, parts, protocol, loss=twice, random=random)]
    told = found[cell].result["train_loss"]
    assert told == pytest.approx([epoch.train_loss for epoch in epochs], rel=1e-4)


def test_an_attacker_who_knows_the_defense_ranks_rows_too(setup, run):
    cell = AdaptiveCell(setup, "divide", victims=4)
    ends, _, made = run(Table("one", "One cell", lambda scale: [cell]))
    assert ends[0].problem == ""
    told = values(made, "divide")
    assert [*told] == ["relative_error", "asr", "first", "rank"]
    assert told["relative_error"] < CLOSE and told["rank"] == 1


def test_noise_that_defenses_and_models_draw_is_compared_on_rows(setup, run):
    cell = NoiseCell(replace(setup, defense="ng-2"), victims=4, draws=3)
    ends, _, made = run(Table("noise", "Noise", lambda scale: [cell]))
    assert ends[0].problem == ""
    assert 0 < values(made, "")["cosine"] < 1


@pytest.mark.parametrize(
    ("cell", "problem"),
    [
        (lambda s: AttackCell(s, "iga", **USUAL), "total variation is of pictures"),
        (lambda s: TrainingCell(s, epochs=1), "right guesses of classes; Examples"),
        (lambda s: AtsCell(s, victims=2, iterations=2), "ats transforms pictures, not"),
    ],
)
def test_what_is_for_pictures_or_classes_only_says_so_in_a_line(
    cell, problem, setup, run
):
    (end,), _, made = run(Table("one", "One cell", lambda scale: [cell(setup)]))
    assert end.state == "failed" and problem in end.problem
    assert len(end.problem) < 250 and "\n" not in end.problem
    assert all(row.mean is None for row in made)


# --- judging --------------------------------------------------------------------------


def test_the_relative_error_is_in_units_of_the_example():
    originals = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    guesses = torch.tensor([[3.0, 4.5], [0.0, 0.25]])
    assert relative_error(originals, guesses).tolist() == pytest.approx([0.1, 0.25])


def test_what_comes_back_is_judged_in_its_batch_s_own_order():
    chosen = patients().train[:4]
    turned = chosen.images.unflatten(0, (2, 2)).flip(1)
    result = judged(Found(turned, turned + 1), chosen, [])
    assert result["relative_error"] == [0.0] * 4
    assert result["examples"]["last"] == {"mse": 0, "relative_error": 0, "asr": 1}
    assert result["examples"]["best"]["mse"] == pytest.approx(1)
    assert result["examples"]["best"]["asr"] == 0
    assert not {"psnr", "ssim", "last", "best"} & result.keys()
    json.dumps(result, allow_nan=False)


def test_an_error_below_a_tenth_is_a_success_and_its_unit_says_so(setup, run, tmp_path):
    chosen = patients().train[:2]
    near = chosen.images[:, None] * torch.tensor([1.099, 1.101]).view(2, 1, 1)
    assert judged(Found(near, near), chosen, [])["examples"]["last"]["asr"] == 0.5
    _, found, _ = run(
        Table("t", "T", lambda scale: [AttackCell(setup, "divide", victims=4)])
    )
    (kept,) = found.values()
    units = json.loads((tmp_path / "lite" / f"{kept.key}.json").read_text())["units"]
    assert f"relative error below {CLOSE:g}" in units["examples"]
    assert units.keys() - {"setup.beta"} == kept.result.keys()


# --- beside pictures ------------------------------------------------------------------


def test_sheets_leave_empty_what_only_pictures_have(setup, run, tmp_path):
    of_pictures = AttackCell(
        Setup("photos", "smlp", width=16), victims=4, iterations=2, patience=2
    )
    of_rows = AttackCell(setup, "divide", victims=4)
    _, found, _ = run(Table("both", "Both", lambda scale: [of_pictures, of_rows]))
    lines = listed(tmp_path)
    cells = {
        line["key"]: line for line in csv.DictReader(io.StringIO(cells_csv(lines)))
    }
    patient, photos = cells[found[of_rows].key], cells[found[of_pictures].key]
    assert patient["last.paper.ssim"] == photos["examples.last.mse"] == ""
    assert float(patient["examples.last.asr"]) == 1.0
    victims = [*csv.DictReader(io.StringIO(victims_csv(lines)))]
    assert len(victims) == 8
    for line in victims:
        is_row = line["key"] == found[of_rows].key
        assert (line["ssim"] == "", line["relative_error"] == "") == (
            is_row,
            not is_row,
        )


def test_without_such_cells_no_row_and_no_column_asks_for_their_error(run, tmp_path):
    cell = AttackCell(
        Setup("photos", "smlp", width=16), victims=4, iterations=2, patience=2
    )
    table = Table("one", "One cell", lambda scale: [cell])
    expected = ["mse", "psnr", "ssim", "asr"]
    assert [row.metric for row in rows(table, SMOKE, {})] == expected
    _, _, made = run(table)
    assert [row.metric for row in made] == expected
    for text in (cells_csv(listed(tmp_path)), victims_csv(listed(tmp_path))):
        assert "relative_error" not in text


def test_the_same_bytes_as_other_labels_are_other_data(tmp_path):
    gallery, chosen = Lab(tmp_path).gallery, patients().train
    again = replace(chosen, labels=chosen.labels.view(torch.int32))
    assert gallery.digest([chosen]) != gallery.digest([again])
    assert gallery.digest([chosen]) == gallery.digest([patients().train])

"""The protocol against the words of the paper, which is quoted where it counts."""

from dataclasses import replace

import pytest

from precode_lib.attacks import CPL_PRECODE, IGA_PRECODE
from precode_lib.experiments import (
    DEFENSES,
    LITE,
    PAPER,
    SCALES,
    SMOKE,
    TABLES,
    AttackCell,
    Setup,
    protocol,
)
from precode_lib.experiments.runs.attack import recipe
from precode_lib.experiments.runs.recipes import RECIPES


def cells(name, scale=PAPER):
    return TABLES[name].cells(scale)


def test_the_paper_s_scale_is_what_section_4_says():
    # "128 images from training data"; "three different seeds"; "within 7'000
    # iterations"; "no decrease in reconstruction loss for 1'200 iterations"; "300
    # epochs"; section 5.5: "after 1 and 50 epochs of training".
    assert (PAPER.victims, len(PAPER.seeds)) == (128, 3)
    assert (PAPER.iterations, PAPER.patience, PAPER.epochs) == (7_000, 1_200, 300)
    assert PAPER.marks == (0, 1, 50)
    assert PAPER.train_pictures is PAPER.test_pictures is PAPER.stand_in is None
    assert PAPER.width == 1024


def test_a_setup_is_the_paper_s_unless_it_says_otherwise():
    # k = 256 and beta = 0.001 "between the last feature extracting layer and the final
    # classification layer".
    usual = PAPER.setup("cifar10", "dmlp", "precode")
    assert usual == Setup("cifar10", "dmlp", "precode")
    assert (usual.k, usual.beta, usual.places) == (256, 1e-3, ("before fc",))


def test_an_attack_is_the_paper_s_unless_it_says_otherwise():
    # "Adam optimizer with learning rate 0.01, and step-wise learning rate decay".
    usual = PAPER.attack(PAPER.setup("cifar10", "dmlp", "none"))
    assert usual == AttackCell(Setup("cifar10", "dmlp"))
    assert (usual.lr, usual.batch_size, usual.epoch) == (0.01, 1, 0)
    made = recipe(usual)
    assert (made.iterations, made.patience) == (7_000, 1_200)
    assert made.optimizer.keywords == {"lr": 0.01}
    assert (RECIPES["iga"], RECIPES["cpl"]) == (IGA_PRECODE, CPL_PRECODE)
    assert made.distance is IGA_PRECODE.distance
    assert made.prior_weight == IGA_PRECODE.prior_weight == 1e-6
    assert made.schedule is IGA_PRECODE.schedule


@pytest.mark.parametrize(
    ("name", "entry", "value"),
    [("ng-2", "std", 1e-2), ("ng-3", "std", 1e-3), ("gc", "ratio", 0.1)],
)
def test_perturbations_have_the_paper_s_strengths(name, entry, value, generator):
    # "we prune 10% of the gradient values with smallest magnitudes to zero".
    assert DEFENSES[name].make(generator).keywords[entry] == value


def test_only_perturbations_change_a_gradient(generator):
    unchanged = {n for n, d in DEFENSES.items() if d.make(generator) is None}
    inside = {n for n, d in DEFENSES.items() if d.insert or d.step}
    kept = {n for n, d in DEFENSES.items() if d.keeps_statistics}
    assert unchanged == {"none"} | kept | inside - {"ppp"}  # which does both
    assert DEFENSES["gc-90"].make(generator).keywords == {"ratio": 0.9}


@pytest.mark.parametrize("scale", [SMOKE, LITE], ids=lambda scale: scale.name)
def test_every_scale_has_the_paper_s_tables(scale):
    def kinds(table, scale):
        setups = [(c.kind, c.setup) for c in table.cells(scale)]
        return [(kind, s.model, s.defense, s.places) for kind, s in setups]

    for name, table in TABLES.items():
        published = kinds(table, PAPER)
        # Too few victims for a batch of 8; two moments of training, not three.
        if name in ("fig7", "adapt") and scale is SMOKE:
            assert {*kinds(table, scale)} == {*published}
        else:
            assert kinds(table, scale) == published, name
        once = {*table.cells(scale)}
        assert len(table.all_cells(scale)) == len(once) * len(scale.seeds)


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_patience_keeps_its_share_of_the_iterations(scale):
    assert scale.patience / scale.iterations == pytest.approx(1_200 / 7_000, rel=0.05)


def test_the_lighter_scales_are_lighter():
    for light, heavy in ((SMOKE, LITE), (LITE, PAPER)):
        for name in ("victims", "iterations", "epochs", "ats_victims"):
            assert getattr(light, name) < getattr(heavy, name), name
    assert SCALES == {"smoke": SMOKE, "lite": LITE, "paper": PAPER}


def test_the_smoke_scale_touches_no_data_set_and_no_other_scale_stands_in():
    for scale in SCALES.values():
        everything = [c for t in TABLES.values() for c in t.all_cells(scale)]
        names = {cell.setup.dataset for cell in everything}
        if scale is SMOKE:
            assert names == {"photos"}
        else:
            assert names == {"photos", "cifar10", "cifar100", "medical_mnist"}


def test_table_2_has_five_defenses_for_two_models_private_and_accurate():
    found = {(type(c).kind, c.setup.model, c.setup.defense) for c in cells("table2")}
    defenses = ("none", "ng-2", "ng-3", "gc", "precode")
    assert found == {
        (kind, model, defense)
        for kind in ("attack", "training")
        for model in ("dmlp", "lenet")
        for defense in defenses
    }


def test_figure_7_has_all_batch_sizes_and_epochs_of_training():
    found = {(c.batch_size, c.epoch) for c in cells("fig7")}
    assert found == {(size, epoch) for size in (1, 8, 16) for epoch in (0, 1, 50)}
    for cell in cells("fig7"):
        assert (cell.training is None) == (cell.epoch == 0)
        assert cell.training in (None, PAPER.training(cell.setup))


def test_trained_attacks_start_from_a_training_that_other_tables_run_too():
    trained = {c.training for c in cells("fig7", LITE)} - {None}
    assert trained <= {*cells("table2", LITE)}


def test_figure_7_is_tried_otherwise_one_change_at_a_time():
    own = {*cells("fig7", LITE)}
    made = list(dict.fromkeys(cells("fig7-why", LITE)))
    attacks = [cell for cell in made if cell.kind == "attack"]
    changed = [cell for cell in attacks if cell not in own]
    assert len(attacks) - len(changed) == 6  # three epochs, with and without PRECODE
    assert len(changed) == 2 + 4 + 4
    for cell in changed:
        usual = LITE.attack(cell.setup, epoch=cell.epoch)
        paper_s_search = {"iterations": 7_000, "patience": 1_200}
        paper_s_training = replace(LITE.training(cell.setup), epochs=50)
        assert cell in (
            replace(usual, lr=0.1),
            replace(usual, **paper_s_search),
            replace(usual, training=paper_s_training),
        )
        assert (cell.epoch == 50) == (cell.training == paper_s_training)


def test_the_noise_is_measured_wherever_figure_7_attacks_precode():
    made = cells("fig7-why", LITE)
    noise = {(c.setup, c.training) for c in made if c.kind == "noise"}
    attacked = {(c.setup, c.training) for c in made if c.kind == "attack"}
    assert noise == {(s, t) for s, t in attacked if s.defense == "precode"}
    assert {c.epoch for c in made if c.kind == "noise"} == {0, 1, 10, 50}


def test_more_time_is_no_change_at_the_paper_s_scale():
    setup = PAPER.setup("cifar10", "dmlp", "precode")
    assert PAPER.longer_attack(setup, epoch=1) == PAPER.attack(setup, epoch=1)
    assert PAPER.longer_training(setup) == PAPER.training(setup)


def test_supplement_varies_one_thing_at_a_time():
    usual = PAPER.setup("cifar10", "dmlp", "precode")
    values = {
        "supp-k": ("k", {64, 128, 256, 512}),
        "supp-beta": ("beta", {1e-1, 1e-2, 1e-3, 1e-4}),
        "supp-placement": ("places", {*protocol.PLACEMENTS}),
    }
    for name, (field, expected) in values.items():
        assert {getattr(c.setup, field) for c in cells(name)} == expected
        for cell in cells(name):
            assert replace(cell.setup, **{field: getattr(usual, field)}) == usual


def test_cpl_is_table_4_only_and_its_own_defenses_are_four():
    assert {c.attack for c in cells("table4")} == {"cpl"}
    assert {c.setup.defense for c in cells("table4")} == {*protocol.FEW_DEFENSES}
    assert {c.attack for c in cells("table2") if c.kind == "attack"} == {"iga"}


def test_only_photographs_that_may_be_shown_are_kept_as_pictures():
    for scale in SCALES.values():
        for table in TABLES.values():
            shown = [c for c in table.cells(scale) if getattr(c, "shows", False)]
            assert {c.setup.dataset for c in shown} <= {"photos"}
            assert bool(shown) == (table.name == "fig5")

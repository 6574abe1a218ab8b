"""Attacks by name: a recipe, layers left out, the noise known, and no search at all."""

from dataclasses import replace

import pytest
import torch
from tiny_cells import ATTACK, SETUP, TRAINED, TRAINING, of

from precode_lib.attacks import IGA_PRECODE, Search, given
from precode_lib.bottleneck import recorded_noise
from precode_lib.experiments import ATTACKS, AttackCell, Setup, seconds
from precode_lib.experiments.cells import key_of
from precode_lib.experiments.names.attacks import before_the_noise
from precode_lib.experiments.one_cell import bench, run
from precode_lib.experiments.runs.attack import observed, recipe
from precode_lib.federated import observing

NAMES = ("iga", "cpl", "dlg", "dlg-e3", "dlg-e6", "dlg-free", "lbfgs")
TWICE = replace(SETUP, model="dmlp", places=("after features.activation1", "before fc"))


def result_of(cell, lab, **options):
    steps = run(cell, lab, "a-key", **options)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def listened(cell, lab):
    """What the victims of a cell send, the true images, and the noise they drew."""
    own = bench(cell, lab, "a-key")
    noise = own.generator("noise")
    model = own.model().eval()
    with recorded_noise() as drawn:
        seen = observed(own, model, noise, noise, cell.batch_size)
    (pictures,) = own.pictures
    return seen, pictures.images.unflatten(0, (-1, cell.batch_size)), drawn


def first_objective(search):
    return next(search).objective.max().item()


@pytest.mark.parametrize("attack", ATTACKS)
def test_every_attack_of_the_library_runs_and_has_a_price(attack, lab):
    cell = replace(ATTACK, attack=attack, iterations=3, patience=3)
    result = result_of(cell, lab)
    assert len(result["ssim"]) == len(result["outcomes"]) == cell.victims
    assert seconds(cell) > 0


def test_every_attack_has_a_title_of_its_own():
    assert len({attack.title for attack in ATTACKS.values()}) == len(ATTACKS)
    whole = {*NAMES, "iga-early", "iga-told", "divide", "divide-all", "joint"}
    whole |= {"joint-statistics"}
    whole |= {n for n in ATTACKS if n.startswith(("strong", "iga-fast"))}
    assert whole == ATTACKS.keys()


# --- one division ---------------------------------------------------------------------


@pytest.mark.parametrize("defense", ["none", "precode"])
def test_one_division_finds_every_picture_behind_precode_too(defense, lab):
    cell = of(replace(ATTACK, attack="divide"), defense=defense)
    result = result_of(cell, lab)
    assert min(result["ssim"]) > 0.99
    assert result["outcomes"] == ["exact"] * 4
    assert result["iterations"] == [0] * 4
    assert result["last"] == result["best"]


def test_one_division_behind_noise_says_that_it_is_not_exact(lab):
    cell = of(replace(ATTACK, attack="divide"), defense="ng-2")
    result = result_of(cell, lab)
    assert result["outcomes"] == ["inexact"] * 4
    assert min(result["ssim"]) < 0.9


def test_one_division_is_one_cell_whatever_a_search_would_be_told():
    cells = {
        replace(ATTACK, attack="divide", iterations=n, patience=p, lr=lr)
        for n, p, lr in ((7_000, 1_200, 0.01), (40, 7, 1.0))
    }
    assert len({key_of(cell, "pictures") for cell in cells}) == len(cells) == 1
    assert "lr" not in str(cells.pop())


def test_one_division_has_no_picture_for_each_of_a_batch(lab):
    cell = replace(ATTACK, attack="divide", batch_size=2)
    with pytest.raises(ValueError, match="one picture, not the 2 of a batch"):
        result_of(cell, lab)


def test_one_division_needs_a_linear_layer_that_sees_the_picture(lab):
    cell = AttackCell(Setup("photos", "lenet"), attack="divide", victims=4)
    with pytest.raises(ValueError, match="no Linear layer of the model sees"):
        result_of(cell, lab)


# --- layers left out ------------------------------------------------------------------


def test_what_runs_after_the_first_encoder_is_left_out(lab):
    seen, _, _ = listened(of(ATTACK, model="dmlp", places=TWICE.places), lab)
    kept = [*before_the_noise(seen.shared)]
    everything = [*seen.shared]
    assert kept == everything[: len(kept)]
    assert [name.split(".")[-2] for name in kept[-2:]] == ["encoder", "encoder"]
    assert sum("encoder" in name for name in everything) == 4
    assert "encoder" not in "".join(kept[:-2])


def test_without_a_bottleneck_nothing_is_left_out(lab):
    seen, _, _ = listened(of(ATTACK, defense="none"), lab)
    assert [*before_the_noise(seen.shared)] == [*seen.shared]
    cells = [
        replace(of(ATTACK, defense="none"), attack=a) for a in ("iga", "iga-early")
    ]
    first, second = (result_of(cell, lab) for cell in cells)
    assert first == second


def test_leaving_them_out_finds_what_the_noise_hides(lab):
    """The paper's attacker stays below; one who leaves the noisy layers out doesn't."""
    setup = replace(SETUP, width=64, k=16)
    cell = replace(ATTACK, setup=setup, iterations=150, patience=150, lr=0.1)
    usual, early = (
        result_of(replace(cell, attack=a), lab)["last"]["paper"]["ssim"]
        for a in ("iga", "iga-early")
    )
    assert early > usual + 0.2


# --- the noise known ------------------------------------------------------------------


@pytest.mark.parametrize("setup", [SETUP, TWICE], ids=["once", "twice"])
@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize("at_a_time", [4, 1], ids=["together", "one by one"])
def test_who_knows_the_noise_sees_no_distance_at_the_truth(
    setup, batch_size, at_a_time, lab, monkeypatch
):
    if at_a_time == 1:  # victim by victim: the noise comes in pieces
        monkeypatch.setattr(observing, "WIRE_BYTES", 1)
    cell = replace(ATTACK, setup=setup, batch_size=batch_size)
    seen, images, drawn = listened(cell, lab)
    if at_a_time == 1:
        assert len(drawn) == len(setup.places) * 4 // batch_size
    matched = replace(recipe(cell), prior_weight=0.0)
    options = {"generator": torch.Generator().manual_seed(0), "start": images}
    knows = replace(matched, hidden=given(drawn, num_examples=batch_size))
    told = Search(seen, knows, **options)
    assert first_objective(told) < 1e-5
    assert first_objective(Search(seen, matched, **options)) > 1e-3


def test_the_victims_draw_the_same_noise_for_whoever_listens(lab):
    # Two bottlenecks, one after the other: the second draw tells whether all agree.
    two = replace(ATTACK, setup=TWICE)
    told, usual = (replace(two, attack=a) for a in ("iga-told", "iga"))
    own = bench(usual, lab, "a-key")
    model, noise = own.model().eval(), own.generator("noise")
    plain = observed(own, model, noise, noise, 1).shared.dense()
    seen, _, _ = listened(told, lab)
    for name, term in seen.shared.dense().items():
        assert torch.equal(term, plain[name]), name


def test_noise_that_is_not_the_victims_is_refused(lab):
    seen, _, drawn = listened(ATTACK, lab)
    options = {"generator": torch.Generator().manual_seed(0)}
    for numbers, refusal in (
        (
            [drawn[0], drawn[0][:1]],
            r"noise given is of \[5\] victims, .* the search of 4",
        ),
        ([], "draws 1 times, 0 tensors"),
    ):
        with pytest.raises(ValueError, match=refusal):
            Search(seen, replace(IGA_PRECODE, hidden=given(numbers)), **options)


def test_an_oracle_goes_on_from_its_checkpoint_to_the_same_result(lab):
    cell = replace(ATTACK, attack="iga-told", iterations=40, patience=40)
    begun = run(cell, replace(lab, every=0.0), "a-key")
    for _ in range(3):
        next(begun)
    begun.close()
    assert (lab.work / "a-key.pt").exists()
    elsewhere = replace(lab, work=lab.work / "undisturbed")
    assert result_of(cell, lab) == result_of(cell, elsewhere)


def test_attacks_on_a_trained_model_may_be_any(lab):
    training = run(TRAINING, lab, "training", marks=(2,))
    for _ in training:
        pass
    result = result_of(replace(TRAINED, attack="divide"), lab)
    assert min(result["ssim"]) > 0.99

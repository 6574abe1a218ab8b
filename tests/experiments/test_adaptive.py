"""Cells of attackers who know the defense: whose pictures, which rank, which policy."""

import copy
from dataclasses import replace

import pytest
import torch
from tiny_cells import SETUP, TRAINING

from precode_lib.experiments import DEFENSES, LITE, SMOKE, TABLES
from precode_lib.experiments.cells import from_dict, key_of, kind_of, to_dict
from precode_lib.experiments.kinds.adaptive import AdaptiveCell
from precode_lib.experiments.one_cell import bench, run
from precode_lib.experiments.runs import attack
from precode_lib.experiments.runs.adaptive import ranks
from precode_lib.experiments.runs.attack import in_mode, observed

TINY = AdaptiveCell(SETUP, "joint", victims=4, iterations=2)


def result_of(cell, lab, key="a-key"):
    steps = run(cell, lab, key)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def test_a_rank_counts_the_pictures_that_are_nearer_than_the_true_one():
    truth = torch.zeros(1, 1, 2, 2)
    others = torch.stack([torch.full((1, 2, 2), v) for v in (0.2, 0.5, 0.9)])
    for guess, rank in ((0.0, 1), (0.3, 3), (0.15, 2), (0.6, 4)):
        found = ranks(torch.full((1, 1, 2, 2), guess), truth, others)
        assert found.tolist() == [rank], guess


def test_who_ties_comes_last_and_the_true_picture_counts_once():
    truth = torch.zeros(1, 1, 2, 2)
    same, twin = truth[0], torch.full((1, 2, 2), 0.2)
    guess = torch.full((1, 1, 2, 2), 0.1)  # as far from the twin as from the truth
    assert ranks(guess, truth, torch.stack([same, same])).tolist() == [1]
    assert ranks(guess, truth, torch.stack([same, twin])).tolist() == [2]


def test_a_cell_judges_ranks_and_reads(lab):
    result = result_of(TINY, lab)
    assert len(result["rank"]) == len(result["ssim"]) == 4
    assert all(1 <= rank <= 1_001 for rank in result["rank"])
    reading = kind_of(TINY).read(TINY, SMOKE)
    assert set(reading.values([result])) == {"ssim", "asr", "first", "rank"}
    assert reading.condition.startswith("epoch 0")


def test_a_cell_goes_on_from_its_checkpoint_to_the_same_result(lab):
    cell = replace(TINY, iterations=6)
    begun = run(cell, replace(lab, every=0.0), "a-key")
    next(begun)
    next(begun, None)
    begun.close()
    elsewhere = replace(lab, work=lab.work / "undisturbed")
    assert result_of(cell, lab) == result_of(cell, elsewhere)


def test_learnt_and_new_victims_are_of_the_two_parts_of_the_training(lab):
    trained = replace(TINY, epoch=2, training=TRAINING)
    parts = {}
    for whose in ("published", "seen", "unseen"):
        victims, others = lab.pictures(replace(trained, whose=whose))
        parts[whose] = victims
        assert len(victims) == 4 and len(others) >= 4
    splits = lab.splits(TRAINING)
    for whose, part in (("seen", splits.train), ("unseen", splits.test)):
        there = {p.numpy().tobytes() for p in part.stored}
        assert all(p.numpy().tobytes() in there for p in parts[whose].stored)
    keys = {key_of(c, lab.digest(c)) for c in (TINY, trained)}
    assert len(keys) == 2


def test_a_cell_survives_json():
    cell = replace(TINY, epoch=2, training=TRAINING, whose="seen")
    assert from_dict(to_dict(cell)) == cell


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"whose": "mine"}, "whose is one of"),
        ({"whose": "seen"}, "need a training"),
        ({"batch_size": 3}, "do not fill batches"),
        ({"epoch": 1}, "needs its training"),
    ],
)
def test_cells_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(TINY, **changes)


def test_one_division_takes_no_steps_so_that_its_work_has_one_name():
    assert replace(TINY, attack="divide") == replace(
        TINY, attack="divide", iterations=7
    )


def observed_with(defense, lab, model="lenet"):
    setup = replace(SETUP, model=model, defense=defense, width=None)
    cell = AdaptiveCell(setup, "strong", victims=4, iterations=1)
    own = bench(cell, lab, "a-key")
    noise = own.generator("noise")
    own = replace(own, pictures=own.pictures[:1])
    return observed(own, in_mode(own, cell), noise, noise, 1)


def test_each_defense_of_the_table_does_to_the_gradient_what_it_says(lab):
    plain = observed_with("none", lab).shared.dense()
    pruned = observed_with("soteria", lab).shared.dense()
    columns = (pruned["fc.weight"] == 0).all(1).double().mean(1)
    assert ((columns > 0.5) & (columns < 0.7)).all()
    for name in plain:
        if name != "fc.weight":
            torch.testing.assert_close(plain[name], pruned[name])
    for defense in ("cvb", "cvb-published"):
        names = list(observed_with(defense, lab).shared)
        assert any("bottleneck.spread" in name for name in names)
    assert observed_with("dropout", lab).model.training
    assert not observed_with("none", lab).model.training
    bare, noisy = (observed_with(d, lab).shared.dense() for d in ("precode", "ppp"))
    changed = [n for n in bare if not torch.allclose(bare[n], noisy[n], atol=1e-6)]
    assert changed == [n for n in bare if n.startswith("features.")]


def test_clients_norm_by_their_own_batch_in_training_mode_alone(lab):
    modes = {
        model: observed_with("precode", lab, model).model.training
        for model in ("lenet", "lenet-bn", "lenet-bn-train")
    }
    assert modes == {"lenet": False, "lenet-bn": False, "lenet-bn-train": True}


def test_clients_may_keep_what_their_batch_norms_remember(lab, monkeypatch):
    setup = replace(SETUP, model="lenet-bn", defense="own-statistics", width=None)
    cell = AdaptiveCell(setup, "joint-statistics", victims=4, iterations=1)
    own, heard = bench(cell, lab, "a-key"), []
    trained = own.model()
    for name, buffer in trained.named_buffers():
        if "running" in name:
            buffer += 1 + torch.arange(len(buffer)) / 7
    own = replace(own, model=lambda: copy.deepcopy(trained))
    monkeypatch.setattr(
        attack, "search", lambda seen, *_, **__: iter([heard.append(seen)])
    )
    assert len([*attack.attacked(cell, own)]) == 1
    (seen,) = heard
    kept = {n: b for n, b in seen.model.named_buffers() if "running" in n}
    assert kept and all(
        b.unique().tolist() == [n.endswith("var")] for n, b in kept.items()
    )
    truth = observed(own, trained.eval(), None, None, 1).shared.dense()
    for name, sent in seen.shared.dense().items():
        torch.testing.assert_close(sent, truth[name])


def test_the_two_bottlenecks_of_cvb_differ_in_their_kl_alone(lab):
    ours, theirs = (observed_with(d, lab).model for d in ("cvb", "cvb-published"))
    pairs = zip(ours.state_dict().items(), theirs.state_dict().items(), strict=True)
    for (name, one), (other_name, other) in pairs:
        assert name == other_name and torch.equal(one, other)


def test_every_block_of_the_table_has_its_oracle_and_its_undefended_control():
    cells = [c for c in TABLES["adapt"].cells(LITE) if c.epoch == 0]
    attacks = {}
    for cell in cells:
        place = cell.setup.model, cell.setup.init, cell.batch_size
        attacks.setdefault((*place, cell.setup.defense), set()).add(cell.attack)
    for (*place, defense), there in attacks.items():
        assert "none" in {d for (*p, d) in attacks if p == place}, place
        if "joint" in there:
            assert "strong-told" in there, (place, defense)


def test_the_table_is_as_large_as_it_says_and_names_only_what_there_is():
    for scale in (SMOKE, LITE):
        cells = TABLES["adapt"].all_cells(scale)
        assert 60 * len(scale.seeds) <= len(cells) <= 140 * len(scale.seeds)
        assert {c.setup.defense for c in cells} <= set(DEFENSES)

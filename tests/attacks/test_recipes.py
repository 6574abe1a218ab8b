"""The published attacks: their settings, and that they find the picture."""

import re
from dataclasses import fields, replace
from functools import partial

import pytest
import torch
from scenes import make_scene
from torch.optim import LBFGS, Adam

from precode_lib.attacks import (
    CPL,
    CPL_PRECODE,
    DLG,
    IDLG,
    IGA,
    IGA_PRECODE,
    UNIT_FREE_DLG,
    Recipe,
    Search,
    VictimLBFGS,
    cpl,
    dlg,
    idlg,
    iga,
)
from precode_lib.attacks.labels import known_labels, row_sum_labels
from precode_lib.attacks.objectives import cosine_distance, scaled, squared_distance
from precode_lib.attacks.starts import patterned
from precode_lib.metrics import ssim

DTYPES = [torch.float64, torch.float32]


def seeded():
    return torch.Generator().manual_seed(0)


def exhausted(search):
    for _ in search:
        pass
    return search.result


def similarity(scene, result):
    """SSIM of every recovered picture, on pixels in [0, 1]."""
    pairs = (scene.pixels, result.pixels)
    return ssim(*(p.flatten(0, 1).double() for p in pairs))


ATTACKS = {dlg: DLG, idlg: IDLG, iga: IGA, cpl: CPL}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_help_tells_the_settings_of_an_attack(attack):
    told = dict(re.findall(r"^- ``(\w+)=(.*)``$", attack.__doc__, re.M))
    recipe, usual = ATTACKS[attack], Recipe()
    differing = {
        field.name
        for field in fields(Recipe)
        if field.name not in ("name", "optimizer")  # partials are never equal
        and getattr(recipe, field.name) != getattr(usual, field.name)
    }
    assert differing == {*told} - {"optimizer"}
    for name in ("iterations", "prior_weight", "signed", "boxed", "tolerance"):
        assert name not in told or eval(told[name]) == getattr(recipe, name)


def test_help_writes_settings_as_one_would_write_them():
    assert "- ``iterations=24000``" in iga.__doc__
    assert "optimizer=" not in iga.__doc__  # Adam of step 0.1, as every recipe's
    assert "- ``start=patterned(16)``" in cpl.__doc__
    assert "partial(VictimLBFGS, lr=1.0, absolute=True)" in dlg.__doc__


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("attack", "options"),
    [
        (dlg, {"iterations": 30}),
        (idlg, {"iterations": 30}),
        (cpl, {"iterations": 30, "start": patterned(4)}),
        (iga, {"iterations": 500, "prior_weight": 0.0}),
    ],
    ids=["DLG", "iDLG", "CPL", "IGA"],
)
def test_every_attack_recovers_every_picture_of_a_small_net(attack, options, dtype):
    scene = make_scene(victims=2, dtype=dtype)
    search = attack(
        scene.seen, generator=seeded(), restarts=6, tolerance=1e-7, **options
    )
    result = exhausted(search)
    assert (result.objective < 1e-6).all()
    assert (similarity(scene, result) > 0.99).all()
    assert torch.equal(result.labels, scene.labels)


def test_with_a_line_search_the_objective_never_rises():
    scene = make_scene(victims=2)
    plain = replace(IDLG, iterations=12, labels=known_labels, tolerance=None)
    wolfe = replace(plain, optimizer=partial(LBFGS, line_search_fn="strong_wolfe"))
    rises = []
    for recipe in (plain, wolfe):
        steps = list(Search(scene.seen, recipe, generator=seeded()))
        objectives = torch.stack([step.objective for step in steps])
        rises.append(objectives.diff(dim=0).amax().item())
    assert rises[0] > 0 >= rises[1]


def test_a_batch_of_pictures_is_recovered_together():
    scene = make_scene(victims=2, batch=2)
    result = exhausted(
        Search(
            scene.seen,
            replace(IDLG, labels=known_labels, iterations=30, restarts=6),
            generator=seeded(),
        )
    )
    assert (result.objective < 1e-6).all()
    assert (similarity(scene, result) > 0.99).all()


@pytest.mark.parametrize("recipe", [IGA, CPL_PRECODE], ids=["IGA", "CPL"])
def test_the_same_search_fails_behind_a_bottleneck(recipe):
    """Searching fails behind PRECODE; closed forms and adaptive attacks do not."""
    recipe = replace(recipe, iterations=300, optimizer=partial(Adam, lr=0.1))
    open_net, bottleneck = make_scene(), make_scene(bottleneck=True)
    found = exhausted(Search(open_net.seen, recipe, generator=seeded()))
    blurred = exhausted(Search(bottleneck.seen, recipe, generator=seeded()))
    assert similarity(open_net, found).mean() > 0.6
    assert (similarity(bottleneck, blurred) < 0.6).all()


def test_the_settings_are_the_published_ones():
    for recipe in (DLG, IDLG, CPL):
        assert recipe.distance is squared_distance
        assert recipe.iterations == 300
        assert recipe.optimizer.func is VictimLBFGS
        assert recipe.optimizer.keywords == {"lr": 1.0, "absolute": True}
        assert (recipe.prior_weight, recipe.boxed, recipe.signed) == (0, False, False)
    assert DLG.labels is None
    assert IDLG.labels is row_sum_labels
    assert IDLG.tolerance == 1e-6
    assert IGA.distance is cosine_distance
    assert (IGA.signed, IGA.boxed) == (True, True)
    assert IGA.optimizer.keywords == {"lr": 0.1}
    assert (IGA.iterations, IGA.prior_weight) == (24_000, 1e-4)
    assert IGA_PRECODE.optimizer.keywords == {"lr": 0.01}
    assert (IGA_PRECODE.iterations, IGA_PRECODE.prior_weight) == (7_000, 1e-6)
    assert IGA_PRECODE.patience == CPL_PRECODE.patience == 1_200
    assert CPL_PRECODE.distance is squared_distance
    assert CPL_PRECODE.label_weight > 0


def test_only_the_published_dlg_minds_the_units_of_its_distance():
    scene, unit = make_scene(), 2.0**-30  # a power of two changes no digit
    small = scaled(squared_distance, unit)

    def found(recipe, distance):
        changes = {"labels": known_labels, "iterations": 30}
        changed = replace(recipe, distance=distance, **changes)
        return exhausted(Search(scene.seen, changed, generator=seeded()))

    stuck = found(DLG, small)
    assert (similarity(scene, stuck) < 0.6).all()
    free = found(UNIT_FREE_DLG, small)
    assert similarity(scene, free).max() > 0.99
    same = found(UNIT_FREE_DLG, squared_distance)
    assert torch.equal(free.images, same.images)
    assert torch.equal(free.objective, unit * same.objective)


def test_the_functions_start_their_recipe_with_changes():
    scene = make_scene()
    for start, recipe in [(dlg, DLG), (idlg, IDLG), (iga, IGA), (cpl, CPL)]:
        search = start(scene.seen, generator=seeded(), iterations=7)
        assert search.recipe == replace(recipe, iterations=7)
        assert len(search) == 7

"""A search that could not find anything says so, and one that broke off does."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from scenes import make_scene
from torch import nn
from torchvision import models as torchvision_models

from precode_lib.attacks import IGA, Recipe, Search, VictimLBFGS, known_labels
from precode_lib.attacks.objectives import (
    balanced_cosine_distance,
    cosine_distance,
    squared_distance,
)
from precode_lib.data import PHOTOS
from precode_lib.federated import VacuousGradientWarning, observe
from precode_lib.metrics import score
from precode_lib.models import lenet, smlp

SHORT = Recipe(labels=known_labels, iterations=3)
DISTANCES = [cosine_distance, squared_distance, balanced_cosine_distance]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(side=32, victims=2):
    images = torch.randn(victims, 1, 3, side, side, generator=seeded(1))
    return images, torch.tensor([[3], [7]])[:victims]


def searched(seen, recipe=SHORT, **options):
    search = Search(seen, recipe, generator=seeded(), **options)
    for _ in search:
        pass
    return search.result


def torchvision_model(name):
    torch.manual_seed(0)
    return getattr(torchvision_models, name)(num_classes=10).eval()


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("name", ["efficientnet_b0", "resnet18", "smlp", "lenet"])
def test_only_an_objective_that_tells_no_pictures_apart_is_called_blind(name, distance):
    own = {"smlp": smlp, "lenet": lenet}
    model = own[name](generator=seeded()) if name in own else torchvision_model(name)
    found = searched(observe(model, *pictures()), replace(SHORT, distance=distance))
    is_blind = name == "efficientnet_b0"
    assert found.conclusive == [not is_blind] * 2
    assert all(("can't tell pictures apart" in why) == is_blind for why in found.blind)
    assert ("2 blind" in repr(found)) == is_blind


def test_behind_a_head_of_zeros_no_search_proves_anything():
    torch.manual_seed(0)
    sizes = {"num_layers": 1, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 32}
    model = torchvision_models.VisionTransformer(
        image_size=8, patch_size=4, num_classes=10, **sizes
    ).eval()
    with pytest.warns(VacuousGradientWarning):
        seen = observe(model, *pictures(8))
    found = searched(seen)
    assert found.blind == ("most of the gradient is exactly zero",) * 2
    assert found.conclusive == [False, False]
    nn.init.normal_(model.heads.head.weight, std=0.02)
    assert searched(observe(model, *pictures(8))).conclusive == [True, True]


class Faint(nn.Module):
    """A picture so faint that hardly anything of the gradient depends on it."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(48, 10)

    def forward(self, x):
        return self.layer(1e-4 * x.flatten(1))


@pytest.mark.parametrize("restarts", [1, 2])
def test_who_comes_far_down_from_there_has_told_pictures_apart(restarts):
    torch.manual_seed(0)
    seen = observe(Faint().double(), pictures(4)[0].double(), pictures(4)[1])
    sharp = Recipe(
        labels=known_labels,
        distance=squared_distance,
        optimizer=partial(VictimLBFGS, lr=1.0, longest=1.0),
        restarts=restarts,
        iterations=1,
    )
    assert searched(seen, sharp).conclusive == [False, False]
    found = searched(seen, replace(sharp, iterations=30))
    assert (found.images - pictures(4)[0]).abs().max() < 1e-2
    assert found.conclusive == [True, True]


def test_pictures_to_begin_with_from_elsewhere_are_not_taken_for_random_ones():
    seen = observe(smlp(generator=seeded()), *pictures())
    near = pictures()[0] + 1e-3
    assert searched(seen, SHORT, start=near).conclusive == [True, True]


def test_a_search_that_goes_on_elsewhere_still_knows_how_it_began():
    seen = observe(torchvision_model("efficientnet_b0"), *pictures(victims=1))
    first, second = (Search(seen, SHORT, generator=seeded()) for _ in range(2))
    next(first)
    second.load_state_dict(first.state_dict())
    assert second.result.blind == first.result.blind != ("",)
    old = first.state_dict()
    del old["indifference"]  # of an older version, which did not look
    third = Search(seen, SHORT, generator=seeded())
    third.load_state_dict(old)
    assert third.result.blind == ("",)


class Breaking:
    """A distance that fails in the steps of these numbers."""

    def __init__(self, *calls):
        self.calls, self.made = calls, 0

    def __call__(self, guess, target):
        self.made += guess.requires_grad  # or else it is asked for a comparison
        if self.made in self.calls:
            raise RuntimeError("out of luck")
        return squared_distance(guess, target)


def broken(*calls, **changes):
    scene = make_scene()
    recipe = replace(SHORT, distance=Breaking(*calls), **changes)
    return scene, Search(scene.seen, recipe, generator=seeded())


def test_before_its_first_step_a_search_has_found_nothing():
    _, search = broken(1)
    with pytest.raises(ValueError, match="found nothing: make a step"):
        _ = search.result
    with pytest.raises(RuntimeError, match="out of luck"):
        next(search)
    with pytest.raises(ValueError, match="found nothing: its first step failed"):
        _ = search.result


def test_what_broke_off_is_marked_and_cannot_be_scored_as_safe():
    scene, search = broken(3)
    next(search), next(search)
    assert search.result.outcome == ("running", "running")
    with pytest.raises(RuntimeError, match="out of luck"):
        next(search)
    found = search.result
    assert found.outcome == ("failed", "failed")
    assert found.conclusive == [False, False]
    assert found.images.isnan().all()
    assert "2 failed" in repr(found)
    with pytest.raises(ValueError, match="recovered holds NaN"):
        score(scene.pixels[:, 0].float(), found.pixels[:, 0].float())


def test_a_step_that_succeeds_after_all_mends_the_result():
    _, search = broken(2)
    next(search)
    with pytest.raises(RuntimeError):
        next(search)
    last = [*search][-1]
    assert last.iteration == 2
    assert search.result.outcome == ("exhausted", "exhausted")
    assert search.result.images.isfinite().all()


def test_victims_that_were_done_before_the_search_broke_keep_their_result():
    scene = make_scene()

    def distance(guess, target):
        distance.calls += 1
        if distance.calls == 3:
            raise RuntimeError("out of luck")
        done = torch.tensor([0.0, 1.0]) if distance.calls == 2 else 1.0
        return squared_distance(guess, target) * done

    distance.calls = 0
    recipe = replace(SHORT, distance=distance, tolerance=1e-30)
    search = Search(scene.seen, recipe, generator=seeded())
    with pytest.raises(RuntimeError, match="out of luck"):
        list(search)
    assert search.result.outcome == ("converged", "failed")
    assert search.result.images[0].isfinite().all()
    assert search.result.images[1].isnan().all()


def test_stopping_by_hand_is_no_failure():
    scene = make_scene()

    def interrupt(guess, target):
        interrupt.calls += 1
        if interrupt.calls == 2:
            raise KeyboardInterrupt
        return squared_distance(guess, target)

    interrupt.calls = 0
    search = Search(scene.seen, replace(IGA, distance=interrupt), generator=seeded())
    with pytest.raises(KeyboardInterrupt):
        list(search)
    assert search.result.outcome == ("running", "running")
    assert search.result.images.isfinite().all()
    assert scene.seen.normalisation is PHOTOS

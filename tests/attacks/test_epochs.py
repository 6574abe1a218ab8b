"""Several epochs in an order that nobody told: what is the same in every order."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import SGD

from precode_lib.attacks import (
    Recipe,
    Search,
    VictimLBFGS,
    known_labels,
    mean_picture,
    one_set,
    per_epoch,
    same_pictures,
    sorted_pixels,
)
from precode_lib.attacks.objectives import squared_distance
from precode_lib.federated import LocalTraining, observe

ORDER = [[0, 1, 2, 3], [2, 0, 3, 1]]
MATCH = Recipe(
    distance=squared_distance,
    optimizer=partial(VictimLBFGS, lr=1.0, longest=1.0),
    labels=known_labels,
    iterations=40,
)


def net(width=24):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, width), nn.Sigmoid())
    model = model.append(nn.Linear(width, 4)).double()
    for parameter in model.parameters():
        nn.init.uniform_(parameter, -0.5, 0.5)
    return model


def pictures(victims=2):
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(victims, 4, 3, 2, 2, generator=generator).double()
    return images, torch.ones(victims, 4, dtype=torch.int64)


def shuffled(lr=0.5, order=ORDER, batch_size=2, **options):
    """What clients send who shuffle, and the same without their order."""
    images, labels = pictures(**options)
    local = LocalTraining(4, lr, batch_size, order=order)
    seen = observe(net(), images, labels, local=local)
    return images, seen, replace(seen, local=replace(local, order=None))


def objective_at(seen, images, **changes):
    generator = torch.Generator().manual_seed(0)
    recipe = replace(MATCH, **changes)
    return next(Search(seen, recipe, generator=generator, start=images)).objective


def test_clients_use_their_pictures_in_the_order_they_are_told():
    """Against torch's own optimizer."""
    images, seen, _ = shuffled()
    for v, own in enumerate(images):
        model = net()
        optimizer = SGD(model.parameters(), lr=0.5)
        start = [p.detach().clone() for p in model.parameters()]
        for epoch in ORDER:
            for pair in (epoch[:2], epoch[2:]):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(
                    model(own[pair]), torch.tensor([1, 1])
                )
                loss.backward()
                optimizer.step()
        moved = zip(start, model.parameters(), strict=True)
        for sent, (a, b) in zip(seen.shared.dense().values(), moved, strict=True):
            torch.testing.assert_close(sent[v], a - b)


@pytest.mark.parametrize("order", [[[0, 4]], [[-1, 0]], [[]]])
def test_an_order_of_pictures_that_nobody_has_is_refused(order):
    with pytest.raises(ValueError, match=r"pictures|none of one"):
        LocalTraining(2, 0.1, order=order).batches(4)


def test_at_the_true_pictures_only_the_true_order_leaves_no_distance():
    images, seen, blind = shuffled()
    assert objective_at(seen, images).max() < 1e-24
    assert objective_at(blind, images).min() > 1e-8
    every = torch.cat([images[:, epoch] for epoch in ORDER], 1)
    free = per_epoch(blind, 2)
    assert objective_at(free, every).max() < 1e-24
    prior = {"prior": same_pictures(2), "prior_weight": 1.0}
    assert objective_at(free, every, **prior).max() < 1e-24
    assert objective_at(free, torch.cat([images, images], 1)).min() > 1e-8


def test_of_one_full_batch_an_epoch_the_order_does_not_matter():
    images, seen, blind = shuffled(batch_size=None)
    assert objective_at(blind, images).max() < 1e-24
    assert objective_at(seen, images[:, [3, 1, 0, 2]]).max() < 1e-24


@pytest.mark.parametrize("summary", [mean_picture, sorted_pixels])
def test_the_prior_is_blind_to_order_and_to_nothing_else(summary):
    images, _ = pictures()
    prior = same_pictures(2, summary=summary)
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        assert prior(torch.cat([images, images[:, order]], 1)).max() < 1e-24
    other = images.clone()
    other[:, 2] += 0.1
    assert prior(torch.cat([images, other], 1)).min() > 1e-5


def test_sorted_pixels_tell_sets_apart_that_have_the_same_mean():
    images, _ = pictures()
    other = images.clone()
    other[:, 0], other[:, 1] = images[:, 0] + 1, images[:, 1] - 1
    both = torch.cat([images, other], 1)
    assert same_pictures(2, summary=mean_picture)(both).max() < 1e-24
    assert same_pictures(2)(both).min() > 1e-3


def test_epochs_in_any_order_become_one_set_again():
    images, _ = pictures()
    every = torch.cat([images[:, order] for order in ORDER], 1)
    torch.testing.assert_close(one_set(every, 2), images)


def test_two_epochs_become_pictures_of_their_own_with_their_labels():
    _, seen, blind = shuffled()
    free = per_epoch(blind, 2)
    assert free.num_examples == 8 and free.labels.shape == (2, 8)
    assert free.local.batches(8) == [[0, 1], [2, 3], [4, 5], [6, 7]]
    with pytest.raises(ValueError, match="3 epochs take 6 steps, the clients made 4"):
        per_epoch(seen, 3)


def error(seen, images, start=None, **changes):
    generator = torch.Generator().manual_seed(0)
    search = Search(seen, replace(MATCH, **changes), generator=generator, start=start)
    for _ in search:
        pass
    found = search.result.images
    return ((found - images).norm() / images.norm()).item()


def test_near_the_pictures_a_search_that_knows_the_order_ends_at_them():
    images, seen, blind = shuffled()
    near = images + 0.1 * torch.randn(
        images.shape, generator=torch.Generator().manual_seed(5), dtype=images.dtype
    )
    assert error(seen, images, near) < 1e-3
    assert error(blind, images, near) > 1e-2


def test_training_that_has_learnt_its_class_says_little_of_the_pictures():
    """One class and a large rate: after the first step no slope is left."""
    images, seen, _ = shuffled(lr=5.0, victims=1)
    assert objective_at(seen, images).max() < 1e-20
    other = images.clone()
    other[:, 2:] = 0  # what the second mini-batch holds
    assert objective_at(seen, other).max() < 1e-20


def test_pictures_that_were_searched_for_become_one_set_as_they_are():
    images = pictures()[0]
    found = torch.cat([images, images.flip(1)], 1).requires_grad_()
    assert torch.equal(one_set(found, 2), images)
    with pytest.raises(ValueError, match="epochs must be at least 1"):
        one_set(found, 0)

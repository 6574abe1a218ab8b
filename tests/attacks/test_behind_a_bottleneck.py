"""What an attacker who knows about PRECODE does about its noise."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from precode_lib.attacks import IGA, Search
from precode_lib.attacks.objectives import cosine_distance
from precode_lib.bottleneck import with_precode
from precode_lib.data import PHOTOS
from precode_lib.federated import observe
from precode_lib.metrics import is_success, ssim
from precode_lib.models import mlp

RECIPE = replace(IGA, iterations=200)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def pixels():
    coarse = torch.rand(3, 3, 3, 3, generator=seeded())
    return nn.functional.interpolate(coarse, size=8, mode="bilinear")


@pytest.fixture(scope="module")
def noise():
    return torch.randn(3, 32, generator=seeded(1))


@pytest.fixture(scope="module")
def seen(pixels, noise):
    model = mlp((3, 8, 8), 4, depth=2, width=64, generator=seeded(2))
    model = with_precode(model, "fc", k=32, generator=seeded(3))
    images, labels = PHOTOS.normalise(pixels)[:, None], torch.tensor([[0], [3], [1]])
    return observe(model, images, labels, noise=[noise], normalisation=PHOTOS)


def succeeded(pixels, images):
    """Of which victims, from images (V, 1, C, H, W)."""
    found = PHOTOS.denormalise(images[:, 0]).clamp(0, 1)
    return is_success(ssim(pixels.double(), found.double())).tolist()


def searched(seen, recipe):
    search = Search(seen, recipe, generator=seeded(4))
    for _ in search:
        pass
    return search.result.images


def searched_by_hand(seen, noise):
    """IGA's loop with given noise, which is searched for too if it wants gradients."""
    images = torch.randn(3, 1, 3, 8, 8, generator=seeded(4)).requires_grad_()
    variables = [v for v in (images, noise) if v.requires_grad]
    optimizer = torch.optim.Adam(variables, lr=0.1)
    client, (low, high) = seen.client(), PHOTOS.box
    for iteration in range(RECIPE.iterations):
        factor = RECIPE.schedule(iteration, RECIPE.iterations)
        optimizer.param_groups[0]["lr"] = 0.1 * factor
        optimizer.zero_grad()
        guess = client(images, seen.labels, noise=[noise])
        cosine_distance(guess, seen.shared).sum().backward(inputs=variables)
        images.grad.sign_()
        optimizer.step()
        images.data.clamp_(low, high)
    return images.detach()


def test_fresh_noise_misleads_the_unchanged_search(seen, pixels):
    assert succeeded(pixels, searched(seen, RECIPE)) == [False] * 3


def test_leaving_out_what_the_noise_touches_brings_the_search_back(seen, pixels):
    up_to_the_encoder = replace(
        RECIPE, layers=lambda shared: shared.drop("*.decoder.*", "fc.layer.*")
    )
    assert succeeded(pixels, searched(seen, up_to_the_encoder)) == [True] * 3


def test_a_search_that_knew_the_noise_would_succeed(seen, pixels, noise):
    assert succeeded(pixels, searched_by_hand(seen, noise)) == [True] * 3


def test_searching_for_the_noise_too_brings_the_search_back(seen, pixels, noise):
    unknown = torch.randn(noise.shape, generator=seeded(5)).requires_grad_()
    found = searched_by_hand(seen, unknown)
    assert succeeded(pixels, found) == [True] * 3
    assert (torch.cosine_similarity(unknown.detach(), noise) > 0.9).all()


def test_wrong_noise_that_stays_the_same_does_not_help(seen, pixels):
    other = torch.randn(3, 32, generator=seeded(6))
    assert succeeded(pixels, searched_by_hand(seen, other)) == [False] * 3

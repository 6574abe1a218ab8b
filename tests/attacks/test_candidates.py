"""The attacker with candidates: at the bound, below it, blind, and on many models."""

from dataclasses import replace
from functools import partial
from math import sqrt
from statistics import NormalDist

import pytest
import torch
from scenes import make_scene
from torch import nn

from precode_lib.attacks import likeliest_candidate
from precode_lib.defenses import add_noise, clip, dp_sgd_step, reconstruction_bound
from precode_lib.federated import LocalTraining, observe


class OneNumber(nn.Module):
    """Logits (w x, 0): the gradient is a number whose sign is that of the example."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, images):
        scores = images * self.weight
        return torch.cat([scores, torch.zeros_like(scores)], 1)


def share_of_hits(model, candidates, labels, sigma, repeats):
    """How often the true candidate is found, each of them in turn."""
    step = partial(dp_sgd_step, clip_norm=0.01, generator=torch.Generator())
    count = len(candidates)
    seen = observe(
        model,
        candidates.repeat(repeats, *[1] * (candidates.dim() - 1)),
        labels.repeat(repeats, 1),
        client_step=partial(step, noise_multiplier=sigma),
    )
    found = likeliest_candidate(
        seen, candidates, labels, client_step=partial(step, noise_multiplier=0)
    )
    return (found.index == torch.arange(count).repeat(repeats)).double().mean().item()


@pytest.mark.parametrize("sigma", [0.5, 1.0, 3.0])
def test_between_two_opposite_numbers_it_meets_the_bound(sigma):
    """Φ(1 / σ) is both: the nearer of C and -C, and the bound for kappa = 1/2."""
    assert reconstruction_bound(0.5, noise_multiplier=sigma) == pytest.approx(
        NormalDist().cdf(1 / sigma), abs=1e-12
    )
    candidates = torch.tensor([[[1.0]], [[-1.0]]], dtype=torch.float64)
    labels = torch.zeros(2, 1, dtype=torch.int64)
    hits = share_of_hits(OneNumber(), candidates, labels, sigma, repeats=3000)
    expected = NormalDist().cdf(1 / sigma)
    assert abs(hits - expected) < 3.5 * sqrt(expected * (1 - expected) / 6000)


@pytest.mark.parametrize("sigma", [0.2, 0.35, 0.5, 1.0])
def test_on_a_network_it_stays_below_the_bound_and_far_above_guessing(sigma):
    scene = make_scene(victims=32)
    hits = share_of_hits(scene.model, scene.images, scene.labels, sigma, repeats=60)
    limit = reconstruction_bound(1 / 32, noise_multiplier=sigma)
    assert hits < limit + 3 * sqrt(limit * (1 - limit) / 1920)
    assert hits > 1.3 / 32


def test_without_noise_it_knows_and_behind_much_noise_it_guesses():
    scene = make_scene(victims=16)
    options = scene.model, scene.images, scene.labels
    assert share_of_hits(*options, 0.0, repeats=1) == 1.0
    assert share_of_hits(*options, 1e4, repeats=60) < 0.12


def test_the_nearest_message_wins_for_batches_updates_and_clipped_gradients():
    scene = make_scene(victims=6, batch=2)
    batches = scene.images, scene.labels
    for client in (
        {"local": LocalTraining(3, 0.1)},
        {"defense": partial(add_noise, std=1e-3, generator=torch.Generator())},
    ):
        seen = observe(scene.model, *batches, **client)
        found = likeliest_candidate(seen, *batches)
        assert found.index.tolist() == [*range(6)]
    # What it compares are messages: a distance to each, up to the seen one's own norm.
    sent = torch.cat([t.flatten(1) for t in seen.shared.dense().values()], 1)
    plain = observe(scene.model, *batches).shared.dense().values()
    plain = torch.cat([t.flatten(1) for t in plain], 1)
    distances = torch.cdist(sent, plain).square()
    expected = (sent.square().sum(1, keepdim=True) - distances) / 2
    torch.testing.assert_close(found.scores, expected)


def test_clipping_has_to_be_known():
    """Among messages of one direction the length decides, and the client changed it."""
    candidates = torch.tensor([[[1.0]], [[3.0]], [[9.0]]], dtype=torch.float64)
    labels = torch.zeros(3, 1, dtype=torch.int64)
    seen = observe(
        OneNumber(), candidates, labels, defense=partial(clip, max_norm=2.0)
    ).take(2)
    assert likeliest_candidate(seen, candidates, labels).index.item() == 1


def test_the_posterior_is_bayes_rule():
    scene = make_scene(victims=3)
    std = 0.05
    noise = partial(add_noise, std=std, generator=torch.Generator())
    seen = observe(scene.model, scene.images, scene.labels, defense=noise)
    found = likeliest_candidate(seen, scene.images, scene.labels)
    prior = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    sent, plain = (
        torch.cat([t.flatten(1) for t in o.shared.dense().values()], 1)
        for o in (seen, observe(scene.model, scene.images, scene.labels))
    )
    densities = torch.distributions.Normal(plain, std).log_prob(sent[:, None]).sum(2)
    weights = prior * (densities - densities.amax(1, keepdim=True)).exp()
    expected = weights / weights.sum(1, keepdim=True)
    torch.testing.assert_close(found.posterior(std, prior), expected)
    even = found.posterior(std)
    assert torch.equal(even.argmax(1), found.index)


def test_other_examples_than_the_observations_are_refused():
    scene = make_scene(victims=2)
    with pytest.raises(ValueError, match=r"\(1, 3, 8, 8\).*\(2, 3, 8, 8\)"):
        likeliest_candidate(
            scene.seen, scene.images.repeat(1, 2, 1, 1, 1), scene.labels.repeat(1, 2)
        )
    with pytest.raises(TypeError, match="client_step"):
        likeliest_candidate(scene.seen, scene.images, scene.labels, client_step=3)


def test_what_says_nothing_is_refused_and_no_guess():
    candidates, labels = torch.ones(3, 1, 1).double(), torch.zeros(3, 1).long()
    seen = observe(OneNumber(), candidates, labels)
    broken = replace(seen, shared=seen.shared.map(lambda t: t * torch.nan))
    with pytest.raises(ValueError, match="holds NaN"):
        likeliest_candidate(broken, candidates, labels)
    with pytest.raises(ValueError, match="candidates holds NaN"):
        likeliest_candidate(seen, candidates * torch.nan, labels)
    with pytest.raises(TypeError, match="takes an Observation"):
        likeliest_candidate(seen.shared, candidates, labels)
    found = likeliest_candidate(seen, candidates, labels)
    for prior in (torch.ones(2), torch.zeros(3), torch.tensor([-1.0, 1.0, 1.0])):
        with pytest.raises(ValueError, match="each of 3 candidates"):
            found.posterior(1.0, prior)

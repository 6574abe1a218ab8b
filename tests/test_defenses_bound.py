"""The reconstruction bound against its definition, its limits, and an attack."""

from math import sqrt
from statistics import NormalDist

import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import brentq

from precode_lib.defenses import reconstruction_bound


@pytest.mark.parametrize("kappa", [1 / 1000, 1 / 256, 0.1, 0.5])
@pytest.mark.parametrize(("sigma", "steps"), [(0.35, 1), (1.0, 1), (1.0, 9), (4.0, 3)])
def test_it_is_the_power_of_the_best_test_between_two_gaussians(kappa, sigma, steps):
    """Neyman and Pearson: the level is kappa where the message has no example in it."""
    apart = sqrt(steps) / sigma

    def density(x, mean):
        return NormalDist(mean, 1).pdf(x)

    threshold = brentq(lambda t: quad(density, t, 30, (0.0,))[0] - kappa, -10, 10)
    power = quad(density, threshold, threshold + 40, (apart,))[0]
    bound = reconstruction_bound(kappa, noise_multiplier=sigma, steps=steps)
    assert bound == pytest.approx(power, abs=1e-6)


def test_its_limits():
    assert reconstruction_bound(0.01, noise_multiplier=0) == 1
    assert reconstruction_bound(1.0, noise_multiplier=5.0) == 1
    assert reconstruction_bound(0.01, noise_multiplier=5.0, steps=0) == pytest.approx(
        0.01
    )
    far = reconstruction_bound(0.01, noise_multiplier=1e6)
    assert far == pytest.approx(0.01, rel=1e-4)


def test_the_likeliest_of_many_candidates_stays_below_it_and_comes_near():
    """One of N clipped gradients, at right angles; the best guess is the nearest."""
    candidates, sigma, tries = 64, 0.5, 4000
    generator = torch.Generator().manual_seed(0)
    noise = sigma * torch.randn(tries, candidates, generator=generator)
    noise[:, 0] += 1.0  # the true one is the first: by symmetry it may be
    share = (noise.argmax(1) == 0).double().mean().item()
    bound = reconstruction_bound(1 / candidates, noise_multiplier=sigma)
    margin = 3 * sqrt(share * (1 - share) / tries)
    assert share < bound + margin
    assert share > bound / 2


def test_nonsense_is_refused():
    for kappa in (0, -0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="kappa"):
            reconstruction_bound(kappa, noise_multiplier=1.0)
    with pytest.raises(ValueError, match="noise_multiplier"):
        reconstruction_bound(0.1, noise_multiplier=-1.0)

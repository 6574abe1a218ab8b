"""Markers for the exercises on distances that belong to a noise."""

from functools import partial
from math import log

import torch
from torch import Tensor

from precode_lib.attacks.likelihoods import rounding_distance
from precode_lib.defenses import (
    add_laplace_noise,
    add_noise,
    prune_at_random,
    quantise,
)
from precode_lib.gradients import Gradients
from precode_lib.marking import (
    exercise,
    expect_choice,
    expect_close,
    expect_number,
    open_question,
)

NOTEBOOKS_USE = ["DISTANCES", "own_and_shared"]
DISTANCES = ["squared", "absolute", "mixture", "coin"]

# Of the exercise by hand: what was shared, two candidates, and both noises' size.
SHARED = torch.tensor([0.0, 0.0, 0.0, 3.0])
CANDIDATES = {
    "A": torch.tensor([1.0, 1.0, 1.0, 2.0]),
    "B": torch.tensor([0.0, 0.0, 0.0, 0.0]),
}
SIZE = 0.2  # σ and b


@exercise
def by_hand(gaussian_a, gaussian_b, laplace_a, laplace_b, generator):
    """Put two candidates into both formulas."""
    came = {
        ("Gaussian", "A"): gaussian_a,
        ("Gaussian", "B"): gaussian_b,
        ("Laplace", "A"): laplace_a,
        ("Laplace", "B"): laplace_b,
    }
    for (noise, name), answer in came.items():
        apart = (SHARED - CANDIDATES[name]).abs()
        squares, sizes = apart.square().sum().item(), apart.sum().item()
        gaussian, laplace = squares / (2 * SIZE**2), sizes / SIZE
        if noise == "Gaussian":
            right, other, bare = gaussian, laplace, squares
            mistakes = {
                "the 2 below the square is missing.": squares / SIZE**2,
                "σ is squared below.": squares / (2 * SIZE),
            }
        else:
            right, other, bare = laplace, gaussian, sizes
            mistakes = {
                "b is not squared.": sizes / SIZE**2,
                "there is no 2 here.": sizes / (2 * SIZE),
            }
        mistakes |= {
            "divide by the size of the noise.": bare,
            "that is the other noise's formula.": other,
            "a distance is minus the logarithm: it is positive.": -right,
        }
        expect_number(
            answer,
            right,
            what=f"the distance of {name} behind {noise} noise",
            secret=True,
            hint="sum over the four entries.",
            mistakes=mistakes,
        )


@exercise
def outside_the_cell(learner, generator):
    """Try guesses inside, on both sides of, and far outside their cells."""
    for victims, entries, step in [(1, 4, 1.0), (3, 12, 0.25), (2, 7, 40.0)]:
        steps = torch.randint(-3, 4, (victims, entries), generator=generator)
        steps[:, 0] = 3  # the largest, which sets the step of a grid of three bits
        shared = steps * step
        off = 4 * torch.rand(victims, entries, generator=generator) - 2
        off[:, 1], off[:, 2] = 0.4, -0.4
        guess = shared + off * step
        excess = (off.abs() - 0.5).clamp_min(0)
        distance = rounding_distance(3)
        right = distance(Gradients({"g": guess}), Gradients({"g": shared}))
        expect_close(
            learner(guess, shared, step),
            right,
            what="the distance of each victim",
            given={"guess": guess, "shared": shared, "step": step},
            hint="how many steps are all entries outside of their cells, squared?",
            rtol=1e-4,
            atol=1e-5,
            mistakes={
                "inside its cell an entry costs nothing: half a step is free.": (
                    off.square().sum(1)
                ),
                "a cell reaches half a step to each side, not a whole one.": (
                    (off.abs() - 1).clamp_min(0).square().sum(1)
                ),
                "measure in steps: divide by the step.": (
                    (excess * step).square().sum(1)
                ),
                "square what is outside before you add up.": excess.sum(1),
                "a guess may be outside below as well: take the size.": (
                    (off - 0.5).clamp_min(0).square().sum(1)
                ),
                "an entry inside is not better than one at the wall: at least 0.": (
                    (off.abs() - 0.5).square().sum(1)
                ),
                "one number for each victim: sum over its entries only.": (
                    excess.square().sum()
                ),
                "the sum of the entries, not their mean.": excess.square().mean(1),
            },
        )


@exercise
def mixture(learner, generator):
    """Try near entries, and such that an exponential of either part is zero."""
    for ratio, scale, width in [(0.5, 1.0, 1.0), (0.2, 0.1, 1.0), (0.7, 0.01, 3.0)]:
        shared = width * torch.randn(2, 6, generator=generator)
        guess = shared + 2 * scale * torch.randn(2, 6, generator=generator)
        guess[:, 0] = -shared[:, 0]
        alone, below = shared.abs() / scale, (shared - guess).abs() / scale
        right = _mixture(alone, below, ratio)
        expect_close(
            learner(guess, shared, ratio, scale),
            right,
            what="the distance of each victim",
            given={"guess": guess, "shared": shared, "ratio": ratio, "scale": scale},
            hint="-log of r exp(-|g|/b) + (1 - r) exp(-|g - g'|/b), summed over "
            "entries; torch.logaddexp adds where exp would be 0.",
            rtol=1e-4,
            atol=1e-4,
            mistakes={
                "the ratio is the share that was dropped.": _mixture(
                    alone, below, 1 - ratio
                ),
                "these are Gaussian noises; Laplace has sizes, no squares.": _mixture(
                    alone.square() / 2, below.square() / 2, ratio
                ),
                "the logarithm of the ratios is missing.": -torch.logaddexp(
                    -alone, -below
                ).sum(1),
                "minus the logarithm: the better guess has the smaller one.": -right,
                "a sum of logarithms is a product: first add, then the logarithm.": (
                    alone + below - log(ratio) - log(1 - ratio)
                ).sum(1),
                "exp gives 0 here, and its logarithm is infinite: torch.logaddexp.": (
                    -(ratio * (-alone).exp() + (1 - ratio) * (-below).exp()).log()
                ).sum(1),
                "divide by the scale in both parts.": _mixture(
                    alone * scale, below * scale, ratio
                ),
                "one number for each victim: sum over its entries only.": right.sum(),
                "the sum of the entries, not their mean.": right / 6,
            },
        )


def _mixture(alone: Tensor, below: Tensor, ratio: float) -> Tensor:
    parts = log(ratio) - alone, log(1 - ratio) - below
    return -torch.logaddexp(*parts).sum(1)


def own_and_shared(client: str) -> tuple[Tensor, Tensor]:
    """What a client computed, and what came of it: 5,000 entries each."""
    generator = torch.Generator().manual_seed(3)
    own = Gradients({"g": torch.randn(1, 5000, generator=generator)})
    shared = _NOISES[client](own, generator=generator)
    return own["g"][0], shared["g"][0]


def _prune_then_add(gradients: Gradients, generator: torch.Generator) -> Gradients:
    pruned = prune_at_random(gradients, 0.5, generator=generator)
    return add_noise(pruned, 0.5, generator=generator)


_NOISES = {
    "A": partial(add_laplace_noise, std=0.5),
    "B": _prune_then_add,
    "C": partial(quantise, bits=3),
    "D": partial(add_noise, std=0.5),
}


@exercise
def nobody_told(a, b, c, d, generator):
    """Compare with the noises that were drawn."""
    right = {"A": "absolute", "B": "mixture", "C": "coin", "D": "squared"}
    looks = {
        "A": "its differences have more outliers than a Gaussian of the same spread: "
        "how many are beyond three standard deviations?",
        "B": "plot what was shared against its own numbers: what of those that were "
        "large and came as nearly nothing?",
        "C": "how many different numbers came?",
        "D": "no number is special, and hardly a difference is beyond three standard "
        "deviations.",
    }
    for client, came in zip(right, (a, b, c, d), strict=True):
        others = set(DISTANCES) - {right[client]}
        expect_choice(
            came,
            right[client],
            dict.fromkeys(others, looks[client]),
            what=f"the distance for client {client}",
        )


@exercise
def clipped(text, generator):
    """Leave the judgement to a person."""
    return open_question(
        text,
        mentions="that an unknown factor gives each guess its best length, which "
        "leaves the cosine; that who knows the length C clips the guess as well; that "
        "a gradient shorter than C comes as it is, so that then its length counts; "
        "that clipping each layer by itself gives each layer its own factor; and, "
        "if noise was added, that the noise decides between squares and sizes.",
        mistakes=[
            '"clipping is noise": it draws nothing; known, it can be repeated.',
            '"always the cosine": a length that was not clipped does tell something.',
        ],
    )

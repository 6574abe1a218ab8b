"""Markers for the exercises on matching directions."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from precode_lib.attacks import IGA, Search
from precode_lib.attacks.objectives import (
    cosine_distance,
    squared_distance,
    total_variation,
)
from precode_lib.data import Pictures
from precode_lib.federated import observe
from precode_lib.marking import (
    exercise,
    expect_choice,
    expect_close,
    expect_number,
    open_question,
)
from precode_lib.metrics import score
from precode_lib.models import smlp

NOTEBOOKS_USE = ["FACTORS", "attack_scaled"]
FACTORS = [0.03, 0.1, 0.3, 1, 3, 10, 100]
DISTANCES = {"distance": squared_distance, "angle": cosine_distance}


@exercise
def by_hand(angle, angle_doubled, squared, squared_doubled, tv, generator):
    """Compute all five with PyTorch."""
    guess, g = torch.tensor([4.0, 3.0]), torch.tensor([3.0, 4.0])
    cosine = F.cosine_similarity(guess, g, dim=0).item()
    apart = (guess - g).square().sum().item()
    for answer, what in ((angle, "angle"), (angle_doubled, "angle_doubled")):
        expect_number(
            answer,
            1 - cosine,
            what=what,
            secret=True,
            hint="1 minus the inner product over the product of the lengths.",
            mistakes={
                "this is the cosine; the distance is 1 minus it.": cosine,
                "a factor of g is in its length, too, and cancels.": 1 - 2 * cosine,
                "the inner product has to be divided by both lengths.": (
                    1 - (guess @ g).item() / 5
                ),
            },
        )
    apart_doubled = (guess - 2 * g).square().sum().item()
    for answer, right, what in (
        (squared, apart, "squared"),
        (squared_doubled, apart_doubled, "squared_doubled"),
    ):
        expect_number(
            answer,
            right,
            what=what,
            secret=True,
            hint="subtract entry by entry, square, and sum.",
            mistakes={
                "this is the distance; asked is its square.": right**0.5,
                "only g is doubled, not the difference.": 4 * apart,
                "doubling g does change this distance.": apart,
                "a sum, not a mean.": right / 2,
            },
        )
    picture = torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 1.0]])
    right = total_variation(picture[None]).item()
    expect_number(
        tv,
        right,
        what="tv",
        secret=True,
        hint="four steps from column to column, three from row to row; a mean of each.",
        mistakes={
            "two means, each over its own steps; this is the mean over all seven.": (
                3 / 7
            ),
            "these are sums of steps; take the means.": 3.0,
            "the steps from row to row are missing.": 1 / 2,
            "the steps from column to column are missing.": 1 / 3,
            "the mean of the two means; TV is their sum.": right / 2,
        },
    )


@exercise
def objective(learner, generator):
    """Compare for gradients of several parts and scales; pictures are not square."""
    for scale, alpha, (height, width) in [
        (1.0, 0.1, (3, 5)),
        (100.0, 0.5, (4, 2)),
        (0.01, 0.0, (2, 6)),
    ]:
        shapes = [(4, 6), (4,), (3, 4), (3,)]
        target = [torch.randn(shape, generator=generator) for shape in shapes]
        # The last layer's part is the longest, as in networks with small weights.
        target[2] = 5 * target[2]
        guess = [g + torch.randn(g.shape, generator=generator) for g in target]
        target = [scale * g for g in target]
        image = torch.rand(3, height, width, generator=generator)
        expect_number(
            learner(guess, target, image, alpha),
            (1 - _cosine(guess, target) + alpha * total_variation(image[None])).item(),
            what="the objective",
            given={"scale of g": scale, "alpha": alpha, "image": image},
            hint="put all parts into one long vector first; then equation 1, with the "
            "two means of equation 2.",
            mistakes=_objectives_gone_wrong(guess, target, image, alpha),
        )


def _cosine(guess: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor:
    one, other = (torch.cat([part.flatten() for part in g]) for g in (guess, target))
    return F.cosine_similarity(one, other, dim=0)


def _objectives_gone_wrong(guess, target, image, alpha) -> dict[str, float]:
    angle, tv = 1 - _cosine(guess, target), total_variation(image[None])
    pairs = list(zip(guess, target, strict=True))
    each = torch.stack([_cosine([mine], [theirs]) for mine, theirs in pairs])
    squared = sum((mine - theirs).square().sum() for mine, theirs in pairs)
    steps = [image.diff(dim=axis).abs() for axis in (1, 2)]
    sums = sum(step.sum() for step in steps)
    wrong = {
        "one angle over all parameters, not the mean of one for each.": (
            1 - each.mean() + alpha * tv
        ),
        "one angle over all parameters, not a sum of one for each.": (
            (1 - each).sum() + alpha * tv
        ),
        "this is the cosine; the distance is 1 minus it.": 1 - angle + alpha * tv,
        "lengths are compared here, as DLG does; compare directions.": (
            squared + alpha * tv
        ),
        "the total variation is missing.": angle,
        "the total variation is not weighed by alpha.": angle + tv,
        "TV is made of means over the steps, not of sums.": angle + alpha * sums,
        "each mean is over its own steps: there are not as many of both.": (
            angle + alpha * sums / sum(step.numel() for step in steps)
        ),
    }
    return {hint: float(value) for hint, value in wrong.items()}


@exercise
def step(learner, generator):
    """Try steep, flat and no slopes, and boxes that differ from channel to channel."""
    for height, width, lr in [(3, 3, 0.1), (2, 5, 0.5), (4, 3, 2.0)]:
        lower = -1 - torch.rand(3, generator=generator)
        upper = 1 + torch.rand(3, generator=generator)
        x = 1.5 * torch.randn(3, height, width, generator=generator)
        slope = torch.randn(3, height, width, generator=generator).pow(3)
        slope[:, 0, 0] = 0
        low, high = lower[:, None, None], upper[:, None, None]
        moved = x - lr * slope.sign()
        wrong = {
            "this is not in the box: clip after the step.": moved,
            "each pixel moves by lr, whatever the size of its slope: take the sign.": (
                (x - lr * slope).clamp(low, high)
            ),
            "this goes uphill: step against the slope.": (
                (x + lr * slope.sign()).clamp(low, high)
            ),
            "clip *after* the step; this may have left the box again.": (
                x.clamp(low, high) - lr * slope.sign()
            ),
            "the box is that of normalised pictures, not [0, 1].": moved.clamp(0, 1),
        }
        if width == 3:
            wrong["lower and upper belong to channels, not to columns."] = moved.clamp(
                lower, upper
            )
        expect_close(
            learner(x, slope, lr, lower, upper),
            moved.clamp(low, high),
            what="the next guess",
            given={"x": x, "lr": lr, "lower": lower, "upper": upper},
            hint="x minus lr times the sign of the slope; then, channel by channel, "
            "not below lower and not above upper.",
            mistakes=wrong,
        )


def attack_scaled(photo: Pictures, factor: float, measure: str) -> Tensor:
    """Pixels (1, C, H, W) by IGA from a gradient times the factor.

    Args:
        photo: of one client.
        factor: what every entry of the gradient is multiplied by.
        measure: "angle", or "distance" for DLG's in the same search.
    """
    seen = observe(
        smlp(width=64, generator=torch.Generator().manual_seed(0)),
        photo.images[:, None],
        photo.labels[:, None],
        defense=lambda shared: shared.map(lambda tensor: factor * tensor),
        normalisation=photo.normalisation,
    )
    recipe = replace(
        IGA, iterations=100, prior_weight=1e-3, distance=DISTANCES[measure]
    )
    search = Search(seen, recipe, generator=torch.Generator().manual_seed(1))
    for _ in search:
        pass
    return search.result.pixels[:, 0]


@cache
def likenesses(measure: str, factors: tuple[float, ...]) -> list[float]:
    """SSIM of the attack at each factor."""
    from precode_lib.data import victims

    photo = victims("photos", 1)
    found = [attack_scaled(photo, factor, measure) for factor in factors]
    return [score(photo.pixels, pixels).ssim.item() for pixels in found]


@exercise
def scaled(smallest, largest, better, generator):
    """Run the attack by distance at every factor, and both at factor 1."""
    ssim = likenesses("distance", tuple(FACTORS))
    good = [f for f, value in zip(FACTORS, ssim, strict=True) if value >= 0.6]
    for answer, right, what in (
        (smallest, good[0], "smallest"),
        (largest, good[-1], "largest"),
    ):
        beside = FACTORS.index(right) + (-1 if what == "smallest" else 1)
        expect_number(
            answer,
            right,
            what=what,
            secret=True,
            hint='choose "distance", and look where SSIM is at least 0.6.',
            mistakes={
                "the picture can be made out, but SSIM is below 0.6.": FACTORS[beside],
                "that holds for the angle; asked is the distance.": (
                    FACTORS[0] if what == "smallest" else FACTORS[-1]
                ),
            },
        )
    at_one = {m: likenesses(m, (1,))[0] for m in DISTANCES}
    right = max(at_one, key=at_one.get)
    (other,) = set(at_one) - {right}
    hint = "set the factor to 1, and compare the two SSIM."
    expect_choice(better, right, {other: hint}, what="better")


@exercise
def turned_around(text, generator):
    """Leave the judgement to a person."""
    return open_question(
        text,
        mentions="that an angle forgives positive factors only: the search looks for a "
        "picture with the opposite gradient, and its objective stays far from zero; "
        "that the last layer's bias gradient has one positive entry instead of one "
        "negative; that the attacker tries both signs and keeps the smaller "
        "objective; and that the server must know of the sign to train, so it is no "
        "secret from it.",
        mistakes=[
            '"the cosine is the same": it changes its sign.',
            '"training still works": with -g the model climbs, unless the server '
            "turns it back.",
        ],
    )

"""Markers for the exercises on whether PRECODE is safe."""

from functools import cache, partial
from math import comb, exp, log
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from precode_lib.attacks.closed_form import invert_linear
from precode_lib.bottleneck import with_precode
from precode_lib.data import victims
from precode_lib.defenses import dp_sgd_step
from precode_lib.federated import observe
from precode_lib.marking import (
    drawn,
    exercise,
    expect,
    expect_choice,
    expect_close,
    expect_number,
    listed,
    numbers_of,
    open_question,
)
from precode_lib.metrics import score
from precode_lib.models import smlp

NOTEBOOKS_USE = ["LEVELS", "divided"]
LEVELS = [0, 1e-4, 3e-4, 1e-3, 1e-2, 1e-1]


@exercise
def by_hand(dW, db, picture, noisy_picture, generator):
    """Clip the gradient in the text as one vector, and divide."""
    gradient = torch.tensor([2.0, 2.0, 1.0])
    clipped = gradient / gradient.norm()
    apart = torch.cat([gradient[:2] / gradient[:2].norm(), gradient[2:]])
    for came, part, name in [(dW, slice(0, 2), "dW"), (db, 2, "db")]:
        expect_close(
            came,
            clipped[part],
            what=f"the clipped {name}",
            secret=True,
            hint="the length of all three numbers together is 3.",
            rtol=1e-3,
            mistakes={
                "not clipped yet: its length is more than 1.": gradient[part],
                "one factor for the whole gradient, not one for each part.": apart[
                    part
                ],
                "the whole vector is shortened; its entries are not cut off at 1.": (
                    gradient.clamp(max=1)[part]
                ),
                "divide by the length, the root of the sum of squares.": (
                    gradient / gradient.square().sum()
                )[part],
                "the length is the root of the sum of squares, not the sum.": (
                    gradient / gradient.sum()
                )[part],
            },
        )
    expect_close(
        picture,
        gradient[:2] / gradient[2],
        what="the picture",
        secret=True,
        hint="the clipped dW over the clipped db.",
        rtol=1e-3,
        mistakes={
            "this is the clipped dW: divide it by the clipped db.": clipped[:2],
            "over the db before the clipping; use the one that was sent.": (
                clipped[:2] / gradient[2]
            ),
            "the unclipped dW over the clipped db; use what was sent.": (
                gradient[:2] / clipped[2]
            ),
        },
    )
    expect_close(
        noisy_picture,
        clipped[:2] / (clipped[2] + 1 / 3),
        what="the picture after the noise",
        secret=True,
        hint="only the denominator has changed, from 1/3 to 2/3.",
        rtol=1e-3,
        mistakes={
            "that is the picture without the noise.": gradient[:2],
            "the noise comes after the clipping and changes db alone: 1/3 + 1/3.": (
                gradient[:2] / (gradient[2] + 1 / 3)
            ),
        },
    )


@exercise
def label_without_bias(learner, generator):
    """Try every class, behind features of positive and of negative sum."""
    for num_classes, sharpness in [(10, 0.1), (3, 1.0), (5, 2.0)]:
        for right in range(num_classes):
            features = torch.randn(8, generator=generator, dtype=torch.float64)
            if right % 2 == (features.sum() > 0):
                features = -features
            logits = sharpness * torch.randn(num_classes, generator=generator)
            delta = logits.softmax(0) - F.one_hot(torch.tensor(right), num_classes)
            dW = torch.outer(delta.double(), features)
            expect_number(
                learner(dW),
                right,
                what="the label",
                given={"dW": dW, "row sums": dW.sum(1)},
                hint="one row points against all others, and is longer than each.",
                mistakes={
                    "the least row sum: behind PRECODE features have both signs.": (
                        float(dW.sum(1).argmin())
                    ),
                    "the largest row sum: features have both signs.": float(
                        dW.sum(1).argmax()
                    ),
                    "the row of the least length; which one is special?": float(
                        dW.norm(dim=1).argmin()
                    ),
                    "count classes from 0, as PyTorch does.": right + 1.0,
                },
            )


@exercise
def seen_alone(learner, generator):
    """Try batches of which some, all or none of the pictures can be seen alone."""
    for alone, batch in [([0, 2], 3), ([0, 1, 2, 3], 4), ([], 2), ([1], 2)]:
        draw = partial(_pictures_and_deltas, alone, batch, generator)
        pictures, delta = drawn(draw, _differs_from_mixtures)
        dW, db = delta @ pictures, delta.sum(1)
        came = learner(dW, db)
        _expect_pictures(came, pictures[alone], dW, db)


def _pictures_and_deltas(
    alone: list[int], batch: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    # On a grid, so that quotients rounded to any place agree where their pictures do.
    tenths = (10 * torch.randn(batch, 12, generator=generator)).round()
    return tenths / 10 + 0.02, _deltas(alone, batch, generator)


def _differs_from_mixtures(case: tuple[Tensor, Tensor]) -> bool:
    """Whether quotients agree only where they are of the same picture."""
    pictures, delta = case
    delta = delta[delta.abs().sum(1) > 0]
    total = delta.sum(1, keepdim=True)
    if total.abs().min() < 0.05:  # hardly a unit that was on
        return False
    quotients = delta / total @ pictures
    largest = quotients.abs().amax(1)
    apart = (quotients[:, None] - quotients).abs().amax(2)
    is_close = apart < 0.1 * (1 + torch.maximum(largest[:, None], largest))
    shown = delta != 0
    is_same = (shown[:, None] == shown).all(2) & (shown.sum(1) == 1)
    is_same.fill_diagonal_(True)
    return bool((is_same | ~is_close).all())


def _deltas(alone: list[int], batch: int, generator: torch.Generator) -> Tensor:
    """(units, B): two units for each picture seen alone, mixtures, and silence."""
    own = F.one_hot(torch.tensor([*alone, *alone], dtype=torch.long), batch)
    mask = torch.cat([own, torch.ones(4, batch), torch.zeros(2, batch)])
    signs = torch.randint(2, mask.shape, generator=generator) * 2 - 1
    sizes = 0.2 + torch.rand(mask.shape, generator=generator)
    delta = mask * signs * sizes
    # A unit that saw one picture alone, but has nobody to agree with it.
    lonely = torch.zeros(1, batch)
    if alone != list(range(batch)):
        missing = next(i for i in range(batch) if i not in alone)
        lonely[0, missing] = 1.0
    delta = torch.cat([delta, lonely])
    return delta[torch.randperm(len(delta), generator=generator)]


def _expect_pictures(came: Any, right: Tensor, dW: Tensor, db: Tensor) -> None:
    wanted = f"{len(right)} pictures here, a tensor of shape {tuple(right.shape)}"
    came = _as_table(came, wanted, dW.shape[1])
    expect(
        bool(came.isfinite().all()),
        "the result holds NaN or infinity.",
        hint="a unit that was off sent zeros: leave it out before you divide.",
    )
    near = torch.cdist(came.double(), right.double()) < 1e-2
    said = f"there should be {wanted}; got {len(came)}."
    expect(
        bool(near.any(1).all()),
        f"not right yet: {said} At least one of yours is none of them.",
        hint="one row alone proves nothing, it may be a mixture: keep what two rows "
        "agree on.",
    )
    expect(
        bool((near.sum(0) <= 1).all()),
        f"not right yet: {said} Some are there twice.",
        hint="when rows agree, keep one of them.",
    )
    expect(
        bool(near.any(0).all()),
        f"not right yet: {said}",
        hint="compare every two rows, wherever they stand, with some tolerance for "
        "rounding.",
    )


def _as_table(came: Any, wanted: str, num_pixels: int) -> Tensor:
    """Pictures from whatever holds them; of none, an empty list is as good."""
    table = numbers_of(listed(came) if isinstance(came, frozenset) else came)
    if table is not None and not table.numel():
        table = torch.zeros(0, num_pixels)
    is_table = table is not None and table.ndim == 2 and not table.is_complex()
    shown = tuple(table.shape) if table is not None else f"{came!r:.60}"
    expect(
        is_table and table.shape[1] == num_pixels,
        f"the result should be {wanted}; got {shown}.",
        hint="torch.stack the pictures; of none, torch.zeros(0, n).",
    )
    return table


@cache
def divided(noise_multiplier: float) -> Tensor:
    """Pixels (4, 3, 32, 32) by division, from DP-SGD with PRECODE."""
    photos = victims("photos", 4)
    generator = torch.Generator().manual_seed(0)
    plain = smlp(width=256, generator=generator)
    step = partial(
        dp_sgd_step,
        clip_norm=1.0,
        noise_multiplier=noise_multiplier,
        generator=generator,
    )
    seen = observe(
        with_precode(plain, before="fc", generator=generator),
        photos.images[:, None],
        photos.labels[:, None],
        client_step=step,
        noise=generator,
        normalisation=photos.normalisation,
    )
    found = invert_linear(seen).images
    return photos.normalisation.denormalise(found).clamp(0, 1)


@exercise
def too_little_noise(clipping, multiplier, generator):
    """Divide at every level of the noise."""
    photos = victims("photos", 4)
    ssim = [score(photos.pixels, divided(x)).ssim.mean().item() for x in LEVELS]
    succeeds = [x for x, value in zip(LEVELS, ssim, strict=True) if value >= 0.6]
    expect_choice(
        clipping,
        "no" if LEVELS[0] in succeeds else "yes",
        {"yes": "with the multiplier 0 there is clipping and nothing else: look."},
        what="whether clipping alone stops the division",
    )
    after = LEVELS.index(succeeds[-1]) + 1
    expect_number(
        multiplier,
        succeeds[-1],
        what="the multiplier",
        secret=True,
        hint="move the slider from the left; the last value with 0.6 or more.",
        mistakes={
            "here the mean SSIM is below 0.6 already; one step back.": LEVELS[after],
            "the next step is still above 0.6.": LEVELS[after - 2],
        },
    )


@exercise
def accountant(learner, generator):
    """Try rare and usual pictures, one step and many, more and less noise."""
    cases = [(1.0, 0.04, 160, 1e-4), (2.0, 0.01, 1000, 1e-5), (0.9, 1.0, 1, 1e-5)]
    u, v = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
    cases.append((1 + u, 0.01 + 0.1 * v, 10 + int(90 * u), 1e-5))
    orders = [*range(2, 11)]
    for m, rate, steps, delta in cases:
        losses = {order: _renyi_loss(m, rate, order) for order in orders}
        cost = {order: log(1 / delta) / (order - 1) for order in orders}
        each = [steps * losses[order] + cost[order] for order in orders]
        expect_number(
            learner(m, rate, steps, delta, orders),
            min(each),
            what="epsilon",
            given={"m": m, "rate": rate, "steps": steps, "delta": delta},
            hint="check one order by hand: for 2 the sum has three terms.",
            mistakes={
                "one step; every step loses as much, and they add up.": min(
                    losses[order] + cost[order] for order in orders
                ),
                "the part with delta is missing.": min(
                    steps * losses[order] for order in orders
                ),
                "the largest over the orders; each bounds, so take the least.": max(
                    each
                ),
                "the first order alone; take the least over all.": each[0],
                "as if every picture were in every step: the rate is missing.": min(
                    steps * order / (2 * m**2) + cost[order] for order in orders
                ),
                "divide the logarithm of the sum by the order minus 1.": min(
                    steps * losses[order] * (order - 1) + cost[order]
                    for order in orders
                ),
            },
            rtol=1e-3,
        )


def _renyi_loss(m: float, rate: float, order: int) -> float:
    """Rényi divergence of one step of DP-SGD (Mironov et al. 2019, section 3.3)."""
    terms = (
        comb(order, j)
        * (1 - rate) ** (order - j)
        * rate**j
        * exp(j * (j - 1) / (2 * m**2))
        for j in range(order + 1)
    )
    return log(sum(terms)) / (order - 1)


@exercise
def convolution_first(text, generator):
    """Leave the judgement to a person."""
    return open_question(
        text,
        mentions="that the division and the units that saw one picture alone need a "
        "*linear* layer that sees the picture, and reveal features, not pixels, "
        "from a later one; that the search over the layers before the noise stays, "
        "weaker; that the search over all layers still fails, as long as it does not "
        "search for the noise too, which none of the lines does; and that labels stay "
        "as they are, for they come from the last layer's bias.",
        mistakes=[
            '"a convolution makes it safe": a failed division is no proof either.',
            '"the labels get harder": they never depended on the first layer.',
            '"all searches fail, so it is safe": the one that breaks such networks, '
            "for picture and noise at once, is not in the table.",
        ],
    )

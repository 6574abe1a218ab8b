"""Markers for the exercises on measuring leakage."""

from collections.abc import Iterator
from itertools import permutations
from math import prod

import torch
from torch import Generator, Tensor

from precode_lib.data import Pictures
from precode_lib.marking import exercise, expect_number, open_question
from precode_lib.metrics import NOTEBOOK, PAPER, UNIT, mse, psnr, reference_ssim, score

NOTEBOOKS_USE = ["AMOUNTS", "towards_negative"]
AMOUNTS = [0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1]


@exercise
def by_hand(error, decibels, tenth, normalised, generator):
    """Compare with the library's measures of a picture of 2 x 2 pixels."""
    x = torch.tensor([[[[0.2, 0.4], [0.6, 0.8]]]], dtype=torch.float64)
    found = torch.tensor([[[[0.3, 0.5], [0.5, 0.7]]]], dtype=torch.float64)
    right = mse(x, found).item()
    expect_number(
        error,
        right,
        what="error",
        secret=True,
        hint="square the four differences, then take their mean.",
        mistakes={
            "this is the sum of the squares; divide by four.": 4 * right,
            "this is the mean of the differences' sizes; square them first.": 0.1,
            "opposite signs must not cancel: square first, then take the mean.": 0.0,
        },
    )
    right = psnr(x, found).item()
    expect_number(
        decibels,
        right,
        what="decibels",
        secret=True,
        hint="divide 1 by the MSE, take the logarithm to base 10, times 10.",
        mistakes={
            "the logarithm is of 1 / MSE, not of 1 / (its root).": right / 2,
            "turn the fraction around: more decibels are better.": -right,
            "a decibel is a tenth: multiply the logarithm by 10.": right / 10,
        },
    )
    expect_number(
        tenth,
        psnr(x, x + (found - x) / 10).item(),
        what="tenth",
        secret=True,
        hint="which factor does the MSE change by, when every error is a tenth?",
        mistakes={
            "errors are squared: a tenth of each is a hundredth of the MSE.": right
            + 10,
            "decibels are a logarithm: a factor adds, it does not multiply.": 10
            * right,
            "smaller errors are better, and better is more decibels.": right - 20,
        },
    )
    right = mse((x - 0.5) / 0.25, (found - 0.5) / 0.25).item()
    expect_number(
        normalised,
        right,
        what="normalised",
        secret=True,
        hint="what happens to a difference, when both values are normalised?",
        mistakes={
            "each difference is divided by 0.25, and then squared.": right / 4,
            "the mean cancels in a difference, the division does not.": right / 16,
            "divide by the standard deviation, do not multiply.": right / 256,
        },
    )


def _windows(generator: Generator) -> Iterator[tuple[Tensor, Tensor, float]]:
    """Pairs of 7 x 7 windows and their range: pixels, normalised, then a negative."""
    x = 0.2 + 0.6 * torch.rand(7, 7, generator=generator, dtype=torch.float64)
    noise = 0.1 * torch.randn(7, 7, generator=generator, dtype=torch.float64)
    yield x, (x + noise).clamp(0, 1), 1.0
    image, other = (x - 0.5) / 0.25, (x + noise - 0.5) / 0.25
    yield image, other, 4.0
    yield image + 0.3, -image - 0.3, 4.0
    yield x, (1 - x + 0.3 * noise).clamp(0, 1), 1.0  # SSIM is negative
    yield torch.full_like(x, 0.5), torch.full_like(x, 0.4), 1.0


def _window_ssim(
    x: Tensor, y: Tensor, span: float, *, power: float = 2, n: int = 48
) -> Tensor:
    """Equation 13 of Wang et al. 2004, with the slips that are made in it."""
    c1, c2 = (0.01 * span) ** power, (0.03 * span) ** power
    cov = ((x - x.mean()) * (y - y.mean())).sum() / n
    var_x, var_y = (((p - p.mean()) ** 2).sum() / n for p in (x, y))
    luminance = (2 * x.mean() * y.mean() + c1) / (x.mean() ** 2 + y.mean() ** 2 + c1)
    return luminance * (2 * cov + c2) / (var_x + var_y + c2)


@exercise
def window_ssim(learner, generator):
    """Compare with scikit-image, of pixels and in the normalised space."""
    for x, y, span in _windows(generator):
        right = reference_ssim(x[None, None], y[None, None], data_range=span)
        luminance = _window_ssim(x.mean()[None], y.mean()[None], span)
        expect_number(
            learner(x, y, span),
            right.item(),
            what="SSIM",
            given={"x": x, "y": y, "span": span},
            hint="luminance times structure; compare each factor with the equation.",
            mistakes={
                "the constants do not know the range: both contain span.": (
                    _window_ssim(x, y, 1.0).item()
                ),
                "the constants are squares: (0.01 span)² and (0.03 span)².": (
                    _window_ssim(x, y, span, power=1).item()
                ),
                "sample variances divide by 48, as .var() does.": (
                    _window_ssim(x, y, span, n=49).item()
                ),
                "SSIM can be negative, as of a picture's negative; leave it so.": (
                    max(0.0, right.item())
                ),
                "without the constants; a flat window then divides by zero.": (
                    _window_ssim(x, y, 0.0).item()
                ),
                "this is the luminance alone.": luminance.item(),
                "this is the structure alone; where is the luminance?": (
                    right.item() / luminance.item()
                ),
            },
        )


def _similarities(generator: Generator) -> Iterator[Tensor]:
    """SSIM of every original (row) with every reconstruction (column)."""

    def around(*rows):
        table = torch.tensor(rows, dtype=torch.float64)
        jitter = 0.02 * torch.rand(table.shape, generator=generator)
        return (table + jitter)[:, torch.randperm(len(table), generator=generator)]

    yield torch.tensor([[0.6]], dtype=torch.float64)
    shift = int(torch.randint(1, 5, (), generator=generator))
    fits = 0.95 * torch.eye(5, dtype=torch.float64).roll(shift, 1)
    yield fits + 0.04 * torch.rand(5, 5, generator=generator)
    yield around([0.9, 0.2], [0.7, 0.3])
    yield around([0.9, 0.7], [0.8, 0.1])
    yield around([0.96, 0.61], [0.61, 0.32])  # another order has the largest product
    yield around([0.9, 0.62], [0.62, 0.25])  # and here, of squares
    yield torch.rand(4, 4, generator=generator, dtype=torch.float64)


def _greedy(table: Tensor) -> list[float]:
    """Of every row in turn the best column that is left."""
    left, found = table.clone(), []
    for row in left:
        found.append(row.max().item())
        left[:, int(row.argmax())] = -1
    return found


def _paired(table: Tensor, worth, total=sum) -> list[float]:
    """The pairs of which the worth adds up to most, by trying all orders."""
    rows = range(len(table))
    orders = (
        [table[i, j].item() for i, j in zip(rows, o, strict=True)]
        for o in permutations(rows)
    )
    return max(orders, key=lambda pairs: total(map(worth, pairs)))


@exercise
def success_rate(learner, generator):
    """Compare with the best of all orders of a batch, up to five pictures."""

    def rate(similarities):
        return sum(s >= 0.6 for s in similarities) / len(similarities)

    for table in _similarities(generator):
        pairs = _paired(table, lambda s: s)
        expect_number(
            learner(table),
            rate(pairs),
            what="the success rate",
            given={"similarity": table},
            hint="try all orders of the columns, keep the one with the largest sum.",
            mistakes={
                "an SSIM equal to the threshold is a success.": (
                    sum(s > 0.6 for s in pairs) / len(pairs)
                ),
                "this is the best order for the *number* of successes; the one that "
                "fits best is asked for, before anyone looks at a threshold.": (
                    rate(_paired(table, lambda s: s >= 0.6))
                ),
                "the largest *sum* is asked for, not the largest product.": (
                    rate(_paired(table, lambda s: s, prod))
                ),
                "the largest sum of SSIM is asked for, not of its squares.": (
                    rate(_paired(table, lambda s: s * s))
                ),
                "each answer belongs to one picture: here one is used twice.": (
                    rate(table.amax(1).tolist())
                ),
                "taking the best one left, picture after picture, can spoil a later "
                "pair: compare whole orders.": rate(_greedy(table)),
                "the order is unknown: the diagonal pairs picture i with answer i.": (
                    rate(table.diagonal().tolist())
                ),
                "this is a number of pictures; divide by the size of the batch.": (
                    rate(pairs) * len(table)
                ),
            },
        )


def towards_negative(photo: Pictures, amount: float) -> tuple[Tensor, dict[str, float]]:
    """Pixels (1, C, H, W) on the way to the negative, and SSIM by convention."""
    space = photo.normalisation
    negative = space.denormalise(-photo.images).clamp(0, 1)
    changed = photo.pixels + amount * (negative - photo.pixels)
    ssim = {
        convention.name: score(
            photo.pixels, changed, convention=convention, normalisation=space
        ).ssim.item()
        for convention in (UNIT, PAPER, NOTEBOOK)
    }
    return changed, ssim


@exercise
def negative(lowest, again, generator):
    """Score the photograph at every amount."""
    from precode_lib.data import victims

    photo = victims("photos", 21)[20:]
    table = [towards_negative(photo, amount)[1] for amount in AMOUNTS]
    ssim = {name: [row[name] for row in table] for name in table[0]}
    bottom = ssim["notebook"].index(min(ssim["notebook"]))
    expect_number(
        lowest,
        AMOUNTS[bottom],
        what="lowest",
        secret=True,
        hint="follow the line called notebook from the left until it turns.",
        mistakes={
            "that is where SSIM of plain pixels (unit) is lowest.": AMOUNTS[
                ssim["unit"].index(min(ssim["unit"]))
            ],
            "from here on paper reads zero; look at notebook.": AMOUNTS[
                ssim["paper"].index(0)
            ],
            "at the end there is a full negative, but notebook has turned before.": (
                AMOUNTS[-1]
            ),
        },
    )
    later = [i for i in range(bottom, len(AMOUNTS)) if ssim["notebook"][i] >= 0.6]
    expect_number(
        again,
        AMOUNTS[later[0]],
        what="again",
        secret=True,
        hint="beyond the lowest point, the first amount with notebook at 0.6 or more.",
        mistakes={
            "here notebook still is below 0.6; one step further.": AMOUNTS[
                later[0] - 1
            ],
            "a success, but not the first after the lowest point.": AMOUNTS[later[-1]],
            "that is on the way down; go beyond the lowest point.": AMOUNTS[
                max(i for i in range(bottom) if ssim["notebook"][i] >= 0.6)
            ],
        },
    )


@exercise
def two_tables(text, generator):
    """Leave the judgement to a person."""
    return open_question(
        text,
        mentions="the space and range in which SSIM was taken, the threshold, how "
        "batches were paired and restarts chosen, how many pictures of which data, the "
        "spread, and what a baseline that never saw the gradient scores. The best "
        "repair: score both sets of pictures with one convention.",
        mistakes=[
            '"80 % beats 60 %": the same pictures can give both numbers.',
            '"use PSNR instead": it has a space and a peak, too, and likes flat '
            "pictures.",
        ],
    )

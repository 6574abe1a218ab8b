"""Markers for the exercises on noise."""

from functools import lru_cache, partial
from math import exp, log

import torch
from torch import Tensor

from precode_lib.data import Pictures
from precode_lib.federated import observe
from precode_lib.marking import (
    exercise,
    expect_close,
    expect_number,
    expect_repeatable,
    open_question,
)
from precode_lib.models import smlp

NOTEBOOKS_USE = ["ROUNDS", "SIGMAS", "leak_of_the_mean"]
SIGMAS = [0.01, 0.02, 0.04, 0.08]
ROUNDS = [1, 4, 16, 64, 256]
ENOUGH = 0.8  # SSIM


def _belief(epsilon: float) -> float:
    """The most that someone who gave even odds can come to believe."""
    return exp(epsilon) / (1 + exp(epsilon))


@exercise
def by_hand(after_one, after_two, left, rounds, generator):
    """Compare with Bayes' rule and with the spread of a mean."""
    expect_number(
        after_one,
        _belief(log(3)),
        what="after_one",
        secret=True,
        hint="odds of 1 : 1 become at most e^ε : 1; what probability is that?",
        mistakes={
            "these are odds; a probability is odds / (1 + odds).": 3.0,
            "that is the probability that it was *not* in the set.": 0.25,
            "ε itself is not a probability; the odds change by e^ε.": log(3),
            "the odds are multiplied, not the probability.": 1.5,
        },
    )
    expect_number(
        after_two,
        _belief(2 * log(3)),
        what="after_two",
        secret=True,
        hint="the second release multiplies the odds once more.",
        mistakes={
            "each release multiplies the odds: factors do not add.": 6 / 7,
            "these are odds; a probability is odds / (1 + odds).": 9.0,
            "that is one release; the promise is used up twice.": _belief(log(3)),
            "multiply odds, not probabilities.": 9 / 16,
        },
    )
    expect_number(
        left,
        0.6 / 36**0.5,
        what="left",
        secret=True,
        hint="variances of independent numbers add up; a mean divides by the count.",
        mistakes={
            "the variance shrinks by 36, its root by less.": 0.6 / 36,
            "independent noise cancels in part when it is averaged.": 0.6,
            "that is the noise of the sum; a mean divides it by 36.": 0.6 * 6,
            "that is a variance; take the root.": 0.36 / 36,
        },
    )
    expect_number(
        rounds,
        (0.6 / 0.05) ** 2,
        what="rounds",
        secret=True,
        hint="solve 0.6 / √R = 0.05 for R.",
        mistakes={
            "half the noise needs four times as many rounds.": 72.0,
            "that is the root of the number.": 12.0,
        },
    )


# The layer of the second exercise: units, those that are on, |delta| of each of these.
UNITS, ON, DELTA = 900, 100, 0.02


@exercise
def loudness(one_row, all_rows, units, shared, generator):
    """Compare with the chapter's formula, for noise of 0.01 and a mean square of 3."""
    sigma, factor, norm = 0.01, (1 + 3) ** 0.5, DELTA * ON**0.5
    one, every = sigma / DELTA * factor, sigma / norm * factor
    expect_number(
        one_row,
        one,
        what="one_row",
        secret=True,
        hint="the first line of the formula, with |δ| = 0.02.",
        mistakes={
            "the root of 1 + x² is missing: the bias entry is noisy, too.": one
            / factor,
            "the 1 under the root is missing: the weights are noisy, too.": (
                sigma / DELTA * 3**0.5
            ),
            "1 + x² is under a root.": sigma / DELTA * factor**2,
        },
    )
    expect_number(
        all_rows,
        every,
        what="all_rows",
        secret=True,
        hint="‖δ‖ takes the place of |δ|: the root of the sum of a hundred squares.",
        mistakes={
            "the root of 1 + x² is missing here.": every / factor,
            "that is the error of one row.": one,
            "‖δ‖ is the root of the sum of squares, not the sum.": one / ON,
            "the units that are off have δ = 0, and add nothing to ‖δ‖.": (
                one / UNITS**0.5
            ),
        },
    )
    expect_number(
        units,
        4 * ON,
        what="units",
        secret=True,
        hint="‖δ‖ has to be twice as large; how does it grow with the units?",
        mistakes={
            "twice the units make ‖δ‖ larger by the root of two only.": 2 * ON,
            "those are the units to be added; asked for is how many there are.": 3 * ON,
        },
    )
    right = sigma * UNITS**0.5 / norm
    expect_number(
        shared,
        right,
        what="shared",
        secret=True,
        hint="lengths: σ √(k n) of noise in every entry, ‖δ‖ s √n on the picture.",
        mistakes={
            "the rows of the units that are off had noise as well: k is 900.": (
                sigma * ON**0.5 / norm
            ),
            "there were k rows with noise, not one.": sigma / norm,
            "squares add, so the length grows with the root of k.": (
                sigma * UNITS / norm
            ),
            "compare with the length of all of δ.": sigma * UNITS**0.5 / DELTA,
        },
    )


@exercise
def all_rows(learner, generator):
    """Compare with a solver of least squares; rows differ in size and sign."""
    draw = partial(torch.randn, generator=generator, dtype=torch.float64)
    for num_rows, n, sigma in [(6, 4, 0.1), (40, 3, 0.3), (5, 2, 0.0)]:
        x, db = draw(n), draw(num_rows)
        db[0] = 0  # a unit that is off, and was sent without noise
        db = db - db.mean() + 0.05  # so that signs differ
        db[0] = 0
        dW = torch.outer(db, x) + sigma * draw(num_rows, n)
        db = torch.where(db == 0, 0, db + sigma * draw(num_rows))
        largest = db.abs().argmax()
        expect_close(
            learner(dW, db),
            torch.linalg.lstsq(db[:, None], dW).solution[0],
            what="the input",
            given={"dW": dW, "db": db},
            hint="set the derivative of the sum of squares with respect to x to zero.",
            mistakes={
                "this averages first and divides then: entries of db with different "
                "signs cancel.": dW.mean(0) / db.mean(),
                "this is the mean of all quotients: a row with db = 0 ruins it.": (
                    dW / db[:, None]
                ).mean(0),
                "without the rows that are off, but still every quotient counts the "
                "same; those with a small db are the noisiest.": (
                    dW[db != 0] / db[db != 0][:, None]
                ).mean(0),
                "this is the largest row alone.": dW[largest] / db[largest],
                "weighted by |db|; the least squares weigh by its square.": (
                    db.sign() @ dW / db.abs().sum()
                ),
                "this is not divided by the sum of the weights.": db @ dW,
            },
        )


@exercise
def private_mean(learner, generator):
    """Compare on batches with gradients that are short, long and zero."""
    draw = partial(torch.randn, generator=generator, dtype=torch.float64)
    for lengths, limit, multiplier in [
        ([30.0, 0.5, 6.0], 2.0, 0.7),
        ([0.2, 5.0], 0.5, 1.5),
        ([4.0, 0.0, 1.0, 2.0], 1.0, 0.0),
    ]:
        directions = draw(len(lengths), 3)
        lengths = torch.tensor(lengths, dtype=torch.float64)[:, None]
        unit = directions / directions.norm(dim=1, keepdim=True)
        gradients, noise, size = lengths * unit, draw(3), len(lengths)
        total = (lengths.clamp(max=limit) * unit).sum(0)
        spread = multiplier * limit * noise
        mean = gradients.mean(0)
        expect_close(
            expect_repeatable(learner, gradients, limit, multiplier, noise),
            (total + spread) / size,
            what="what is shared",
            given={
                "gradients": gradients,
                "C": limit,
                "multiplier": multiplier,
                "noise": noise,
            },
            hint="first clip each row, then sum, add the noise, divide by B.",
            mistakes={
                "clip the gradient of each picture, not their mean: otherwise one "
                "picture can still move the mean by more than C / B.": (
                    mean * (limit / mean.norm()).clamp(max=1) + spread / size
                ),
                "the noise is added to the sum, and divided by B with it.": (
                    total / size + spread
                ),
                "the noise is measured in units of C.": (total + multiplier * noise)
                / size,
                "this is the sum; divide by B.": total + spread,
                "clipping only shortens: short gradients stay as they are.": (
                    (limit * unit).sum(0) + spread
                )
                / size,
                "clip the length of a row, not its entries.": (
                    gradients.clamp(-limit, limit).sum(0) + spread
                )
                / size,
                "nothing was clipped.": (gradients.sum(0) + spread) / size,
            },
        )


@lru_cache
def _sent() -> tuple[Pictures, Tensor, Tensor]:
    """A photograph, and its client's first layer's gradients without noise."""
    from precode_lib.data import victims

    photo = victims("photos", 1)
    model = smlp(width=128, generator=torch.Generator().manual_seed(0))
    seen = observe(model, photo.images[:, None], photo.labels[:, None])
    terms = seen.shared.dense()
    layer = "features.hidden1"
    return photo, terms[f"{layer}.weight"][0], terms[f"{layer}.bias"][0]


@lru_cache
def _mean_noise(rounds: int) -> tuple[Tensor, Tensor]:
    """The mean of so many draws for the weight, and for the bias."""
    generator = torch.Generator().manual_seed(1)
    _, dW, db = _sent()
    total_dW, total_db = torch.zeros_like(dW), torch.zeros_like(db)
    for _ in range(rounds):
        total_dW += torch.randn(dW.shape, generator=generator)
        total_db += torch.randn(db.shape, generator=generator)
    return total_dW / rounds, total_db / rounds


def leak_of_the_mean(sigma: float, rounds: int) -> tuple[Pictures, Tensor, float]:
    """One row, divided, of the mean of noisy rounds: pixels (1, C, H, W) and SSIM."""
    from precode_lib.metrics import score

    photo, dW, db = _sent()
    noise_dW, noise_db = _mean_noise(rounds)
    dW, db = dW + sigma * noise_dW, db + sigma * noise_db
    row = db.abs().argmax()
    image = (dW[row] / db[row]).view_as(photo.images)
    pixels = photo.normalisation.denormalise(image).clamp(0, 1)
    return photo, pixels, score(photo.pixels, pixels).ssim.item()


@exercise
def enough_rounds(rounds, beyond, generator):
    """Average every number of rounds at the largest noise."""
    ssim = [leak_of_the_mean(SIGMAS[-1], count)[2] for count in ROUNDS]
    first = next(i for i, value in enumerate(ssim) if value >= ENOUGH)
    right = ROUNDS[first]
    expect_number(
        rounds,
        right,
        what="rounds",
        secret=True,
        hint="set σ to 0.08, then add rounds until the SSIM reaches 0.8.",
        mistakes={
            "here the SSIM still is below 0.8.": ROUNDS[first - 1],
            "enough, but not the first such setting.": ROUNDS[first + 1],
            "here one round is not enough; add rounds.": ROUNDS[0],
        },
    )
    expect_number(
        beyond,
        100 * right,
        what="beyond",
        secret=True,
        hint="compare the rounds for 0.02, 0.04 and 0.08: what does doubling σ cost?",
        mistakes={
            "ten times the noise needs more than ten times the rounds.": 10 * right,
            "0.8 is ten times 0.08, not twice.": 4 * right,
            "the same number? The noise has grown.": right,
            "that is the factor; multiply by the rounds that 0.08 needs.": 100,
        },
    )


@exercise
def two_promises(text, generator):
    """Leave the judgement to a person."""
    return open_question(
        text,
        mentions="that a failed attack is a statement about that attack (which one, "
        "how many rounds, did it combine all rows), that ε = 60 allows odds to change "
        "by a factor of e^60 and so promises nothing, for which unit (a picture, a "
        "person) and how many rounds it was counted, and whether the noise is added "
        "before the server sees the gradient.",
        mistakes=[
            '"it is differentially private, so it is safe": every mechanism with noise '
            "and clipping is, for some ε.",
            '"a large ε means that it leaks": it means that nothing is promised.',
        ],
    )

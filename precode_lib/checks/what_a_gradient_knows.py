"""Markers for the exercises on what a gradient knows."""

from functools import partial

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from precode_lib.attacks.closed_form import invert_linear, largest_row
from precode_lib.data import Pictures
from precode_lib.defenses import add_noise
from precode_lib.federated import observe
from precode_lib.marking import (
    drawn,
    exercise,
    expect_close,
    expect_number,
    open_question,
)
from precode_lib.metrics import score
from precode_lib.models import smlp

NOTEBOOKS_USE = ["LEVELS", "leak_through_noise"]
LEVELS = [0, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1]


@exercise
def by_hand(dW, db, generator):
    """Compare with autograd's gradients of the layer in the text."""
    x = torch.tensor([[2.0, -1.0]])
    log3 = torch.tensor(3.0).log()
    weight = torch.stack([log3.expand(2), torch.zeros(2)]).requires_grad_()
    bias = torch.zeros(2, requires_grad=True)
    logits = F.linear(x, weight, bias)
    probabilities = logits.softmax(1)[0].detach()
    right_dW, right_db = torch.autograd.grad(
        F.cross_entropy(logits, torch.tensor([0])), [weight, bias]
    )
    expect_close(
        db,
        right_db,
        what="db",
        secret=True,
        hint="start from the logits (ln 3, 0); the two entries add up to zero.",
        mistakes={
            "these are the probabilities; the label's class has 1 subtracted.": (
                probabilities
            ),
            "the sign: it is p minus the label's one-hot vector.": -right_db,
            "the label is the first class, not the second.": probabilities
            - torch.tensor([0.0, 1.0]),
        },
    )
    expect_close(
        dW,
        right_dW,
        what="dW",
        secret=True,
        hint="row c is db[c] times x.",
        mistakes={
            "this is the transpose; rows belong to outputs, columns to x.": right_dW.T,
            "the sign of every entry is turned around.": -right_dW,
            "each row is a number times x, not times W.": right_db[:, None]
            * weight.detach(),
        },
    )


@exercise
def closed_form(learner, generator):
    """Try layers where the first unit is off, and where no entry of db is positive."""
    first_off = torch.tensor([0.0, 0.3, -0.5])
    never_positive = torch.tensor([-0.2, -0.4, 0.0, -0.1])
    for delta in (first_off, never_positive, torch.tensor([0.01])):
        x = torch.randn(5, generator=generator)
        dW, db = torch.outer(delta, x), delta
        row, largest = db.abs().argmax(), db.argmax()
        expect_close(
            learner(dW, db),
            x,
            what="the input",
            given={"dW": dW, "db": db},
            rtol=1e-3,
            atol=1e-4,
            hint="row i of dW is db[i] times the input.",
            mistakes={
                "here unit 0 is off, and its row is empty: choose another.": (
                    dW[0] / db[0]
                ),
                "the largest entry by value can be an empty row: db may be negative.": (
                    dW[largest] / db[largest]
                ),
                "this is a row as it was sent: still multiplied by its db.": dW[row],
                "the fraction is upside down.": db[row] / dW[row],
            },
        )


@exercise
def label(learner, generator):
    """Try every class, in networks from ignorant to sure."""
    for num_classes, sharpness in [(10, 0.1), (3, 2.0), (2, 6.0)]:
        for right in range(num_classes):
            draw = partial(_bias_gradient, num_classes, right, sharpness, generator)
            # A probability that rounds to 1 leaves no entry negative.
            db = drawn(draw, lambda db, right=right: db[right] < -1e-3)
            expect_number(
                learner(db),
                right,
                what="the label",
                given={"db": db},
                hint="exactly one entry is negative.",
                mistakes={
                    "this is the class with the largest gradient; look at the signs.": (
                        float(db.argmax())
                    ),
                    "count classes from 0, as PyTorch does.": right + 1.0,
                    "this entry is the one closest to zero; look at the signs.": float(
                        db.abs().argmin()
                    ),
                },
            )


def _bias_gradient(
    num_classes: int, label: int, sharpness: float, generator: Generator
) -> Tensor:
    logits = sharpness * torch.randn(num_classes, generator=generator)
    return logits.softmax(0) - F.one_hot(torch.tensor(label), num_classes)


def leak_through_noise(photo: Pictures, sigma: float) -> Tensor:
    """Pixels (1, C, H, W) from one row of a gradient with always the same noise."""
    model = smlp(generator=torch.Generator().manual_seed(0))
    noise = torch.Generator().manual_seed(1)
    seen = observe(
        model,
        photo.images[:, None],
        photo.labels[:, None],
        defense=lambda shared: add_noise(shared, std=sigma, generator=noise),
        normalisation=photo.normalisation,
    )
    found = invert_linear(seen, estimate=largest_row)
    return photo.normalisation.denormalise(found.images).clamp(0, 1)


@exercise
def enough_noise(sigma, generator):
    """Run the attack at every level."""
    from precode_lib.data import victims

    photo = victims("photos", 1)
    ssim = [
        score(photo.pixels, leak_through_noise(photo, level)).ssim.item()
        for level in LEVELS
    ]
    below = [level for level, value in zip(LEVELS, ssim, strict=True) if value < 0.5]
    expect_number(
        sigma,
        below[0],
        what="σ",
        secret=True,
        hint="move the slider from the left, and stop where SSIM falls below 0.5.",
        mistakes={
            "here SSIM is still above 0.5; one step further.": LEVELS[
                LEVELS.index(below[0]) - 1
            ],
            "below 0.5, but not the first such value.": below[1],
            "this is the end of the slider; it starts earlier.": LEVELS[-1],
        },
    )


@exercise
def two_photographs(text, generator):
    """Leave the judgement to a person."""
    return open_question(
        text,
        mentions="that a row is a mean weighted by each photograph's δ, that the "
        "weights change from row to row, and that a unit which is off for one "
        "photograph shows the other alone.",
        mistakes=[
            '"the plain average": only if both δ are equal.',
            '"the batch hides them": it hides them from one row, not from all.',
        ],
    )

"""Markers for the exercises on training with PRECODE."""

from math import sqrt

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from precode_lib.marking import exercise, expect_close, expect_number, open_question

NOTEBOOKS_USE = ["SIZES", "comparisons"]
ACCURACIES = 0.531, 0.518  # the paper's table 1: its small MLP without, with PRECODE
SIZES = [100, 300, 1000, 3000, 10000, 30000]


@exercise
def by_hand(error_a, error_b, error_of_difference, pictures, generator):
    """Compare with the deviation of a coin's throws, and of their difference."""
    right_a, right_b = (
        torch.distributions.Binomial(100, a).stddev.item() / 100 for a in (0.9, 0.8)
    )
    for came, right, a, what in [
        (error_a, right_a, 0.9, "A's standard error"),
        (error_b, right_b, 0.8, "B's standard error"),
    ]:
        expect_number(
            came,
            right,
            what=what,
            secret=True,
            hint="the root of a (1 - a) / N, with N = 100.",
            mistakes={
                "this is the variance; its root is missing.": right**2,
                "divide by N = 100 before you take the root.": 10 * right,
                "divide by N before you take the root, not after.": right / 10,
                "as a share, please, not in percent.": 100 * right,
                "(1 - a) is missing: a sure network does not scatter.": sqrt(a / 100),
            },
        )
    right = sqrt(right_a**2 + right_b**2)
    expect_number(
        error_of_difference,
        right,
        what="the standard error of the difference",
        secret=True,
        hint="the variances of two independent tests add up.",
        mistakes={
            "errors do not add up, their squares do.": right_a + right_b,
            "a difference scatters more than either side, not less.": (
                right_b - right_a
            ),
            "squares add up in a difference, too; nothing is subtracted.": sqrt(
                right_b**2 - right_a**2
            ),
            "these are the added variances; the root is missing.": right**2,
        },
    )
    expect_number(
        pictures,
        100 * (right / 0.01) ** 2,
        what="the number of pictures",
        secret=True,
        hint="N stands under a root: a fifth of the error takes how many times N?",
        mistakes={
            "five times the pictures are too few: N stands under a root.": 500.0,
            "for the error of A alone: the difference has B's as well.": 900.0,
            "for the error of B alone: the difference has A's as well.": 1600.0,
        },
    )


@exercise
def loss(learner, generator):
    """Try no bottleneck, one, and several of different prices."""
    for batch, betas in [(4, [1e-1]), (3, []), (5, [1e-3, 1e-1, 1.0])]:
        logits = torch.randn(batch, 6, generator=generator)
        labels = torch.randint(6, (batch,), generator=generator)
        kls = [10 * torch.rand(batch, generator=generator) + 1 for _ in betas]
        expect_close(
            learner(logits, labels, kls, betas),
            _loss(logits, labels, kls, betas),
            what="the loss",
            given={"logits": logits, "kls": kls, "betas": betas},
            hint="add each picture's terms, then take the mean over the pictures.",
            mistakes=_wrong_losses(logits, labels, kls, betas),
        )


def _loss(logits: Tensor, labels: Tensor, kls: list[Tensor], betas: list) -> Tensor:
    prices = [beta * kl.mean() for beta, kl in zip(betas, kls, strict=True)]
    return F.cross_entropy(logits, labels) + sum(prices)


def _wrong_losses(logits: Tensor, labels: Tensor, kls: list, betas: list) -> dict:
    right, entropy = _loss(logits, labels, kls, betas), F.cross_entropy(logits, labels)
    price = right - entropy
    return {
        "a sum over the pictures; a loss of a batch is their mean.": (
            len(logits) * right
        ),
        "the prices are summed over the pictures, not averaged.": (
            entropy + len(logits) * price
        ),
        "the betas are missing: each KL is multiplied by its own.": _loss(
            logits, labels, kls, [1.0] * len(kls)
        ),
        "the prices are added: the loss is to become smaller with the KL.": (
            entropy - price
        ),
        "several bottlenecks: their prices are added, not averaged.": (
            entropy + price / max(1, len(kls))
        ),
        "several bottlenecks: only the first one is paid for.": _loss(
            logits, labels, kls[:1], betas[:1]
        ),
        "several bottlenecks: each has a beta of its own.": _loss(
            logits, labels, kls, betas[:1] * len(kls)
        ),
        "cross_entropy takes logits; it applies softmax by itself.": (
            F.cross_entropy(logits.softmax(1), labels) + price
        ),
        "only the cross-entropy: the price of the code is missing.": entropy,
    }


@exercise
def mean_prediction(learner, generator):
    """Try many draws, few, and a single one."""
    for draws, sharpness in [(3, 6.0), (8, 4.0), (1, 2.0)]:
        logits = _clear_logits(sharpness, draws, generator)
        votes = F.one_hot(logits.argmax(2), 5).sum(0)
        expect_close(
            learner(logits),
            logits.softmax(2).mean(0).argmax(1),
            what="the classes",
            given={"logits": logits},
            hint="probabilities first, then their mean over the draws, then the "
            "largest one.",
            mistakes={
                "the mean of the logits; take that of the probabilities.": (
                    logits.mean(0).argmax(1)
                ),
                "a vote: it forgets how sure each draw was.": votes.argmax(1),
                "one draw alone; use all of them.": logits[0].argmax(1),
                "the one draw that is surest decides; take the mean.": (
                    logits.softmax(2).amax(0).argmax(1)
                ),
                "softmax runs along the classes, the last dimension.": (
                    logits.softmax(0).mean(0).argmax(1)
                ),
            },
        )


def _clear_logits(sharpness: float, draws: int, generator: Generator) -> Tensor:
    """Logits (draws, 100, 5) whose most likely class no rounding decides."""
    logits = sharpness * torch.randn(draws, 100, 5, generator=generator)
    while (is_close := _is_close(logits)).any():
        size = (draws, int(is_close.sum()), 5)
        logits[:, is_close] = sharpness * torch.randn(size, generator=generator)
    return logits


def _is_close(logits: Tensor) -> Tensor:
    first, second = logits.softmax(2).mean(0).topk(2, dim=1).values.T
    return first - second < 1e-3


def comparisons(num_pictures: int) -> Tensor:
    """(20, 20): by how many right answers the truly better network is ahead.

    400 tests of two networks whose true accuracies are the paper's, each network on so
    many pictures of its own.
    """
    generator = torch.Generator().manual_seed(0)
    counts = torch.full((20, 20), float(num_pictures))
    better, worse = (
        torch.binomial(counts, torch.full_like(counts, a), generator=generator)
        for a in ACCURACIES
    )
    return better - worse


@exercise
def enough_pictures(num_pictures, generator):
    """Run the tests at every size."""
    ahead = [(comparisons(size) > 0).float().mean().item() for size in SIZES]
    enough = [size for size, share in zip(SIZES, ahead, strict=True) if share >= 0.9]
    place = SIZES.index(enough[0])
    expect_number(
        num_pictures,
        enough[0],
        what="the number of pictures",
        secret=True,
        hint="move the slider from the left until at most 40 of 400 are not white.",
        mistakes={
            "here more than one test in ten still misleads; one further.": (
                SIZES[place - 1]
            ),
            "most tests is not nine in ten; go on.": SIZES[place - 2],
            "that is enough, but fewer are, too.": SIZES[-1],
        },
    )


@exercise
def other_optimizer(text, generator):
    """Leave the judgement to a person."""
    return open_question(
        text,
        mentions="that the learning rate was chosen for neither side, that Adam "
        "divides each step by the size of the gradients and SGD does not, that the "
        "bottleneck changes that size, and so: choose the rate for each side anew, "
        "with several seeds and the spread shown.",
        mistakes=[
            '"PRECODE learns slowly": with one rate for both, the rate may decide.',
            '"SGD is the wrong optimizer": it may need another rate, or more epochs.',
        ],
    )

"""Markers for the exercises on the label as an anchor."""

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from precode_lib.attacks import CPL, Search
from precode_lib.attacks.starts import patterned
from precode_lib.data import Pictures
from precode_lib.federated import Observation, observe
from precode_lib.marking import exercise, expect_close, expect_number, open_question
from precode_lib.models import lenet

NOTEBOOKS_USE = ["one_client", "search_with"]
ALPHA = 0.25


def _anchored(x: Tensor, alpha: float = ALPHA) -> tuple[Tensor, Tensor]:
    """Of the text's example: the term that matches and the label term."""
    return (x - 2).square(), alpha * (2 * x - 1).square()


@exercise
def by_hand(term, slope, lowest, generator):
    """Compare with autograd, and with Newton's step, which is exact for a parabola."""
    x = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    match, anchor = _anchored(x)
    right = anchor.item() / ALPHA
    expect_number(
        term,
        right,
        what="term",
        secret=True,
        hint="put x = 2 into F, subtract the label's 1, and square.",
        mistakes={
            "not zero: F(2) is not the label's 1.": 0.0,
            "the term itself is asked for, without α.": ALPHA * right,
            "F(x) is 2x, not x.": 1.0,
            "the distance is squared.": 3.0,
        },
    )
    (pull,) = torch.autograd.grad(match + anchor, x, create_graph=True)
    (bend,) = torch.autograd.grad(pull, x)
    right = pull.item()
    expect_number(
        slope,
        right,
        what="slope",
        secret=True,
        hint="of the first term nothing is left at x = 2; differentiate the second.",
        mistakes={
            "only the first term rests at the truth.": 0.0,
            "the chain rule: F(x) = 2x has the derivative 2.": right / 2,
            "α multiplies the slope, too.": right / ALPHA,
            "the square's derivative has a factor 2.": right / 4,
            "the sign: the objective rises to the right of its lowest point.": -right,
        },
    )
    expect_number(
        lowest,
        2 - (pull / bend).item(),
        what="lowest",
        secret=True,
        hint="set the derivative of the sum of both terms to zero.",
        mistakes={
            "there the first term is lowest, and the second still pulls.": 2.0,
            "there the second term is lowest, and the first still pulls.": 0.5,
            "α weighs squares of F, and F moves twice as fast as x.": (2 + ALPHA / 2)
            / (1 + ALPHA),
            "the chain rule: the anchor's slope is α · 2 (2x - 1) · 2.": 1.5,
            "that is the lowest point for α = 1.": 0.8,
        },
    )


@exercise
def objective(learner, generator):
    """Compare on lists of gradients of several shapes, with several weights."""
    draw = partial(torch.randn, generator=generator, dtype=torch.float64)
    for num_classes, alpha in [(3, 0.0), (3, 0.5), (10, 2.0)]:
        shapes = [(4, 6), (4,), (num_classes, 4), (num_classes,)]
        guess, shared = [draw(*s) for s in shapes], [draw(*s) for s in shapes]
        logits = draw(num_classes)
        label = int(torch.randint(num_classes, (), generator=generator))
        onehot = F.one_hot(torch.tensor(label), num_classes)

        squares = [(a - b).square() for a, b in zip(guess, shared, strict=True)]
        match = sum(s.sum() for s in squares)
        error = (logits - onehot).square()
        given = {"logits": logits, "label": label, "alpha": alpha}
        expect_number(
            learner(guess, shared, logits, label, alpha),
            (match + alpha * error.sum()).item(),
            given=given,
            what="the objective",
            hint="with alpha = 0 only the squared distance of all gradients is left.",
            mistakes={
                "sums, not means: large layers count for more.": (
                    sum(s.mean() for s in squares) + alpha * error.mean()
                ).item(),
                "sums in the label term, too: no mean over the classes.": (
                    match + alpha * error.mean()
                ).item(),
                "the distance of the gradients is squared: no root.": (
                    match.sqrt() + alpha * error.sum()
                ).item(),
                "the distance to the label is squared: no root.": (
                    match + alpha * error.sum().sqrt()
                ).item(),
                "CPL compares the logits themselves with the one-hot label.": (
                    match + alpha * (logits.softmax(0) - onehot).square().sum()
                ).item(),
                "this is cross-entropy; CPL takes the squared distance.": (
                    match + alpha * -logits.log_softmax(0)[label]
                ).item(),
                "only the label's logit; the others should be zero and count.": (
                    match + alpha * error[label]
                ).item(),
                "where is alpha?": (match + error.sum()).item(),
                "this is the last gradient of the list alone; sum over all.": (
                    squares[-1].sum() + alpha * error.sum()
                ).item(),
            },
        )


@exercise
def fill(learner, generator):
    """Try pictures whose sides are, and are not, multiples of the patch's."""
    for size, height, width in [(2, 4, 6), (3, 7, 5), (4, 3, 9), (1, 2, 2)]:
        patch = torch.rand(3, size, size, generator=generator)
        rows, columns = torch.arange(height), torch.arange(width)
        many = patch.repeat(1, -(-height // size), -(-width // size))
        few = patch.repeat(1, max(1, height // size), max(1, width // size))
        corner = torch.zeros(3, height, width)
        kept = patch[:, :height, :width]
        corner[:, : kept.shape[1], : kept.shape[2]] = kept
        expect_close(
            learner(patch, height, width),
            patch[:, rows % size][:, :, columns % size],
            what="the start",
            given={"patch": patch, "height": height, "width": width},
            hint="the pixel in row i and column j is the patch's at the remainders.",
            mistakes={
                "stretched, not repeated: neighbours are equal.": patch[
                    :, rows * size // height
                ][:, :, columns * size // width],
                "cut off what is too much at the right and at the bottom.": many,
                "too small: begin another patch where a part of one is missing.": few,
                "only one copy; the rest of the picture is empty.": corner,
                "rows and columns are exchanged.": patch.mT[:, rows % size][
                    :, :, columns % size
                ],
            },
        )


def one_client() -> tuple[Pictures, Observation]:
    """A photograph, and what its client sends to an attacker without the label."""
    from precode_lib.data import victims

    photo = victims("photos", 7, size=16)[6:]
    model = lenet((3, 16, 16), generator=torch.Generator().manual_seed(0))
    seen = observe(
        model,
        photo.images[:, None],
        photo.labels[:, None],
        labels_known=False,
        normalisation=photo.normalisation,
    )
    return photo, seen


def search_with(seen: Observation, label: int) -> tuple[Tensor, float]:
    """Pixels (1, C, H, W) and objective of a short search that assumes a label."""
    recipe = replace(
        CPL, iterations=6, start=patterned(8), labels=lambda _: torch.tensor([[label]])
    )
    search = Search(seen, recipe, generator=torch.Generator().manual_seed(1))
    for _ in search:
        pass
    return search.result.pixels[:, 0], search.result.objective.item()


@exercise
def which_label(label, generator):
    """Compare with the label that the client trained on."""
    photo, seen = one_client()
    right = int(photo.labels)
    predicted = int(seen.model(photo.images).argmax())
    expect_number(
        label,
        right,
        what="the label",
        secret=True,
        hint="with this label the objective stays far above that with another one.",
        mistakes={
            "count classes from 0, as the slider does.": right + 1.0,
            "this is what the untrained network says of the picture, whatever it is; "
            "the client's label decides.": float(predicted),
            "this is where the slider starts; move it.": 0.0,
        },
    )


@exercise
def what_did_it(text, generator):
    """Leave the judgement to a person."""
    return open_question(
        text,
        mentions="changing one thing at a time and all else equal (steps, clients, "
        "networks), a control that has the start's mild values without its pattern, "
        "several seeds, and the spread and the worst case beside the mean.",
        mistakes=[
            '"the new recipe is better, so the idea is good": three things changed.',
            '"switch the start off": to what? Normal noise differs in spread as well '
            "as in pattern.",
        ],
    )

"""Markers for the exercises on transformed pictures."""

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import torch
from torch import Generator, Tensor

from precode_lib.ats import OPERATIONS, Policy, translate_x
from precode_lib.attacks.closed_form import invert_linear
from precode_lib.data import Pictures, victims
from precode_lib.federated import observe
from precode_lib.marking import (
    exercise,
    expect,
    expect_close,
    expect_number,
    listed,
    open_question,
    whole,
)
from precode_lib.metrics import score
from precode_lib.models import smlp

NOTEBOOKS_USE = ["COLUMNS", "found"]
COLUMNS = [0, 4, 8, 12, 16, 20, 24, 28]
SIGNED = [operation.index for operation in OPERATIONS if operation.is_signed]

Steps = tuple[tuple[int, int], ...]  # (operation, sign), one after another


@exercise
def by_hand(with_transformed, with_original, adapted, generator):
    """Compare with the table's own operation on the row of the text."""
    row = torch.tensor([1.0, 0.0, 1.0, 0.0])
    moved = translate_x(row.view(1, 1, 1, 4), 1 / 4).flatten()
    back = torch.cat([torch.tensor([0.5]), moved[:-1]])
    expect_number(
        with_transformed,
        _mse(moved, moved),
        what="the error against the transformed row",
        secret=True,
        hint="what the attacker finds, and what the client used, are the same row.",
        mistakes={
            "this compares with the original row.": _mse(moved, row),
        },
    )
    expect_number(
        with_original,
        _mse(moved, row),
        what="the error against the original row",
        secret=True,
        hint="write both rows below each other; then differences, squares, their mean.",
        mistakes={
            "black comes in at the right end: nothing comes back in, and the row moves "
            "to the left.": _mse(row.roll(-1), row),
            "this is the sum of the squares; take the mean over four pixels.": (
                4 * _mse(moved, row)
            ),
            "this compares with the transformed row.": 0.0,
            "three squares are 1 and one is 0; the mean is over all four.": 1 / 4,
        },
    )
    expect_number(
        adapted,
        _mse(back, row),
        what="the error after shifting back",
        secret=True,
        hint="three pixels are right again; what is the square of the fourth's error?",
        mistakes={
            "the pixel that left is guessed as 1/2, and the mean is over all four.": (
                1 / 4
            ),
            "one pixel left the row, and nobody knows it any more.": 0.0,
            "the error of the lost pixel is squared.": 1 / 8,
            "nothing was shifted back here.": _mse(moved, row),
        },
    )


def _mse(one: Tensor, other: Tensor) -> float:
    return (one - other).square().mean().item()


@exercise
def shift_back(learner, generator):
    """Compare with the published operation, reversed; 1/2 where it brought black in."""
    for shape, columns in [
        ((2, 3, 4, 5), 2),
        ((1, 1, 3, 6), -1),
        ((1, 3, 2, 4), 0),
        ((1, 1, 4, 4), 4),
        ((1, 2, 3, 5), -7),
    ]:
        found = 0.1 + 0.9 * torch.rand(shape, generator=generator)
        width = shape[-1]
        back = _moved(found, columns)
        edge = found[..., :1] if columns > 0 else found[..., -1:]
        mistakes = {
            "what left on one side did not come in on the other: nobody knows it.": (
                found.roll(columns, -1)
            ),
            "the client moved it to the left by `columns`; this moves it on.": _moved(
                found, -columns
            ),
            "this moves along the rows of pixels: columns are the last dimension.": (
                _moved(found.transpose(-1, -2), columns).transpose(-1, -2)
            ),
            "black is a guess as well, and a bad one: put 1/2 where nobody knows.": (
                translate_x(found, -columns / width)
            ),
            "the edge was repeated; put 1/2 where nobody knows.": back.where(
                back != 0.5, edge
            ),
        }
        if abs(columns) >= width:
            wide = "the whole picture left here, and nobody knows any of it: all 1/2."
            mistakes = {wide: found} | mistakes
        if columns == 0:
            mistakes = {
                "with 0 columns nothing moved; `[..., :-0]` is empty.": torch.full(
                    shape, 0.5
                )
            }
        expect_close(
            learner(found, columns),
            back,
            what="the picture",
            given={"found": found, "columns": columns},
            hint="pixel [..., j] of the result is pixel [..., j - columns], or 1/2.",
            mistakes=mistakes,
        )


def _moved(pixels: Tensor, columns: int) -> Tensor:
    """Moved to the right by so many columns, with 1/2 where nothing is left."""
    share = -columns / pixels.shape[-1]
    is_known = translate_x(torch.ones_like(pixels), share) > 0.5
    return translate_x(pixels, share).where(is_known, 0.5)


@exercise
def outcomes(learner, generator):
    """Compare with the library's list, for policies with and without signs."""
    policies = [
        [[3, 1, 7]],
        [[3, 1, 7], [43, 18, 18]],
        [[0, 8]],
        [[5], [5]],
        _drawn_policy(generator),
    ]
    for policy in policies:
        came = learner(policy, SIGNED)
        right = [v.steps for v in Policy(tuple(map(tuple, policy))).variants]
        _expect_outcomes(_steps_of_each(came), right, policy)


def _drawn_policy(generator: Generator) -> list[list[int]]:
    signed = [SIGNED[i] for i in _draw(len(SIGNED), 2, generator)]
    return [
        [signed[0], *_draw(50, 1, generator)],
        [*_draw(50, 2, generator), signed[1]],
    ]


def _draw(high: int, count: int, generator: Generator) -> list[int]:
    return torch.randint(high, (count,), generator=generator).tolist()


def _steps_of_each(came: Any) -> list[Steps]:
    """The outcomes as tuples of pairs, in whatever lists they came."""
    try:
        return [tuple(map(_pair, _in_order(steps))) for steps in listed(came)]
    except (TypeError, ValueError):
        expect(
            False,
            "not right yet. The result should be a list of outcomes, each a list of "
            f"pairs (operation, sign); got {came!r:.60}.",
            hint="the example in the docstring.",
        )
        raise


def _in_order(value: Any) -> list:
    if isinstance(value, frozenset):
        raise TypeError("a set has no order")
    return listed(value)


def _pair(step: Any) -> tuple[int, int]:
    operation, sign = map(whole, _in_order(step))
    if operation is None or sign is None:
        raise TypeError("no whole numbers")
    return operation, sign


def _expect_outcomes(came: list[Steps], right: list[Steps], policy: list) -> None:
    hint = "list the choices of each operation, and combine them."
    for its_hint, wrong in _wrong_lists(policy):
        if sorted(came) == sorted(wrong) != sorted(right):
            hint = its_hint
            break
    missing, extra = set(right) - set(came), set(came) - set(right)
    example = next(iter(sorted(missing) or sorted(extra) or came), "nothing")
    kind = "missing" if missing else "too many" if extra else "twice"
    expect(
        sorted(came) == sorted(right),
        f"not right yet. With policy = {policy} there should be {len(right)} outcomes, "
        f"got {len(came)}; {kind}: {list(example)}.",
        hint=hint,
    )


def _wrong_lists(policy: list[list[int]]) -> Iterator[tuple[str, list[Steps]]]:
    def combined(row: Sequence[int], choices: Callable[[int], tuple]) -> list[Steps]:
        signs = product(*map(choices, row))
        return [tuple(zip(row, each, strict=True)) for each in signs]

    def drawn(index: int) -> tuple[int, ...]:
        return (1, -1) if index in SIGNED else (1,)

    yield (
        "two alternatives can have the same outcome: count it once.",
        [steps for row in policy for steps in combined(row, drawn)],
    )
    yield (
        "only the operations in `signed` have two directions; others have sign 1.",
        [steps for row in policy for steps in combined(row, lambda index: (1, -1))],
    )
    yield (
        "a hybrid draws one of several alternatives; all of them can happen.",
        combined(policy[0], drawn),
    )
    yield (
        "each operation draws a sign of its own, not one for the row.",
        list(
            {
                tuple((i, s if i in SIGNED else 1) for i in row): None
                for row in policy
                for s in (1, -1)
            }
        ),
    )


def found(photo: Pictures, columns: int) -> tuple[Tensor, Tensor]:
    """What a division finds after a shift: as it is, and shifted back (1, C, H, W)."""
    width = photo.pixels.shape[-1]
    moved = translate_x(photo.pixels, columns / width)
    space = photo.normalisation
    seen = observe(
        smlp(width=128, generator=Generator().manual_seed(0)),
        space.normalise(moved)[:, None],
        photo.labels[:, None],
        normalisation=space,
    )
    pixels = space.denormalise(invert_linear(seen).images).clamp(0, 1)
    return pixels, translate_x(pixels, -columns / width)


@exercise
def shifted_back(plain, adapted, generator):
    """Run both attackers at every shift."""
    photo = victims("photos", 1)
    below = []
    for attacker in (0, 1):
        ssim = [score(photo.pixels, found(photo, c)[attacker]).ssim for c in COLUMNS]
        below.append([c for c, s in zip(COLUMNS, ssim, strict=True) if s.item() < 0.5])
    for came, right, other, who in [
        (plain, below[0], below[1], "the attacker who does not adapt"),
        (adapted, below[1], below[0], "the attacker who shifts back"),
    ]:
        expect_number(
            came,
            right[0],
            what=f"the shift for {who}",
            secret=True,
            hint="move the slider from the left, and stop where the SSIM below that "
            "picture is under 0.5.",
            mistakes={
                "this is the shift for the other attacker.": other[0],
                "here its SSIM is still above 0.5; one step further.": (
                    COLUMNS[COLUMNS.index(right[0]) - 1]
                ),
                "below 0.5, but not the first such value.": right[1],
                "this is the end of the slider; it starts earlier.": COLUMNS[-1],
            },
        )


@exercise
def a_secret_continuum(text, generator):
    """Leave the judgement to a person."""
    return open_question(
        text,
        mentions="that a continuum stops an attacker who tries all outcomes, but not "
        "one who searches for the shift and the contrast together with the picture; "
        "that a policy every client trains with is no secret; and that the gradient "
        "still gives away the transformed picture, so what is in view is seen anyway.",
        mistakes=[
            '"infinitely many outcomes cannot be tried": they can be searched, for the '
            "loss has a derivative by the shift as by a pixel.",
            '"the low SSIM with the original proves it": an onlooker recognises a '
            "picture that was moved.",
        ],
    )

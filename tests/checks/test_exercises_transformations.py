"""Typical wrong answers, and what each is told."""

from itertools import product

import pytest
import torch
from marking import assert_refused, assert_right

from precode_lib.checks import transformations as check


@pytest.mark.parametrize(
    ("with_transformed", "with_original", "adapted", "hint"),
    [
        (3 / 4, 3 / 4, 1 / 16, "compares with the original"),
        (1, 3 / 4, 1 / 16, "are the same row"),
        (0, 1, 1 / 16, "black comes in at the right end"),
        (0, 3, 1 / 16, "sum of the squares"),
        (0, 0, 1 / 16, "compares with the transformed"),
        (0, 1 / 4, 1 / 16, "one is 0"),
        (0, 3 / 4, 1 / 4, "guessed as 1/2"),
        (0, 3 / 4, 0, "nobody knows it"),
        (0, 3 / 4, 1 / 8, "squared"),
        (0, 3 / 4, 3 / 4, "nothing was shifted back"),
        (0, 3 / 4, 1 / 2, "three pixels are right"),
    ],
)
def test_a_wrong_error_is_told_which_rows_it_compares(
    with_transformed, with_original, adapted, hint
):
    assert_right(check.by_hand, 0, 3 / 4, 1 / 16)
    assert_refused(check.by_hand, with_transformed, with_original, adapted, hint=hint)


def shift_back(found, columns, unknown=0.5):
    back = torch.full_like(found, unknown)
    for column in range(found.shape[-1]):
        if 0 <= column - columns < found.shape[-1]:
            back[..., column] = found[..., column - columns]
    return back


def sliced(found, columns):
    """Right but for 0: there the slice of the result is empty."""
    back = torch.full_like(found, 0.5)
    if columns > 0:
        back[..., columns:] = found[..., :-columns]
    elif back[..., :columns].numel():
        back[..., :columns] = found[..., -columns:]
    return back


def edged(found, columns):
    at = torch.arange(found.shape[-1]) - columns
    return found[..., at.clamp(0, found.shape[-1] - 1)]


def stays_when_wide(found, columns):
    return shift_back(found, columns) if abs(columns) < found.shape[-1] else found


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (lambda f, c: f.roll(c, -1), "come in on the other"),
        (lambda f, c: shift_back(f, -c), "moves it on"),
        (
            lambda f, c: shift_back(f.transpose(-1, -2), c).transpose(-1, -2),
            "last dimension",
        ),
        (lambda f, c: shift_back(f, c, unknown=0), "black is a guess"),
        (edged, "edge was repeated"),
        (sliced, "`\\[..., :-0\\]` is empty"),
        (stays_when_wide, "all 1/2"),
        (lambda f, c: f, r"pixel \[\.\.\., j\]"),
        (lambda f, c: f[..., c:], "should be a tensor of shape"),
    ],
)
def test_what_was_moved_back_wrongly_is_told_where_the_pixels_went(learner, hint):
    assert_right(check.shift_back, shift_back)
    assert_refused(check.shift_back, learner, hint=hint)


def combined(policy, choices):
    return [
        list(zip(row, signs, strict=True))
        for row in policy
        for signs in product(*map(choices, row))
    ]


def outcomes(policy, signed):
    found = []
    for steps in combined(policy, lambda i: (1, -1) if i in signed else (1,)):
        if steps not in found:
            found.append(steps)
    return found


def one_sign_for_all(policy, signed):
    rows = [[(i, s if i in signed else 1) for i in r] for r in policy for s in (1, -1)]
    return [row for at, row in enumerate(rows) if row not in rows[:at]]


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (
            lambda p, s: combined(p, lambda i: (1, -1)),
            "only the operations in `signed`",
        ),
        (lambda p, s: outcomes(p[:1], s), "one of several alternatives"),
        (one_sign_for_all, "a sign of its own"),
        (
            lambda p, s: combined(p, lambda i: (1, -1) if i in s else (1,)),
            "count it once",
        ),
        (
            lambda p, s: [[(i, 1) for i in row] for row in p],
            "choices of each operation",
        ),
        (lambda p, s: [], "choices of each operation"),
        (lambda p, s: 8, "list of outcomes"),
        (lambda p, s: p, "list of outcomes"),
    ],
)
def test_a_wrong_list_of_outcomes_is_told_what_it_leaves_out(learner, hint):
    assert_right(check.outcomes, outcomes)
    assert_refused(check.outcomes, learner, hint=hint)


def test_outcomes_may_come_in_any_order_and_as_tensors():
    assert_right(check.outcomes, lambda p, s: outcomes(p, s)[::-1])
    assert_right(
        check.outcomes, lambda p, s: [torch.tensor(steps) for steps in outcomes(p, s)]
    )


@pytest.mark.parametrize(
    ("plain", "adapted", "hint"),
    [
        (16, 16, "does not adapt.*\n.*other attacker"),
        (4, 4, "shifts back.*\n.*other attacker"),
        (0, 16, "one step further"),
        (4, 12, "one step further"),
        (4, 20, "not the first"),
        (4, 28, "end of the slider"),
        (4, 24, "from the left"),
    ],
)
def test_a_wrong_shift_to_hide_is_told_for_which_attacker(plain, adapted, hint):
    assert_right(check.shifted_back, 4, 16)
    assert_refused(check.shifted_back, plain, adapted, hint=hint)


def test_an_open_question_wants_some_sentences():
    assert_refused(check.a_secret_continuum, "All of them.", hint="words are few")
    verdict = check.a_secret_continuum.judge(" ", generator=torch.Generator())
    assert verdict.state == "unanswered"

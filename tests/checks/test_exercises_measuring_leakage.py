"""Typical wrong answers, and what each is told."""

from itertools import permutations

import pytest
import torch
from marking import assert_refused, assert_right

from precode_lib.checks import measuring_leakage as check


@pytest.mark.parametrize(
    ("answers", "hint"),
    [
        ((0.04, 20, 40, 0.16), "sum of the squares"),
        ((0.1, 20, 40, 0.16), "square them first"),
        ((0, 20, 40, 0.16), "must not cancel"),
        ((0.01, 10, 40, 0.16), "not of 1 / "),
        ((0.01, -20, 40, 0.16), "turn the fraction around"),
        ((0.01, 2, 40, 0.16), "a decibel is a tenth"),
        ((0.01, 46, 40, 0.16), "logarithm to base 10"),
        ((0.01, 20, 30, 0.16), "a hundredth of the MSE"),
        ((0.01, 20, 200, 0.16), "does not multiply"),
        ((0.01, 20, 0, 0.16), "better is more decibels"),
        ((0.01, 20, 40, 0.04), "and then squared"),
        ((0.01, 20, 40, 0.01), "the division does not"),
        ((0.01, 20, 40, 0.000625), "do not multiply"),
    ],
)
def test_a_wrong_measure_by_hand_is_told_which_step_failed(answers, hint):
    assert_right(check.by_hand, 0.01, 20, 40, 0.16)
    assert_refused(check.by_hand, *answers, hint=hint)


def window_ssim(x, y, span, *, power=2, n=48):
    c1, c2 = (0.01 * span) ** power, (0.03 * span) ** power
    mx, my = x.mean(), y.mean()
    cov, var_x, var_y = (
        ((a - a.mean()) * (b - b.mean())).sum() / n for a, b in [(x, y), (x, x), (y, y)]
    )
    luminance = (2 * mx * my + c1) / (mx**2 + my**2 + c1)
    return luminance, (2 * cov + c2) / (var_x + var_y + c2)


def product(*args, **options):
    luminance, structure = window_ssim(*args, **options)
    return luminance * structure


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (lambda x, y, span: product(x, y, 1.0), "do not know the range"),
        (lambda x, y, span: product(x, y, span, power=1), "constants are squares"),
        (lambda x, y, span: product(x, y, span, n=49), "divide by 48"),
        (lambda x, y, span: product(x, y, 0.0), "divides by zero"),
        (lambda x, y, span: window_ssim(x, y, span)[0], "luminance alone"),
        (lambda x, y, span: window_ssim(x, y, span)[1], "structure alone"),
        (lambda x, y, span: (x - y).square().mean(), "compare each factor"),
        (lambda x, y, span: x * y, "should be a number, got a tensor"),
    ],
)
def test_a_wrong_ssim_is_told_what_it_left_out(learner, hint):
    assert_right(check.window_ssim, product)
    assert_refused(check.window_ssim, learner, hint=hint)


def orders(S):
    rows = torch.arange(len(S))
    return [S[rows, torch.tensor(o)] for o in permutations(range(len(S)))]


def rate(values):
    return (values >= 0.6).double().mean()


def greedy(S):
    found = []
    for row in S:
        found.append(row.max())
        S[:, row.argmax()] = -1
    return rate(torch.stack(found))


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (lambda S: rate(S.diagonal()), "the order is unknown"),
        (lambda S: (max(orders(S), key=sum) > 0.6).double().mean(), "equal to the"),
        (lambda S: max(map(rate, orders(S))), r"\*number\* of successes"),
        (lambda S: rate(S.amax(1)), "used twice"),
        (greedy, "compare whole orders"),
        (lambda S: rate(max(orders(S), key=sum)) * len(S), "size of the batch"),
        (lambda S: 0.123, "try all orders"),
    ],
)
def test_a_wrong_success_rate_is_told_what_it_counted(learner, hint):
    assert_right(check.success_rate, lambda S: rate(max(orders(S), key=sum)))
    assert_refused(check.success_rate, learner, hint=hint)


@pytest.mark.parametrize(
    ("lowest", "again", "hint"),
    [
        (0.875, 0.875, r"plain pixels \(unit\)"),
        (0.625, 0.875, "look at notebook"),
        (1, 0.875, "turned before"),
        (0.25, 0.875, "until it turns"),
        (0.5, 0.75, "one step further"),
        (0.5, 1, "not the first"),
        (0.5, 0.25, "on the way down"),
        (0.5, 0.5, "beyond the lowest point"),
    ],
)
def test_a_wrong_turn_of_the_negative_is_told_where_to_go(lowest, again, hint):
    assert_right(check.negative, 0.5, 0.875)
    assert_refused(check.negative, lowest, again, hint=hint)


def test_the_open_question_wants_some_sentences():
    assert_refused(check.two_tables, "TODO", hint="not answered", state="unanswered")
    assert_refused(check.two_tables, "The first one.", hint="3 words are few")

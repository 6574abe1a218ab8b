"""Typical wrong answers, and what each is told."""

import pytest
import torch
from marking import assert_refused, assert_right

from precode_lib.checks import easy_and_hard as check

DW, DB, X = [3, 1.5], 1.5, [2, 1]


@pytest.mark.parametrize(
    ("answers", "hint"),
    [
        ((DW, 1, X), "first step alone"),
        ((DW, 2, X), "a gradient of its own"),
        ((DW, -1.5, X), r"the change is -δ/12\."),
        ((DW, 19 / 12, X), "new b counts"),
        ((DW, 0.75, X), "divide no further"),
        ((DW, 18, X), "multiply by the learning rate"),
        ((DW, 0, X), "compute f again"),
        (([2, 1], DB, X), "first step alone"),
        (([4, 2], DB, X), "a gradient of its own"),
        (([-3, -1.5], DB, X), "-δ/12 times x"),
        (([1.5, 1.5], DB, X), "entry by entry"),
        (([0, 0], DB, X), "each step changes w"),
        ((DW, DB, DW), "divide by db"),
        ((DW, DB, [1, 0.5]), "it cancels"),
        ((DW, DB, [0.5, 1]), "upside down"),
        ((DW, DB, [0, 0]), "dw divided by db"),
    ],
)
def test_a_wrong_local_step_by_hand_is_told_which_failed(answers, hint):
    assert_right(check.by_hand, DW, DB, X)
    assert_refused(check.by_hand, *answers, hint=hint)


def batch(delta, x):
    return delta.T @ x / len(x), delta.mean(0)


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (
            lambda d, x: (torch.outer(d.mean(0), x.mean(0)), d.mean(0)),
            "a product of means",
        ),
        (lambda d, x: (d.T @ x, d.mean(0)), "this is the sum"),
        (lambda d, x: (batch(d, x)[0].T, d.mean(0)), "transpose"),
        (lambda d, x: (torch.outer(d[0], x[0]), d.mean(0)), "first picture's alone"),
        (lambda d, x: (d.T @ x / d.shape[1], d.mean(0)), "not of pictures"),
        (lambda d, x: (0 * d.T @ x, d.mean(0)), "an outer product of delta"),
        (lambda d, x: (batch(d, x)[0], d.sum(0)), "this is the sum"),
        (lambda d, x: (batch(d, x)[0], d[0]), "first picture's alone"),
        (lambda d, x: (batch(d, x)[0], d.mean(1)), "not over the outputs"),
        (lambda d, x: (batch(d, x)[0], 0 * d[0]), "belongs to a bias"),
        (lambda d, x: batch(d, x)[0], "return both"),
    ],
)
def test_a_wrong_batch_is_told_what_it_averaged(learner, hint):
    assert_right(check.batch, batch)
    assert_refused(check.batch, learner, hint=hint)


def paired(a, b):
    return (b - a).mean(), (b - a).std() / len(a) ** 0.5


def with_mean(mean):
    return lambda a, b: (mean(a, b), paired(a, b)[1])


def with_error(error):
    return lambda a, b: (paired(a, b)[0], error(a, b))


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (with_mean(lambda a, b: (a - b).mean()), "is b - a"),
        (with_mean(lambda a, b: (b - a).abs().mean()), "no absolute values"),
        (with_mean(lambda a, b: (b - a).sum()), "sum over the clients"),
        (with_mean(lambda a, b: 7.0), "the mean of b - a"),
        (
            with_error(lambda a, b: ((a.var() + b.var()) / len(a)) ** 0.5),
            "take the differences first",
        ),
        (with_error(lambda a, b: (b - a).std()), "spread of one client"),
        (with_error(lambda a, b: (b - a).std() / len(a)), "not by n"),
        (
            with_error(lambda a, b: (b - a).std(correction=0) / len(a) ** 0.5),
            "n - 1, as",
        ),
        (with_error(lambda a, b: (b - a).var() / len(a)), "take the root"),
        (with_error(lambda a, b: 7.0), "over the root of n"),
        (lambda a, b: (b - a).mean(), "return both"),
    ],
)
def test_a_wrong_comparison_is_told_what_it_mixed_up(learner, hint):
    assert_right(check.paired, paired)
    assert_refused(check.paired, learner, hint=hint)


@pytest.mark.parametrize(
    ("small", "large", "hint"),
    [
        (20, 80, "more steps"),
        (80, 80, "not the first"),
        (16, 80, "size in pixels"),
        (10, 80, "add steps until"),
        (40, 40, "more steps"),
        (40, 160, "not the first"),
        (40, 32, "size in pixels"),
    ],
)
def test_a_wrong_number_of_steps_is_told_where_to_go(small, large, hint):
    assert_right(check.steps_needed, 40, 80)
    assert_refused(check.steps_needed, small, large, hint=hint)


def test_the_open_question_wants_some_sentences():
    assert_refused(check.late_start, "", hint="not answered", state="unanswered")
    assert_refused(check.late_start, "That is safe.", hint="3 words are few")

"""Typical wrong answers, and what each is told."""

from math import log

import pytest
import torch
from marking import assert_refused, assert_right

from precode_lib.checks import noise as check


@pytest.mark.parametrize(
    ("answers", "hint"),
    [
        ((3, 0.9, 0.1, 144), "these are odds"),
        ((0.25, 0.9, 0.1, 144), r"\*not\* in the set"),
        ((log(3), 0.9, 0.1, 144), "ε itself"),
        ((1.5, 0.9, 0.1, 144), "not the probability"),
        ((0.5, 0.9, 0.1, 144), "become at most"),
        ((0.75, 6 / 7, 0.1, 144), "factors do not add"),
        ((0.75, 9, 0.1, 144), "these are odds"),
        ((0.75, 0.75, 0.1, 144), "used up twice"),
        ((0.75, 9 / 16, 0.1, 144), "not probabilities"),
        ((0.75, 1, 0.1, 144), "once more"),
        ((0.75, 0.9, 0.6 / 36, 144), "its root by less"),
        ((0.75, 0.9, 0.6, 144), "cancels in part"),
        ((0.75, 0.9, 3.6, 144), "noise of the sum"),
        ((0.75, 0.9, 0.01, 144), "that is a variance"),
        ((0.75, 0.9, 0, 144), "variances of independent"),
        ((0.75, 0.9, 0.1, 72), "four times as many"),
        ((0.75, 0.9, 0.1, 12), "the root of the number"),
        ((0.75, 0.9, 0.1, 36), "solve"),
    ],
)
def test_a_wrong_promise_by_hand_is_told_which_step_failed(answers, hint):
    assert_right(check.by_hand, 0.75, 0.9, 0.1, 144)
    assert_refused(check.by_hand, *answers, hint=hint)


@pytest.mark.parametrize(
    ("answers", "hint"),
    [
        ((0.5, 0.1, 400, 1.5), "bias entry is noisy"),
        ((0.5 * 3**0.5, 0.1, 400, 1.5), "weights are noisy"),
        ((2, 0.1, 400, 1.5), "under a root"),
        ((0, 0.1, 400, 1.5), "first line"),
        ((1, 0.05, 400, 1.5), "missing here"),
        ((1, 1, 400, 1.5), "error of one row"),
        ((1, 0.01, 400, 1.5), "not the sum"),
        ((1, 1 / 30, 400, 1.5), "units that are off"),
        ((1, 7, 400, 1.5), "takes the place"),
        ((1, 0.1, 200, 1.5), "root of two"),
        ((1, 0.1, 300, 1.5), "to be added"),
        ((1, 0.1, 900, 1.5), "twice as large"),
        ((1, 0.1, 400, 0.5), "k is 900"),
        ((1, 0.1, 400, 0.05), "not one"),
        ((1, 0.1, 400, 45), "squares add"),
        ((1, 0.1, 400, 15), "all of δ"),
        ((1, 0.1, 400, 1), "lengths"),
    ],
)
def test_wrong_noise_by_hand_is_told_which_part_of_the_formula(answers, hint):
    assert_right(check.loudness, 1, 0.1, 400, 1.5)
    assert_refused(check.loudness, *answers, hint=hint)


def quotients(dW, db):
    return dW / db[:, None]


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (lambda dW, db: dW.mean(0) / db.mean(), "averages first"),
        (lambda dW, db: quotients(dW, db).mean(0), "ruins it"),
        (
            lambda dW, db: quotients(dW[db != 0], db[db != 0]).mean(0),
            "are the noisiest",
        ),
        (lambda dW, db: quotients(dW, db)[db.abs().argmax()], "largest row alone"),
        (lambda dW, db: db.sign() @ dW / db.abs().sum(), "by its square"),
        (lambda dW, db: db @ dW, "sum of the weights"),
        (lambda dW, db: dW[0], "set the derivative"),
        (lambda dW, db: dW @ dW.T @ db, "should be a tensor of shape"),
    ],
)
def test_a_wrong_fit_is_told_what_it_weighs(learner, hint):
    assert_right(check.all_rows, lambda dW, db: db @ dW / (db @ db))
    assert_refused(check.all_rows, learner, hint=hint)


def clipped(rows, limit):
    return rows * limit / rows.norm(dim=-1, keepdim=True).clamp(min=limit)


def private_mean(g, limit, multiplier, noise):
    return (clipped(g, limit).sum(0) + multiplier * limit * noise) / len(g)


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (
            lambda g, c, m, n: clipped(g.mean(0), c) + m * c * n / len(g),
            "not their mean",
        ),
        (lambda g, c, m, n: clipped(g, c).mean(0) + m * c * n, "divided by B with"),
        (lambda g, c, m, n: private_mean(g, c, m / c, n), "units of C"),
        (lambda g, c, m, n: private_mean(g, c, m, n) * len(g), "this is the sum"),
        (
            lambda g, c, m, n: private_mean(1e9 * g, c, m, n),
            "clipping only shortens",
        ),
        (
            lambda g, c, m, n: (g.clamp(-c, c).sum(0) + m * c * n) / len(g),
            "not its entries",
        ),
        (lambda g, c, m, n: (g.sum(0) + m * c * n) / len(g), "nothing was clipped"),
        (lambda g, c, m, n: 0 * n, "first clip each row"),
        (
            lambda g, c, m, n: private_mean(g, c, m, torch.randn_like(n)),
            "none of your own",
        ),
    ],
)
def test_a_wrong_private_step_is_told_what_it_misses(learner, hint):
    assert_right(check.private_mean, private_mean)
    assert_refused(check.private_mean, learner, hint=hint)


@pytest.mark.parametrize(
    ("rounds", "beyond", "hint"),
    [
        (16, 6400, "still is below"),
        (256, 6400, "not the first"),
        (1, 6400, "one round is not enough"),
        (4, 6400, "add rounds until"),
        (64, 640, "more than ten times"),
        (64, 256, "not twice"),
        (64, 64, "noise has grown"),
        (64, 100, "that is the factor"),
        (64, 1000, "doubling σ cost"),
    ],
)
def test_a_wrong_number_of_rounds_is_told_where_to_go(rounds, beyond, hint):
    assert_right(check.enough_rounds, 64, 6400)
    assert_refused(check.enough_rounds, rounds, beyond, hint=hint)


def test_the_open_question_wants_some_sentences():
    assert_refused(check.two_promises, "", hint="not answered", state="unanswered")
    assert_refused(check.two_promises, "It is private.", hint="3 words are few")

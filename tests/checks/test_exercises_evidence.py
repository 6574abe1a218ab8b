"""Typical wrong answers about rates of success, and what each is told."""

import pytest
import torch
from marking import assert_refused, assert_right

from precode_lib.checks import evidence as check
from precode_lib.checks.evidence import figure5

RIGHT = (245, 163, 18.75, 81.25)


@pytest.mark.parametrize(
    ("place", "wrong", "hint"),
    [
        (0, 82, "take all three"),
        (1, 54, "take all three"),
        (0, 244.992, "a whole number"),
        (1, 221, "the failures"),
        (0, 240, "the share times 384"),
        (2, 0.1875, "in percent"),
        (2, 6.25, "the same 16 pictures"),
        (2, 0, "not all that is possible"),
        (3, 100, "not all that is possible"),
        (3, 18.75, "the other answer's"),
        (3, 93.75, "the same 16 pictures"),
        (3, 50, "three divided by"),
    ],
)
def test_a_wrong_count_by_hand_is_told_what_to_count(place, wrong, hint):
    assert_right(check.by_hand, *RIGHT)
    answers = [*RIGHT[:place], wrong, *RIGHT[place + 1 :]]
    assert_refused(check.by_hand, *answers, hint=hint)


def rates(ssim):
    return 100 * (ssim >= 0.6).double().mean(1)


@pytest.mark.parametrize(
    ("mean", "spread", "hint"),
    [
        (lambda s: 100 * (s > 0.6).double().mean(), None, "itself counts"),
        (lambda s: (s >= 0.6).double().mean(), None, "in percent, please"),
        (lambda s: 100 - rates(s).mean(), None, "the failures"),
        (lambda s: s.mean(), None, "the mean SSIM: count"),
        (lambda s: 100 * s.mean(), None, "mean SSIM in percent"),
        (lambda s: 100 * (s.mean(1) >= 0.6).double().mean(), None, "no success"),
        (lambda s: torch.tensor(120.0), None, "share of successes of each"),
        (None, lambda s: rates(s).std(correction=0), "minus 1"),
        (None, lambda s: 100 * (s >= 0.6).double().std(), "over all victims"),
        (None, lambda s: rates(s).std() / 100, "like the mean"),
        (None, lambda s: rates(s).std() / len(s) ** 0.5, "standard error"),
        (None, lambda s: rates(s).var(), "its root"),
        (None, lambda s: s.mean(1).std(), "seeds' mean SSIM"),
        (None, lambda s: rates(s).max() - rates(s).min(), "the range"),
        (None, lambda s: -1, "the sample standard deviation"),
    ],
)
def test_a_wrong_rate_is_told_what_it_is(mean, spread, hint):
    def learner(ssim):
        return [
            mean(ssim) if mean else rates(ssim).mean(),
            spread(ssim) if spread else rates(ssim).std(),
        ]

    assert_right(check.success_rate, lambda s: (rates(s).mean(), rates(s).std()))
    assert_refused(check.success_rate, learner, hint=hint)


def test_a_rate_without_spread_is_told_to_return_two_numbers():
    assert_refused(check.success_rate, lambda s: rates(s).mean(), hint="two numbers")


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (lambda n: min(1, 3 / n), "solve the equation|to the power n"),
        (lambda n: 0.05 ** (1 / n), "this is 1 - p"),
        (lambda n: 1 - 0.95 ** (1 / n), "probability of seeing none"),
        (lambda n: 0, "none ever will"),
        (lambda n: 100 - 100 * 0.05 ** (1 / n), "not percent"),
        (lambda n: 1 / (n + 1), "the next one"),
        (lambda n: 0.5, "to the power n"),
        (lambda n: "small", "should be a number"),
    ],
)
def test_a_wrong_bound_is_told_which_equation_it_solves(learner, hint):
    assert_right(check.highest_rate, lambda n: 1 - 0.05 ** (1 / n))
    assert_refused(check.highest_rate, learner, hint=hint)


def test_the_rule_of_three_alone_is_not_enough_for_few_victims():
    def exact_for_one(n):
        return 0.95 if n == 1 else 3 / n

    assert_refused(check.highest_rate, exact_for_one, hint="is for many victims")


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (0.5, "all seeds together"),
        (0.3, "at the next step"),
        (0.6, "the three seeds disagree"),
        (0.2, "seed by seed"),
        (0.7, "seed by seed"),
    ],
)
def test_a_wrong_threshold_is_told_where_to_go(value, hint):
    assert_right(check.threshold, 0.4)
    assert_refused(check.threshold, value, hint=hint)


def test_the_open_question_wants_some_sentences():
    assert_refused(check.printed_strengths, "A typo.", hint="words are few")
    assert_right(check.printed_strengths, " ".join(f"reason{i}" for i in range(30)))


def test_the_counts_that_the_solution_names_are_those_of_the_files():
    dmlp, lenet = (torch.stack([s for s, _ in runs]) for runs in figure5().values())
    counts = [[int((s >= 0.6).sum()) for s in row] for row in (dmlp, lenet)]
    assert counts == [[1, 1, 2], [3, 1, 0]]
    assert [int((row >= 0.5).sum()) for row in (dmlp, lenet)] == [11, 7]

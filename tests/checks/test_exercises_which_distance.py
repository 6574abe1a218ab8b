"""Typical wrong answers about likelihoods, and what each is told."""

import pytest
import torch
from marking import assert_refused, assert_right
from right_answers import solved

from precode_lib.checks import which_distance as check

BY_HAND = (50, 112.5, 20, 15)
SOLVED = solved("which_distance")


@pytest.mark.parametrize(
    ("place", "wrong", "hint"),
    [
        (0, 100, "the 2 below the square"),
        (1, 22.5, "σ is squared"),
        (1, 9, "divide by the size"),
        (1, 15, "the other noise's formula"),
        (1, -112.5, "it is positive"),
        (2, 100, "b is not squared"),
        (3, 7.5, "no 2"),
        (3, 3, "divide by the size"),
        (3, 112.5, "the other noise's formula"),
        (3, -15, "it is positive"),
    ],
)
def test_a_wrong_distance_by_hand_is_told_what_is_missing(place, wrong, hint):
    assert_right(check.by_hand, *BY_HAND)
    answers = [*BY_HAND[:place], wrong, *BY_HAND[place + 1 :]]
    assert_refused(check.by_hand, *answers, hint=hint)


def off(guess, shared, step):
    return (guess - shared).abs() / step


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (lambda g, s, step: off(g, s, step).square().sum(1), "half a step is free"),
        (
            lambda g, s, step: (off(g, s, step) - 1).clamp(min=0).square().sum(1),
            "not a whole one",
        ),
        (
            lambda g, s, step: ((g - s).abs() - step / 2).clamp(min=0).square().sum(1),
            "divide by the step",
        ),
        (
            lambda g, s, step: (off(g, s, step) - 0.5).clamp(min=0).sum(1),
            "square what is outside",
        ),
        (
            lambda g, s, step: ((g - s) / step - 0.5).clamp(min=0).square().sum(1),
            "below as well",
        ),
        (
            lambda g, s, step: (off(g, s, step) - 0.5).square().sum(1),
            "not better than one at the wall",
        ),
        (
            lambda g, s, step: (off(g, s, step) - 0.5).clamp(min=0).square().sum(),
            "for each victim",
        ),
        (
            lambda g, s, step: (off(g, s, step) - 0.5).clamp(min=0).square().mean(1),
            "not their mean",
        ),
    ],
)
def test_a_wrong_cell_is_told_where_its_wall_is(learner, hint):
    assert_right(check.outside_the_cell, SOLVED["outside_the_cell"][1][0])
    assert_refused(check.outside_the_cell, learner, hint=hint)


def parts(guess, shared, scale, power=1):
    apart = shared.abs() / scale, (shared - guess).abs() / scale
    return [-(each**power) / power for each in apart]


def in_logs(guess, shared, ratio, scale, power=1):
    alone, below = parts(guess, shared, scale, power)
    ratios = torch.tensor([ratio, 1 - ratio]).log()
    return -torch.logaddexp(alone + ratios[0], below + ratios[1])


def by_exponentials(guess, shared, ratio, scale):
    alone, below = parts(guess, shared, scale)
    return -(ratio * alone.exp() + (1 - ratio) * below.exp()).log().sum(1)


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (lambda g, s, r, b: in_logs(g, s, 1 - r, b).sum(1), "share that was dropped"),
        (lambda g, s, r, b: in_logs(g, s, r, b, 2).sum(1), "no squares"),
        (
            lambda g, s, r, b: -torch.logaddexp(*parts(g, s, b)).sum(1),
            "logarithm of the ratios is missing",
        ),
        (lambda g, s, r, b: -in_logs(g, s, r, b).sum(1), "minus the logarithm"),
        (by_exponentials, "torch.logaddexp"),
        (lambda g, s, r, b: in_logs(g, s, r, 1).sum(1), "divide by the scale"),
        (lambda g, s, r, b: in_logs(g, s, r, b).sum(), "for each victim"),
        (lambda g, s, r, b: in_logs(g, s, r, b).mean(1), "not their mean"),
    ],
)
def test_a_wrong_mixture_is_told_which_part(learner, hint):
    assert_right(check.mixture, SOLVED["mixture"][1][0])
    assert_refused(check.mixture, learner, hint=hint)


NOISES = ("absolute", "mixture", "coin", "squared")


@pytest.mark.parametrize(
    ("place", "wrong", "hint"),
    [
        (0, "squared", "more outliers than a Gaussian"),
        (1, "absolute", "large and came as nearly nothing"),
        (2, "mixture", "how many different numbers"),
        (3, "absolute", "no number is special"),
        (3, "cosine", 'one of "absolute", "coin"'),
    ],
)
def test_a_wrong_noise_is_told_where_it_shows(place, wrong, hint):
    assert_right(check.nobody_told, *NOISES)
    answers = [*NOISES[:place], wrong, *NOISES[place + 1 :]]
    assert_refused(check.nobody_told, *answers, hint=hint)


def test_each_noise_shows_in_what_the_hints_ask_for():
    pairs = {name: check.own_and_shared(name) for name in "ABCD"}
    numbers = {name: len(came.unique()) for name, (_, came) in pairs.items()}
    assert numbers["C"] == 7 and min(numbers[n] for n in "ABD") > 4000
    differences = {name: came - own for name, (own, came) in pairs.items()}
    beyond = {n: (d.abs() > 3 * d.std()).sum().item() for n, d in differences.items()}
    assert beyond["A"] > 4 * beyond["D"] > 0
    own, came = pairs["B"]
    large = own.abs() > 2
    lost = (came[large] - own[large]).abs() > came[large].abs()
    assert 0.4 < lost.float().mean() < 0.6


def test_the_open_question_is_handed_in_for_a_person():
    verdict = check.clipped.judge(SOLVED["clipped"][1][0])
    assert verdict.is_right and "clips the guess as well" in verdict.message
    assert_refused(check.clipped, "The cosine.", hint="words are few")

"""Typical wrong answers about what an epsilon buys, and what each is told."""

from math import exp, sqrt
from statistics import NormalDist

import pytest
import torch
from marking import assert_refused, assert_right
from right_answers import solved

from precode_lib.checks import epsilon as check
from precode_lib.defenses import reconstruction_bound

NORMAL = NormalDist()
ODDS = 0.3085 / 0.0668
BY_HAND = (ODDS, ODDS / (3 + ODDS), 0.3085 - 2 * 0.0668)
EQUAL = (1.08, 0.52, "rare", 3.67)


@pytest.mark.parametrize(
    ("place", "wrong", "hint"),
    [
        (0, 0.6915 / 0.9332, "left of the line"),
        (0, 0.0668 / 0.3085, "goes on top"),
        (0, exp(1), "densities at the line"),
        (0, 1.0, "look up 0.5"),
        (1, ODDS / 3, "odds / .1 . odds."),
        (1, ODDS / 4, "not the probability"),
        (1, ODDS / (1 + ODDS), "even odds before"),
        (1, ODDS / (4 + ODDS), "not 1 : 4"),
        (2, 0.3085 - 0.6931 * 0.0668, "its logarithm"),
        (2, 0.3085 - 0.0668, "for ε = 0"),
        (2, 2 * 0.3085 - 0.0668, "before the area without"),
        (2, 0.3085 - 7.389 * 0.0668, "not e²"),
    ],
)
def test_a_wrong_area_by_hand_is_told_which_it_is(place, wrong, hint):
    assert_right(check.by_hand, *BY_HAND)
    answers = [*BY_HAND[:place], wrong, *BY_HAND[place + 1 :]]
    assert_refused(check.by_hand, *answers, hint=hint)


def shifted(change, start=NORMAL.inv_cdf, end=NORMAL.cdf):
    return lambda kappa, m, T: end(start(kappa) + change(m, T))


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (shifted(lambda m, T: T / m), "√T, not T"),
        (shifted(lambda m, T: 1 / m), "T is missing"),
        (shifted(lambda m, T: sqrt(T) * m), "divide by m"),
        (shifted(lambda m, T: sqrt(T) / m, start=float), "normal scale first"),
        (shifted(lambda m, T: sqrt(T) / m, end=float), "still on the normal scale"),
        (shifted(lambda m, T: -sqrt(T) / m), "plus"),
        (shifted(lambda m, T: sqrt(T / m)), "of T alone"),
        (lambda kappa, m, T: kappa * exp(sqrt(T) / m), "and back"),
    ],
)
def test_a_wrong_bound_is_told_what_it_did(learner, hint):
    assert_right(
        check.bound,
        lambda kappa, m, T: reconstruction_bound(kappa, noise_multiplier=m, steps=T),
    )
    assert_refused(check.bound, learner, hint=hint)


def clipped(gradients, C):
    return gradients * (C / gradients.norm(dim=1, keepdim=True)).clamp(max=1)


def likely(seen, sent, std, prior):
    return (prior.log() - (seen - sent).square().sum(1) / (2 * std**2)).softmax(0)


def right(seen, gradients, C, m, prior):
    return likely(seen, clipped(gradients, C), m * C, prior)


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (lambda s, g, C, m, p: likely(s, g, m * C, p), "clip the candidates"),
        (
            lambda s, g, C, m, p: likely(
                s, C * g / g.norm(dim=1, keepdim=True), m * C, p
            ),
            "only shortens",
        ),
        (
            lambda s, g, C, m, p: likely(s, clipped(g, C), m * C, torch.ones_like(p)),
            "equally probable before",
        ),
        (lambda s, g, C, m, p: likely(s, clipped(g, C), m, p), "in units of C"),
        (
            lambda s, g, C, m, p: likely(s, clipped(g, C), m * C / sqrt(2), p),
            "below",
        ),
        (
            lambda s, g, C, m, p: (p.log() + clipped(g, C) @ s / (m * C) ** 2).softmax(
                0
            ),
            "use the distance",
        ),
        (lambda *a: right(*a).log(), "softmax"),
        (lambda *a: right(*a).argmax(), "should be"),
    ],
)
def test_a_wrong_posterior_is_told_what_the_client_did(learner, hint):
    assert_right(check.posterior, right)
    assert_refused(check.posterior, learner, hint=hint)


@pytest.mark.parametrize(
    ("place", "wrong", "hint"),
    [
        (0, 0.52, "the other setting's"),
        (0, 0.7, "until ε is about 4"),
        (1, 1.08, "the other setting's"),
        (1, 4, "asked for is the noise"),
        (2, "whole", "of a hundred guesses"),
        (2, "both", "compare the guesses"),
        (2, "neither", "one of"),
        (3, 1 / 3.67, "goes on top"),
        (3, 1.0, "yet the shares are not"),
        (3, 1.08 / 0.52, "ratio of the noises"),
        (3, 0.0587, "a difference"),
    ],
)
def test_a_wrong_comparison_of_equal_epsilons_is_told_where_to_look(place, wrong, hint):
    assert_right(check.equal, *EQUAL)
    assert_refused(check.equal, *EQUAL[:place], wrong, *EQUAL[place + 1 :], hint=hint)


def test_an_opinion_on_a_promise_is_left_to_a_person():
    text = solved("epsilon")["whose_promise"][1][0]
    verdict = check.whose_promise.judge(text)
    assert verdict.is_right and "unit (a record" in verdict.message
    assert_refused(check.whose_promise, "It is private.", hint="words are few")


def test_a_rounded_look_at_the_squares_is_enough():
    for times in (3.5, 3.6, 3.8):
        assert_right(check.equal, *EQUAL[:3], times)


def test_a_hundred_squares_show_the_share():
    for share, coloured in ((0.0, 0), (0.081, 8), (1.0, 100)):
        pixels = check.hundred(share)
        assert pixels.shape == (3, 99, 99)
        corners = pixels[2, ::10, ::10]
        assert int((corners == 0).sum()) == coloured

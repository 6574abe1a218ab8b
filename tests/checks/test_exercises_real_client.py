"""Typical wrong answers about real clients, and what each is told."""

import pytest
import torch
from marking import assert_refused, assert_right
from right_answers import solved

from precode_lib.checks import real_client as check

BY_HAND = ([6, -2], 2, [3, -1], [0.65 / 0.22, -0.3 / 0.22])


@pytest.mark.parametrize(
    ("place", "wrong", "hint"),
    [
        (0, [6.5, -3], "weights are missing"),
        (0, [7, -4], "subtract it"),
        (0, [1.5, 7], "divide by the rate first"),
        (0, [0.15, 0.7], "the rate is missing"),
        (0, [1, 1], "less the decay times"),
        (1, 2.2, "bias decays as well"),
        (1, 0.2, "the same with the bias"),
        (2, [0.65 / 0.22, -0.3 / 0.22], "as it was sent"),
        (2, [1 / 3, -1], "the other way round"),
        (3, [3, -1], "left where it is"),
        (3, [0, 0], "over the update of the bias"),
    ],
)
def test_a_wrong_number_by_hand_is_told_what_is_missing(place, wrong, hint):
    assert_right(check.by_hand, *BY_HAND)
    answers = [*BY_HAND[:place], wrong, *BY_HAND[place + 1 :]]
    assert_refused(check.by_hand, *answers, hint=hint)


def slope(update, weights, lr, decay, momentum, buffer):
    past = 0 if buffer is None else momentum * buffer
    return update / lr - past - decay * weights


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (lambda u, w, lr, d, m, b: u / lr, "decay is still in it"),
        (lambda u, w, lr, d, m, b: u / lr + d * w, "subtracted, not added"),
        (lambda u, w, lr, d, m, b: u - d * w, "divide first"),
        (lambda *given: -slope(*given), "its sign is the slope's"),
        (lambda *given: (1 - given[4]) * slope(*given), "is the slope, undamped"),
        (lambda u, w, lr, d, m, b: u / lr - d * w, "share is still in it"),
        (
            lambda u, w, lr, d, m, b: u / lr - d * w - (0 if b is None else b),
            "multiplied with momentum first",
        ),
        (
            lambda u, w, lr, d, m, b: (
                slope(u, w, lr, d, m, b) / (1 if b is None else 1 - m)
            ),
            "nothing is damped",
        ),
        (lambda u, w, lr, d, m, b: torch.zeros_like(u), "solve update ="),
    ],
)
def test_a_wrong_gradient_is_told_what_is_still_in_it(learner, hint):
    assert_right(check.gradient, slope)
    assert_refused(check.gradient, learner, hint=hint)


def quotient(dW, db, W, b, lost, lost_bias=None):
    rows = dW - lost * W
    slopes = db - (lost if lost_bias is None else lost_bias) * b
    unit = slopes.abs().argmax()
    return rows[unit] / slopes[unit]


def kept(lr, decay, steps):
    return (1 - lr * decay) ** steps


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (lambda dW, db, W, b, *how: quotient(dW, db, W, b, 0), "decay is still in"),
        (
            lambda dW, db, W, b, lr, d, n: quotient(dW, db, W, b, lr * d),
            "more of the weights is gone",
        ),
        (
            lambda dW, db, W, b, lr, d, n: quotient(dW, db, W, b, n * lr * d),
            "a power, no product",
        ),
        (
            lambda dW, db, W, b, *how: quotient(dW, db, W, b, kept(*how)),
            "what is lost is due",
        ),
        (
            lambda dW, db, W, b, *how: quotient(dW, db, W, b, 1 - kept(*how), 0),
            "bias decays as well",
        ),
        (lambda dW, *rest: dW[0], "then divide"),
    ],
)
def test_a_wrong_picture_is_told_what_was_left_in_it(learner, hint):
    assert_right(check.picture, solved("real_client")["picture"][1][0])
    assert_refused(check.picture, learner, hint=hint)


@pytest.mark.parametrize(
    ("place", "wrong", "hint"),
    [
        (0, 1, "not a thousandth"),
        (0, 10, "one further"),
        (0, 5, "move the steps from the left"),
        (1, "yes", "under the last picture"),
        (2, "falls", "one step and fifty"),
        (2, "grows", "one step and fifty"),
    ],
)
def test_a_misread_slider_is_told_where_to_look(place, wrong, hint):
    right = (20, "no", "hardly")
    assert_right(check.local_steps, *right)
    answers = [*right[:place], wrong, *right[place + 1 :]]
    assert_refused(check.local_steps, *answers, hint=hint)


def test_the_slider_shows_what_the_answers_say():
    for optimizer in check.OPTIMIZERS:
        for steps in check.STEPS:
            as_sent, undone = check.errors(optimizer, steps)
            if optimizer != "Adam":
                assert undone < 1e-4 and undone <= as_sent
    adam = [check.errors("Adam", steps)[0] for steps in check.STEPS]
    assert max(adam) - min(adam) < 1e-3 < min(adam)


def test_a_client_of_one_s_own_is_handed_in_for_a_person():
    text = solved("real_client")["conditions"][1][0]
    verdict = check.conditions.judge(text)
    assert verdict.is_right and "running averages" in verdict.message
    assert_refused(check.conditions, "We use Adam.", hint="words are few")

"""Typical wrong answers about what gets through, and what each is told."""

from math import log

import pytest
import torch
from marking import assert_refused, assert_right

from precode_lib.checks import is_it_safe as check
from precode_lib.defenses import epsilon

RIGHT = ([2 / 3, 2 / 3], 1 / 3, [2, 2], [1, 1])


@pytest.mark.parametrize(
    ("place", "wrong", "hint"),
    [
        (0, [2, 2], "not clipped yet"),
        (0, [0.70711, 0.70711], "not one for each part"),
        (0, [1, 1], "not cut off at 1"),
        (0, [2 / 9, 2 / 9], "divide by the length"),
        (1, 1, "not clipped yet"),
        (1, 0.2, "not the sum"),
        (1, 0.5, "together is 3"),
        (2, [2 / 3, 2 / 3], "divide it by the clipped db"),
        (2, [6, 6], "use what was sent"),
        (3, [2, 2], "without the noise"),
        (3, [1.5, 1.5], "comes after the clipping"),
        (3, [1, 0], "only the denominator"),
        (3, 1, "should be a tensor of shape"),
    ],
)
def test_a_wrong_clipping_by_hand_is_told_which_step_failed(place, wrong, hint):
    assert_right(check.by_hand, *RIGHT)
    answers = [*RIGHT[:place], wrong, *RIGHT[place + 1 :]]
    assert_refused(check.by_hand, *answers, hint=hint)


def opposed(dW):
    """The row that points against the others."""
    signs = dW.sum(1).sign()
    return int((signs != signs.sum().sign()).int().argmax())


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (lambda dW: int(dW.sum(1).argmin()), "the least row sum"),
        (lambda dW: int(dW.sum(1).argmax()), "the largest row sum"),
        (lambda dW: int(dW.norm(dim=1).argmin()), "special|row sum"),
        (lambda dW: int(dW.norm(dim=1).argmax()) + 1, "count classes from 0|row sum"),
        (lambda dW: 99, "points against all others"),
        (lambda dW: dW.sum(1), "should be a number, got a tensor of shape"),
    ],
)
def test_a_wrong_label_rule_is_told_what_it_relies_on(learner, hint):
    assert_right(check.label_without_bias, lambda dW: int(dW.norm(dim=1).argmax()))
    assert_right(check.label_without_bias, opposed)
    assert_refused(check.label_without_bias, learner, hint=hint)


def quotients(dW, db):
    return dW[db != 0] / db[db != 0, None]


def agreeing(dW, db, *, once=True):
    found = quotients(dW, db)
    agree = (torch.cdist(found, found) < 1e-3).fill_diagonal_(False)
    first = ~agree.tril().any(1) if once else True
    return found[agree.any(1) & first]


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (lambda dW, db: dW / db[:, None], "a unit that was off"),
        (quotients, "one row alone proves nothing"),
        (lambda dW, db: agreeing(dW, db, once=False), "keep one of them"),
        (lambda dW, db: agreeing(dW, db)[:1], "compare every two rows"),
        (lambda dW, db: agreeing(dW, db)[1:], "compare every two rows"),
        (lambda dW, db: agreeing(dW, db) * 1.5, "keep what two rows agree"),
        (lambda dW, db: agreeing(dW, db)[0], "torch.stack the pictures"),
        (lambda dW, db: 3, "torch.stack the pictures"),
        (lambda dW, db: [], "compare every two rows"),
    ],
)
def test_wrong_pictures_of_a_batch_are_told_what_they_are(learner, hint):
    assert_right(check.seen_alone, agreeing)
    assert_refused(check.seen_alone, learner, hint=hint)


def test_a_batch_that_hides_all_its_pictures_is_tried():
    def at_least_one(dW, db):
        found = agreeing(dW, db)
        return found if len(found) else quotients(dW, db)[:1]

    assert_refused(check.seen_alone, at_least_one, hint="one row alone proves nothing")


@pytest.mark.parametrize(
    ("clipping", "multiplier", "hint"),
    [
        ("yes", 3e-4, "clipping and nothing else"),
        ("perhaps", 3e-4, "should be one of"),
        ("no", 1e-3, "one step back"),
        ("no", 1e-4, "still above 0.6"),
        ("no", 0.1, "move the slider"),
    ],
)
def test_a_wrong_level_of_noise_is_told_where_to_go(clipping, multiplier, hint):
    assert_right(check.too_little_noise, "no", 3e-4)
    assert_refused(check.too_little_noise, clipping, multiplier, hint=hint)


def test_the_open_question_wants_some_sentences():
    assert_refused(check.convolution_first, "All change.", hint="words are few")
    assert_right(check.convolution_first, " ".join(f"reason{i}" for i in range(30)))


def loss(m, rate, order):
    return check._renyi_loss(m, rate, order)


def promise(m, rate, steps, delta, orders):
    return min(steps * loss(m, rate, a) + log(1 / delta) / (a - 1) for a in orders)


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (lambda m, q, T, d, orders: promise(m, q, 1, d, orders), "they add up"),
        (
            lambda m, q, T, d, orders: min(T * loss(m, q, a) for a in orders),
            "the part with delta is missing",
        ),
        (
            lambda m, q, T, d, orders: max(promise(m, q, T, d, [a]) for a in orders),
            "so take the least",
        ),
        (
            lambda m, q, T, d, orders: promise(m, q, T, d, orders[:1]),
            "the first order alone",
        ),
        (lambda m, q, T, d, orders: promise(m, 1.0, T, d, orders), "rate is missing"),
        (
            lambda m, q, T, d, orders: min(
                T * (a - 1) * loss(m, q, a) + log(1 / d) / (a - 1) for a in orders
            ),
            "by the order minus 1",
        ),
        (lambda m, q, T, d, orders: 1.0, "the sum has three terms"),
    ],
)
def test_a_wrong_accountant_is_told_what_it_forgot(learner, hint):
    assert_right(check.accountant, promise)
    assert_refused(check.accountant, learner, hint=hint)


@pytest.mark.parametrize(
    ("m", "rate", "steps"), [(1.0, 0.04, 160), (2.0, 0.01, 1000), (0.7, 1.0, 1)]
)
def test_the_accountant_of_the_exercise_promises_little_more_than_opacus(
    m, rate, steps
):
    pytest.importorskip("opacus")
    ours = promise(m, rate, steps, 1e-5, range(2, 64 if m > 1 else 24))
    exact = epsilon(m, sample_rate=rate, steps=steps, delta=1e-5)
    assert exact < ours < 1.35 * exact  # Opacus ends with a tighter step

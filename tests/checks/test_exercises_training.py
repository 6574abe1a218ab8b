"""Typical wrong answers about training, and what each is told."""

from functools import partial

import pytest
import torch
from marking import assert_refused, assert_right
from torch.nn import functional as F

from precode_lib.checks import training as check

pairs = partial(zip, strict=False)  # of a list with no or fewer entries
RIGHT = (0.03, 0.04, 0.05, 2500)


@pytest.mark.parametrize(
    ("place", "wrong", "hint"),
    [
        (0, 0.0009, "this is the variance"),
        (0, 0.3, "divide by N = 100"),
        (1, 0.004, "not after"),
        (1, 4, "not in percent"),
        (0, 0.009**0.5, r"\(1 - a\) is missing"),
        (2, 0.07, "their squares do"),
        (2, 0.01, "not less"),
        (2, 0.0007**0.5, "nothing is subtracted"),
        (2, 0.0025, "the root is missing"),
        (3, 500, "five times the pictures"),
        (3, 1600, "has A's as well"),
        (3, 10000, "a fifth of the error"),
    ],
)
def test_a_wrong_error_by_hand_is_told_which_step_failed(place, wrong, hint):
    assert_right(check.by_hand, *RIGHT)
    answers = [*RIGHT[:place], wrong, *RIGHT[place + 1 :]]
    assert_refused(check.by_hand, *answers, hint=hint)


def priced(logits, labels, prices, entropy=F.cross_entropy):
    return entropy(logits, labels) + sum(prices)


def right_loss(logits, labels, kls, betas):
    return priced(logits, labels, [b * k.mean() for b, k in pairs(betas, kls)])


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (lambda z, y, k, b: len(z) * right_loss(z, y, k, b), "a sum over the pictures"),
        (
            lambda z, y, k, b: priced(z, y, [c * kl.sum() for c, kl in pairs(b, k)]),
            "prices are summed",
        ),
        (
            lambda z, y, k, b: priced(z, y, [kl.mean() for kl in k]),
            "betas are missing",
        ),
        (
            lambda z, y, k, b: priced(z, y, [-c * kl.mean() for c, kl in pairs(b, k)]),
            "prices are added",
        ),
        (
            lambda z, y, k, b: priced(z, y, [b[0] * kl.mean() for kl in k]),
            "a beta of its own",
        ),
        (
            lambda z, y, k, b: priced(
                z, y, [c * kl.mean() for c, kl in pairs(b, k[:1])]
            ),
            "only the first",
        ),
        (
            lambda z, y, k, b: right_loss(z.softmax(1), y, k, b),
            "applies softmax by itself",
        ),
        (lambda z, y, k, b: F.cross_entropy(z, y), "price of the code is missing"),
        (lambda z, y, k, b: z.sum(), "add each picture's terms"),
    ],
)
def test_a_wrong_loss_is_told_what_it_left_out(learner, hint):
    def with_some(logits, labels, kls, betas):
        # Some of these fail without a bottleneck; that is not what is tested here.
        return (
            learner(logits, labels, kls, betas)
            if betas
            else right_loss(logits, labels, kls, betas)
        )

    assert_right(check.loss, right_loss)
    assert_refused(check.loss, with_some, hint=hint)


def test_the_mean_over_bottlenecks_is_told_to_add():
    def mean_price(logits, labels, kls, betas):
        prices = [b * kl.mean() / len(kls) for b, kl in pairs(betas, kls)]
        return priced(logits, labels, prices)

    assert_refused(check.loss, mean_price, hint="added, not averaged")


def test_no_bottleneck_at_all_is_tried():
    def first_only(logits, labels, kls, betas):
        return priced(logits, labels, [betas[0] * kls[0].mean()])

    assert_refused(check.loss, first_only, hint="IndexError", state="raised")


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (lambda z: z.mean(0).argmax(1), "mean of the logits"),
        (lambda z: z.argmax(2).mode(0).values, "a vote|probabilities first"),
        (lambda z: F.one_hot(z.argmax(2)).sum(0).argmax(1), "a vote"),
        (lambda z: z[0].argmax(1), "one draw alone"),
        (lambda z: z.softmax(2).amax(0).argmax(1), "surest"),
        (lambda z: z.softmax(0).mean(0).argmax(1), "along the classes"),
        (lambda z: z.softmax(2).mean(0).argmin(1), "probabilities first"),
        (lambda z: z.softmax(2).mean(0), r"shape \(100,\), got"),
    ],
)
def test_a_wrong_average_is_told_what_was_averaged(learner, hint):
    assert_right(check.mean_prediction, lambda z: z.softmax(2).mean(0).argmax(1))
    assert_refused(check.mean_prediction, learner, hint=hint)


@pytest.mark.parametrize(
    ("num_pictures", "hint"),
    [
        (3000, "one further"),
        (1000, "not nine in ten"),
        (30000, "fewer are, too"),
        (100, "move the slider"),
        ("many", "should be a number"),
    ],
)
def test_a_wrong_size_is_told_where_to_go(num_pictures, hint):
    assert_right(check.enough_pictures, 10000)
    assert_refused(check.enough_pictures, num_pictures, hint=hint)


def test_more_pictures_put_the_better_network_ahead_more_often():
    ahead = [(check.comparisons(n) > 0).float().mean() for n in check.SIZES]
    assert ahead == sorted(ahead)
    torch.testing.assert_close(
        check.comparisons(30000).mean(), torch.tensor(390.0), rtol=0.05, atol=0
    )


def test_the_open_question_wants_some_sentences():
    assert_refused(check.other_optimizer, "SGD is worse.", hint="words are few")
    assert_right(check.other_optimizer, " ".join(f"reason{i}" for i in range(30)))

"""Typical wrong answers, and what each is told."""

import pytest
import torch
from marking import assert_refused, assert_right

from precode_lib.checks import matching_directions as check

RIGHT = (0.04, 0.04, 2, 29, 5 / 6)


@pytest.mark.parametrize(
    ("place", "value", "hint"),
    [
        (0, 0.96, "this is the cosine"),
        (0, 1 - 24 / 5, "divided by both lengths"),
        (0, 0.5, "over the product of the lengths"),
        (1, 1 - 48 / 25, "in its length, too"),
        (2, 2**0.5, "asked is its square"),
        (2, 1, "not a mean"),
        (3, 8, "only g is doubled"),
        (3, 2, "does change"),
        (3, 14.5, "not a mean"),
        (4, 3 / 7, "over all seven"),
        (4, 3, "take the means"),
        (4, 1 / 2, "row to row are missing"),
        (4, 1 / 3, "column to column are missing"),
        (4, 5 / 12, "TV is their sum"),
    ],
)
def test_a_wrong_distance_by_hand_is_told_what_it_is(place, value, hint):
    assert_right(check.by_hand, *RIGHT)
    answers = [*RIGHT[:place], value, *RIGHT[place + 1 :]]
    assert_refused(check.by_hand, *answers, hint=hint)


def joined(parts):
    return torch.cat([part.flatten() for part in parts])


def cosine(guess, target):
    one, other = joined(guess), joined(target)
    return (one / one.norm()) @ (other / other.norm())


def tv(image):
    across, down = image[:, :, 1:] - image[:, :, :-1], image[:, 1:] - image[:, :-1]
    return across.abs().mean() + down.abs().mean()


def right_objective(guess, target, image, alpha):
    return 1 - cosine(guess, target) + alpha * tv(image)


def each_angle(guess, target):
    pairs = zip(guess, target, strict=True)
    return torch.stack([1 - cosine([mine], [theirs]) for mine, theirs in pairs])


def summed_tv(image):
    return image.diff(dim=1).abs().sum() + image.diff(dim=2).abs().sum()


def num_steps(image):
    return image.diff(dim=1).numel() + image.diff(dim=2).numel()


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (lambda g, t, x, a: each_angle(g, t).mean() + a * tv(x), "not the mean of one"),
        (lambda g, t, x, a: each_angle(g, t).sum() + a * tv(x), "not a sum of one"),
        (lambda g, t, x, a: cosine(g, t) + a * tv(x), "this is the cosine"),
        (
            lambda g, t, x, a: (joined(g) - joined(t)).square().sum() + a * tv(x),
            "lengths are compared",
        ),
        (lambda g, t, x, a: 1 - cosine(g, t), "variation is missing"),
        (lambda g, t, x, a: 1 - cosine(g, t) + tv(x), "weighed by alpha"),
        (lambda g, t, x, a: 1 - cosine(g, t) + a * summed_tv(x), "not of sums"),
        (
            lambda g, t, x, a: 1 - cosine(g, t) + a * summed_tv(x) / num_steps(x),
            "over its own steps",
        ),
        (lambda g, t, x, a: 7.0, "one long vector"),
    ],
)
def test_a_wrong_objective_is_told_what_it_measures(learner, hint):
    assert_right(check.objective, right_objective)
    assert_refused(check.objective, learner, hint=hint)


def right_step(x, slope, lr, lower, upper):
    moved = x - lr * slope.sign()
    return torch.minimum(torch.maximum(moved, lower[:, None, None]), column(upper))


def column(side):
    return side[:, None, None]


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (lambda x, slope, lr, low, high: x - lr * slope.sign(), "clip after the step"),
        (
            lambda x, slope, lr, low, high: (x - lr * slope).clamp(
                column(low), column(high)
            ),
            "take the sign",
        ),
        (
            lambda x, slope, lr, low, high: right_step(x, -slope, lr, low, high),
            "goes uphill",
        ),
        (
            lambda x, slope, lr, low, high: (
                x.clamp(column(low), column(high)) - lr * slope.sign()
            ),
            "may have left",
        ),
        (lambda x, slope, lr, *box: (x - lr * slope.sign()).clamp(0, 1), r"not \[0, 1"),
        (
            lambda x, slope, lr, low, high: (x - lr * slope.sign()).clamp(low, high),
            "not to columns",
        ),
        (lambda x, *_: x, "channel by channel"),
    ],
)
def test_a_wrong_step_is_told_where_it_leads(learner, hint):
    assert_right(check.step, right_step)
    assert_refused(check.step, learner, hint=hint)


@pytest.mark.parametrize(
    ("smallest", "largest", "better", "hint"),
    [
        (0.3, 3, "distance", "SSIM is below 0.6"),
        (0.03, 3, "distance", "holds for the angle"),
        (3, 3, "distance", "at least 0.6"),
        (1, 10, "distance", "SSIM is below 0.6"),
        (1, 100, "distance", "holds for the angle"),
        (1, 3, "angle", "compare the two SSIM"),
        (1, 3, "both", "should be one of"),
    ],
)
def test_a_wrong_factor_is_told_what_to_compare(smallest, largest, better, hint):
    assert_right(check.scaled, 1, 3, "distance")
    assert_refused(check.scaled, smallest, largest, better, hint=hint)


def test_by_angle_a_factor_changes_nothing():
    few = check.likenesses("angle", (0.03, 1, 100))
    assert max(few) - min(few) < 0.02


def test_no_judgement_of_the_turned_gradient_is_unanswered():
    assert_refused(check.turned_around, "", hint="not answered", state="unanswered")

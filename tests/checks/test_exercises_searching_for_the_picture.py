"""Typical wrong answers, and what each is told."""

import pytest
import torch
from marking import assert_refused, assert_right
from torch.nn.functional import cross_entropy

from precode_lib.checks import searching_for_the_picture as check
from precode_lib.data import victims
from precode_lib.metrics import score

RIGHT = (4, 9, -12, -2)


@pytest.mark.parametrize(
    ("place", "value", "hint"),
    [
        (0, 2, "derivative by x"),
        (0, 8, "cancels the 2"),
        (0, 1, "of the guess"),
        (0, -4, "differentiate"),
        (1, -3, "squared"),
        (1, 1, "compares the pictures"),
        (1, 3, "this is the distance"),
        (2, 12, "the sign"),
        (2, -6, "a factor 2 is missing"),
        (3, 2, "asked is another one"),
        (3, 0, "the slope of D is zero"),
        (3, 4, "not x'"),
    ],
)
def test_a_wrong_step_by_hand_is_told_which_derivative_failed(place, value, hint):
    assert_right(check.by_hand, *RIGHT)
    answers = [*RIGHT[:place], value, *RIGHT[place + 1 :]]
    assert_refused(check.by_hand, *answers, hint=hint)


def gradients(W, b, x, q):
    delta = (W @ x + b).softmax(0) - q
    return torch.outer(delta, x), delta


def squares(W, b, x, q, dW, db):
    mine = gradients(W, b, x, q)
    return [(mine[0] - dW).square(), (mine[1] - db).square()]


def right_distance(W, b, x, y, dW, db):
    return sum(each.sum() for each in squares(W, b, x, y.softmax(0), dW, db))


def without(part):
    def learner(W, b, x, y, dW, db):
        return squares(W, b, x, y.softmax(0), dW, db)[1 - part].sum()

    return learner


def mean_distance(W, b, x, y, dW, db):
    return right_distance(W, b, x, y, dW, db) / (W.numel() + b.numel())


def hard_label(W, b, x, y, dW, db):
    q = torch.eye(len(y))[y.argmax()]
    return sum(each.sum() for each in squares(W, b, x, q, dW, db))


def logits_as_label(W, b, x, y, dW, db):
    return sum(each.sum() for each in squares(W, b, x, y, dW, db))


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (lambda *given: right_distance(*given).sqrt(), "D is its square"),
        (without(0), "the weights have a gradient"),
        (without(1), "the bias has a gradient"),
        (mean_distance, "not a mean"),
        (hard_label, "not the class of the largest"),
        (logits_as_label, "y holds logits"),
        (lambda W, b, x, y, dW, db: dW.square().sum(), "the guess's gradients are"),
    ],
)
def test_a_wrong_distance_is_told_what_it_measures(learner, hint):
    assert_right(check.distance, right_distance)
    assert_refused(check.distance, learner, hint=hint)


def right_slope(theta, x, label, g):
    x = x.clone().requires_grad_()
    theta = [each.clone().requires_grad_() for each in theta]
    guess = torch.autograd.grad(logits_loss(theta, x, label), theta, create_graph=True)
    pairs = zip(guess, g, strict=True)
    distance = sum((mine - theirs).square().sum() for mine, theirs in pairs)
    return torch.autograd.grad(distance, x)[0]


def logits_loss(theta, x, label):
    first, first_bias, last, last_bias = theta
    hidden = torch.sigmoid(first @ x + first_bias)
    return cross_entropy((last @ hidden + last_bias)[None], label[None])


def slope_of_loss(theta, x, label, g):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(logits_loss(theta, x, label), x)[0]


def forgetful(theta, x, label, g):
    x = x.clone().requires_grad_()
    theta = [each.clone().requires_grad_() for each in theta]
    guess = torch.autograd.grad(logits_loss(theta, x, label), theta)
    return torch.autograd.grad((guess[0] - g[0]).square().sum(), x)[0]


@pytest.mark.parametrize(
    ("learner", "hint", "state"),
    [
        (slope_of_loss, r"slope of the \*loss\*", "wrong"),
        (lambda *given: -right_slope(*given), "the sign", "wrong"),
        (lambda *given: right_slope(*given) / 2, "not half the square", "wrong"),
        (lambda theta, x, label, g: x, "create_graph", "wrong"),
        (forgetful, "RuntimeError", "raised"),
    ],
)
def test_a_wrong_slope_is_told_of_what_it_is_one(learner, hint, state):
    assert_right(check.slope, right_slope)
    assert_refused(check.slope, learner, hint=hint, state=state)


def test_the_gradient_written_out_is_autograds(generator):
    theta = [
        torch.randn(size, generator=generator, dtype=torch.float64, requires_grad=True)
        for size in [(4, 3), (4,), (2, 4), (2,)]
    ]
    x = torch.randn(3, generator=generator, dtype=torch.float64)
    label = torch.tensor([0.3, 0.7], dtype=torch.float64)
    expected = torch.autograd.grad(logits_loss(theta, x, label), theta)
    torch.testing.assert_close(check.sigmoid_gradient(theta, x, label), list(expected))


@pytest.mark.parametrize(
    ("unmoved", "needed", "hint"),
    [
        (0.02, 10_000, "with some multiples only"),
        (0.5, 1_000_000, "with a smaller multiple, too"),
        (0.5, 100, "not yet close to 1"),
        (0.5, 1, "finds nothing"),
    ],
)
def test_the_units_that_a_search_needs_are_read_off_the_sliders(unmoved, needed, hint):
    assert_right(check.which_units, 0.5, 10_000)
    assert_refused(check.which_units, unmoved, needed, hint=hint)


def test_a_failed_search_can_have_the_smaller_distance():
    photo = victims("photos", 10, size=12)[[2]]
    (failed, low), (found, high) = (
        check.search_in(photo, span, factor=1) for span in check.SPANS
    )
    assert score(photo.pixels, failed).ssim < 0.1
    assert score(photo.pixels, found).ssim > 0.9
    assert low < high / 10


def test_no_judgement_of_the_safe_network_is_unanswered():
    assert_refused(check.a_safe_network, "", hint="not answered", state="unanswered")

"""Typical wrong answers, and what each is told."""

import pytest
import torch
from marking import assert_refused, assert_right

from precode_lib.checks import federated_learning as check

G, DELTA, THETA = -7, [-3, -6], 21 / 4


@pytest.mark.parametrize(
    ("g", "Delta", "theta", "hint"),
    [
        (-6, DELTA, THETA, "three of the four pictures"),
        (7, DELTA, THETA, "the sign: the gradient"),
        (-28, DELTA, THETA, "divide by n = 4"),
        (G, [3, 6], THETA, "the start minus that"),
        (G, [-2, -4], THETA, "each client takes two"),
        (G, [-4, -8], THETA, "where the first step ended"),
        (G, DELTA, 4.5, "three of the four pictures"),
        (G, DELTA, -THETA, "subtracts Δ"),
        (G, DELTA, 21, "divide by n = 4"),
        (G, DELTA, 3.5, "weighted by 1 and 3"),
    ],
)
def test_a_wrong_round_by_hand_is_told_which_step_failed(g, Delta, theta, hint):
    assert_right(check.by_hand, G, DELTA, THETA)
    assert_refused(check.by_hand, g, Delta, theta, hint=hint)


def gradient(theta, X, t):
    return X.T @ (X @ theta - t) / len(t)


def trained(theta, X, t, lr, steps, sum_over=1):
    for _ in range(steps):
        theta = theta - lr * gradient(theta, X, t) * sum_over
    return theta


def mean(theta, clients, ends):
    sizes = [len(t) for _, t in clients]
    return sum(n * end for n, end in zip(sizes, ends, strict=True)) / sum(sizes)


def right_round(theta, clients, lr, steps):
    return mean(theta, clients, [trained(theta, *c, lr, steps) for c in clients])


def same_weights(theta, clients, lr, steps):
    return sum(trained(theta, *c, lr, steps) for c in clients) / len(clients)


def frozen_gradient(theta, clients, lr, steps):
    ends = [theta - steps * lr * gradient(theta, *c) for c in clients]
    return mean(theta, clients, ends)


def in_turn(theta, clients, lr, steps):
    for client in clients:
        theta = trained(theta, *client, lr, steps)
    return theta


def summed_loss(theta, clients, lr, steps):
    ends = [trained(theta, X, t, lr, steps, len(t)) for X, t in clients]
    return mean(theta, clients, ends)


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (same_weights, "all clients weigh the same"),
        (lambda theta, *rest: theta - right_round(theta, *rest), "this is the mean"),
        (
            lambda theta, *rest: 2 * theta - right_round(theta, *rest),
            "went the wrong way",
        ),
        (frozen_gradient, "at the client's own new weights"),
        (in_turn, "goes on where another ended"),
        (summed_loss, "not a sum"),
        (
            lambda theta, clients, lr, steps: right_round(theta, clients, lr, 1),
            "a single local step",
        ),
        (lambda theta, *_: theta, "each client starts from the server's"),
    ],
)
def test_a_wrong_round_is_told_what_it_computed(learner, hint):
    assert_right(check.fedavg, right_round)
    assert_refused(check.fedavg, learner, hint=hint)


def masked(messages, masks, plus=1.0, minus=1.0):
    above = torch.ones(len(messages), len(messages)).triu(1)[..., None] * masks
    return messages + plus * above.sum(1) - minus * above.sum(0)


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (lambda messages, masks: masked(messages, masks, minus=0), "nothing cancels"),
        (lambda messages, masks: masked(messages, masks, plus=0), "one client adds"),
        (lambda messages, masks: masked(messages, masks, -1, -1), "smaller"),
        (lambda messages, masks: messages + masks.sum(1) - masks.sum(0), "v < w only"),
        (lambda messages, masks: masked(0 * messages, masks), "these are the masks"),
        (lambda messages, masks: messages, "of each pair"),
        (lambda messages, masks: messages.sum(0), "should be a tensor of shape"),
    ],
)
def test_wrong_masks_are_told_why_the_sum_is_not_the_same(learner, hint):
    assert_right(check.masked, masked)
    assert_refused(check.masked, learner, hint=hint)


def test_the_right_crowds_are_accepted():
    verdict = check.crowds.judge(8, 16, generator=torch.Generator())
    assert verdict.is_right, verdict.message


@pytest.mark.parametrize(
    ("narrow", "wide", "hint"),
    [
        (4, 16, "asked is where all are"),
        (6, 16, "one further"),
        (16, 16, "begins earlier"),
        (8, 12, "one further"),
        (8, 8, "some are hidden"),
        (8, 4, "first layer to 1024"),
    ],
)
def test_a_wrong_crowd_is_told_where_to_go(narrow, wide, hint):
    assert_refused(check.crowds, narrow, wide, hint=hint)


def test_an_empty_judgement_of_promises_is_unanswered():
    assert_refused(check.promises, "TODO", hint="not answered", state="unanswered")

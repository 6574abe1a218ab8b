"""Typical wrong answers, and what each is told."""

import pytest
import torch
from marking import assert_refused, assert_right

from precode_lib.attacks.counts import nearest_counts
from precode_lib.checks import labels as check

RIGHT = (1, [0.3, 0.1, 0.6], [1, 3, 0], [0, 2, 0])


@pytest.mark.parametrize(
    ("place", "value", "hint"),
    [
        (0, 2, "classes count from 0"),
        (0, 0, "is negative"),
        (1, [0.3, -0.9, 0.6], "the gradient itself"),
        (1, [0.3, 0.9, 0.6], "p - 1, not -p"),
        (2, [0.25, 0.75, 0], "multiply by B"),
        (2, [3, -1, 2], r"\*subtracted\*"),
        (2, [2, 1, 1], "g is missing"),
        (2, [-1, 2, -1], "the mean p is missing"),
        (2, [2, 2, 0], "sum to B"),
        (3, [-1, 2, -1], "no count is negative"),
        (3, [1, 3, 0], "need p"),
        (3, [0, 1, 0], "more is certain"),
        (3, [0, 0, 0], "whatever p is"),
    ],
)
def test_wrong_labels_by_hand_are_told_which_step_failed(place, value, hint):
    assert_right(check.by_hand, *RIGHT)
    answers = [*RIGHT[:place], value, *RIGHT[place + 1 :]]
    assert_refused(check.by_hand, *answers, hint=hint)


def minority_sign(dW):
    column = dW[:, dW.abs().sum(0).argmax()]
    negative = column < 0
    rare = negative if negative.sum() == 1 else ~negative
    return int(rare.float().argmax())


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (lambda dW: int(dW.sum(1).argmin()), "iDLG's rule"),
        (lambda dW: int(dW.sum(1).argmax()), "only where the sum of h is negative"),
        (lambda dW: int(dW.sum(1).abs().argmax()), "the whole rows"),
        (lambda dW: int(dW.norm(dim=1).argmin()), "shortest"),
        (lambda dW: minority_sign(dW) + 1, "count classes from 0"),
        (lambda dW: -1, "multiples of the same"),
    ],
)
def test_a_wrong_rule_is_told_which_features_it_cannot_read(learner, hint):
    assert_right(check.any_features, minority_sign)
    assert_right(check.any_features, lambda dW: dW.norm(dim=1).argmax())
    assert_refused(check.any_features, learner, hint=hint)


def lowest(g, B):
    return (-B * g - 1e-4).ceil().clamp(min=0)


def right_counts(g, p, B):
    start = lowest(g, B).long()[None]
    return nearest_counts(B * (p - g)[None], start, B)[0]


def without_the_certain(g, p, B):
    return nearest_counts(B * (p - g)[None], torch.zeros(1, len(g)).long(), B)[0]


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (lambda g, p, B: B * (p - g), "not yet whole"),
        (lambda g, p, B: (B * (p - g)).round(), "one by one"),
        (
            lambda g, p, B: torch.maximum((B * (p - g)).round(), lowest(g, B)),
            "one by one",
        ),
        (lambda g, p, B: lowest(g, B), "still to be given away"),
        (without_the_certain, "no class occurs less often"),
        (lambda g, p, B: torch.full_like(g, B / len(g)), "begin with"),
        (lambda g, p, B: int(B), "should be a tensor of shape"),
    ],
)
def test_wrong_counts_are_told_which_condition_they_break(learner, hint):
    assert_right(check.batch_counts, right_counts)
    assert_refused(check.batch_counts, learner, hint=hint)


@pytest.mark.parametrize(
    ("ten", "two", "hint"),
    [
        (64, 0, "not here first"),
        (8, 0, "counting still wins"),
        (0, 0, "there is a size"),
        (2, 0, "compare the two"),
        (16, 16, "is there any size"),
    ],
)
def test_a_wrong_size_is_told_who_wins_there(ten, two, hint):
    assert_right(check.against_a_guess, 16, 0)
    assert_refused(check.against_a_guess, ten, two, hint=hint)


def test_no_judgement_of_the_clinics_is_unanswered():
    assert_refused(
        check.a_rare_disease, "TODO", hint="not answered", state="unanswered"
    )

"""Typical wrong answers, and what each is told."""

import pytest
import torch
from marking import assert_refused, assert_right
from torch.nn import functional as F

from precode_lib.checks import label_as_anchor as check


@pytest.mark.parametrize(
    ("answers", "hint"),
    [
        ((0, 3, 1.25), "is not the label's 1"),
        ((2.25, 3, 1.25), "without α"),
        ((1, 3, 1.25), "is 2x, not x"),
        ((3, 3, 1.25), "distance is squared"),
        ((9, 0, 1.25), "only the first term rests"),
        ((9, 1.5, 1.25), "has the derivative 2"),
        ((9, 12, 1.25), "α multiplies the slope"),
        ((9, 0.75, 1.25), "square's derivative"),
        ((9, -3, 1.25), "the sign"),
        ((9, 3, 2), "the second still pulls"),
        ((9, 3, 0.5), "the first still pulls"),
        ((9, 3, 1.7), "twice as fast"),
        ((9, 3, 1.5), "anchor's slope"),
        ((9, 3, 0.8), "for α = 1"),
        ((9, 3, 1), "set the derivative"),
    ],
)
def test_a_wrong_anchor_by_hand_is_told_which_step_failed(answers, hint):
    assert_right(check.by_hand, 9, 3, 1.25)
    assert_refused(check.by_hand, *answers, hint=hint)


def matched(guess, shared, reduce=torch.sum):
    return sum(reduce((a - b) ** 2) for a, b in zip(guess, shared, strict=True))


def labelled(logits, label):
    return (logits - F.one_hot(torch.tensor(label), len(logits))) ** 2


def cpl(guess, shared, logits, label, alpha):
    return matched(guess, shared) + alpha * labelled(logits, label).sum()


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (
            lambda a, b, z, y, w: matched(a, b, torch.mean) + w * labelled(z, y).mean(),
            "large layers count",
        ),
        (
            lambda a, b, z, y, w: matched(a, b) + w * labelled(z, y).mean(),
            "no mean over the classes",
        ),
        (
            lambda a, b, z, y, w: matched(a, b).sqrt() + w * labelled(z, y).sum(),
            "gradients is squared",
        ),
        (
            lambda a, b, z, y, w: matched(a, b) + w * labelled(z, y).sum().sqrt(),
            "label is squared",
        ),
        (lambda a, b, z, y, w: cpl(a, b, z.softmax(0), y, w), "logits themselves"),
        (
            lambda a, b, z, y, w: (
                matched(a, b) + w * F.cross_entropy(z, torch.tensor(y))
            ),
            "this is cross-entropy",
        ),
        (
            lambda a, b, z, y, w: matched(a, b) + w * labelled(z, y)[y],
            "only the label's logit",
        ),
        (lambda a, b, z, y, w: cpl(a, b, z, y, 1), "where is alpha"),
        (lambda a, b, z, y, w: cpl(a[-1:], b[-1:], z, y, w), "gradient of the list"),
        (lambda a, b, z, y, w: 0.0, "only the squared distance of all"),
    ],
)
def test_a_wrong_objective_is_told_which_term_is_off(learner, hint):
    assert_right(check.objective, cpl)
    assert_refused(check.objective, learner, hint=hint)


def tile(patch, height, width):
    size = patch.shape[-1]
    many = patch.repeat(1, -(-height // size), -(-width // size))
    return many[:, :height, :width]


def uncut(patch, height, width):
    size = patch.shape[-1]
    return patch.repeat(1, -(-height // size), -(-width // size))


def floored(patch, height, width):
    size = patch.shape[-1]
    return patch.repeat(1, max(1, height // size), max(1, width // size))


def corner(patch, height, width):
    size = patch.shape[-1]
    picture = torch.zeros(3, max(height, size), max(width, size))
    picture[:, :size, :size] = patch
    return picture[:, :height, :width]


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (lambda p, h, w: F.interpolate(p[None], (h, w))[0], "stretched"),
        (uncut, "cut off"),
        (floored, "too small"),
        (corner, "only one copy"),
        (lambda p, h, w: tile(p.mT, h, w), "exchanged"),
        (lambda p, h, w: torch.rand(3, h, w), "at the remainders"),
        (lambda p, h, w: tile(p, w, h), "should be a tensor of shape"),
    ],
)
def test_a_wrong_start_is_told_what_it_looks_like(learner, hint):
    assert_right(check.fill, tile)
    assert_refused(check.fill, learner, hint=hint)


@pytest.mark.parametrize(
    ("label", "hint"),
    [
        (7, "count classes from 0"),
        (2, "untrained network"),
        (0, "move it"),
        (9, "stays far above"),
    ],
)
def test_a_wrong_label_is_told_what_it_is(label, hint):
    assert_right(check.which_label, 6)
    assert_refused(check.which_label, label, hint=hint)


def test_only_with_the_right_label_the_objective_vanishes():
    _, seen = check.one_client()
    with_right = check.search_with(seen, 6)[1]
    assert check.search_with(seen, 7)[1] > 1000 * with_right


def test_the_open_question_wants_some_sentences():
    assert_refused(check.what_did_it, "", hint="not answered", state="unanswered")
    assert_refused(check.what_did_it, "The patch.", hint="2 words are few")

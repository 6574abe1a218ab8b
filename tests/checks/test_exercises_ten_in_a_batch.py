"""Typical wrong answers, and what each is told."""

import pytest
import torch
from marking import assert_refused, assert_right

from precode_lib.checks import ten_in_a_batch as check

ZEROS, PICTURES = [2, 1, 2], [[3, 1], [1, 2]]


@pytest.mark.parametrize(
    ("zeros", "pictures", "hint"),
    [
        ([1, 0, 1], PICTURES, "itself counts, too"),
        ([3, 4, 3], PICTURES, "not zero"),
        ([2, 2, 2], PICTURES, "all five rows"),
        (ZEROS, [[1, 2], [3, 1]], "the order"),
        (ZEROS, [[6 / 5, 2 / 5], [-1 / 5, -2 / 5]], "lengths c are missing"),
        (ZEROS, [[3, 2], [1, 1]], "only one of"),
        (ZEROS, [[9, 3], [1, 2]], "only one of"),
    ],
)
def test_a_wrong_batch_by_hand_is_told_which_step_failed(zeros, pictures, hint):
    assert_right(check.by_hand, ZEROS, PICTURES)
    assert_refused(check.by_hand, zeros, pictures, hint=hint)


def parts(L, Q, counts=None, lengths=None):
    lengths = L.norm(dim=1)[:, None] if lengths is None else lengths
    zero = (L @ Q).abs() <= 1e-6 * lengths * Q.norm(dim=0)
    if counts is None:
        counts = L.norm(dim=1) > 1e-9 * L.norm(dim=1).max()
    return zero[counts].double().mean(0)


def kept(L, Q):
    return parts(L, Q) >= 1 / 3


def with_silent_units(L, Q):
    return parts(L, Q, slice(None)) >= 1 / 3


def of_all_units(L, Q):
    counts = L.norm(dim=1) > 1e-9 * L.norm(dim=1).max()
    zero = (L @ Q).abs() <= 1e-6 * L.norm(dim=1)[:, None] * Q.norm(dim=0)
    return (zero & counts[:, None]).double().mean(0) >= 1 / 3


def without_sizes(L, Q):
    counts = L.norm(dim=1) > 1e-9 * L.norm(dim=1).max()
    return ((L @ Q).abs() <= 1e-6)[counts].double().mean(0) >= 1 / 3


def above_the_forced(L, Q):
    counts = L.norm(dim=1) > 1e-9 * L.norm(dim=1).max()
    return parts(L, Q) * counts.sum() > len(Q) - 0.5


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (with_silent_units, "silent on all pictures count here"),
        (of_all_units, "are among the units"),
        (without_sizes, "beside its unit's row"),
        (above_the_forced, "mixtures have that, too"),
        (lambda L, Q: ~kept(L, Q), "the ones to throw away"),
        (lambda L, Q: torch.arange(Q.shape[1]) % 2, "for each column of Q"),
        (lambda L, Q: kept(L, Q)[:2], "should be a tensor of shape"),
    ],
)
def test_a_wrong_choice_is_told_what_it_counts(learner, hint):
    assert_right(check.kept, kept)
    assert_right(check.kept, lambda L, Q: kept(L, Q).long())
    assert_refused(check.kept, learner, hint=hint)


def lengths(L, Q, g_b):
    return torch.linalg.lstsq(L @ Q, g_b[:, None]).solution[:, 0]


def unmix(L, R, Q, g_b):
    return torch.linalg.inv(Q * lengths(L, Q, g_b)) @ R


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (lambda L, R, Q, g_b: torch.linalg.inv(Q) @ R, "find c first"),
        (
            lambda L, R, Q, g_b: torch.linalg.inv(Q / lengths(L, Q, g_b)) @ R,
            "divided by its length",
        ),
        (
            lambda L, R, Q, g_b: torch.linalg.inv(lengths(L, Q, g_b)[:, None] * Q) @ R,
            "not to its rows",
        ),
        (lambda L, R, Q, g_b: (Q * lengths(L, Q, g_b)) @ R, "where its inverse"),
        (lambda L, R, Q, g_b: R, "solve L Q c"),
    ],
)
def test_wrong_pictures_are_told_which_factor_is_missing(learner, hint):
    assert_right(check.unmix, unmix)
    assert_refused(check.unmix, learner, hint=hint)


def test_the_right_widths_are_accepted():
    verdict = check.widths.judge(64, 2048, generator=torch.Generator())
    assert verdict.is_right, verdict.message


@pytest.mark.parametrize(
    ("together", "alone", "hint"),
    [
        (32, 2048, "not all are found here"),
        (2048, 2048, "begins earlier"),
        (128, 2048, "the first width"),
        (64, 1024, "not all are found here"),
        (64, 64, "asked is where all are"),
    ],
)
def test_a_wrong_width_is_told_where_to_go(together, alone, hint):
    assert_refused(check.widths, together, alone, hint=hint)


def test_an_empty_judgement_of_hospitals_is_unanswered():
    assert_refused(check.hospitals, "TODO", hint="not answered", state="unanswered")

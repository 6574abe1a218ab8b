"""Typical wrong answers, and what each is told."""

from math import ceil

import pytest
import torch
from marking import assert_refused, assert_right

from precode_lib.checks import compression as check

RIGHT = {
    "pruned": [0.9, 0, 0, -0.6],
    "three_bits": [0.9, 0, 0.3, -0.6],
    "two_bits": [0.9, 0, 0, -0.9],
    "places": 804,
    "bitmap": 525,
}


@pytest.mark.parametrize(
    ("name", "answer", "hint"),
    [
        ("pruned", [0.9, 0, 0.3, 0], "is larger than 0.3"),
        ("pruned", [0.9, 0, 0, 0.6], "keeps its sign"),
        ("pruned", [0.9, -0.6], "sent as zero"),
        ("pruned", [0, 0, 0, 0], "two become zero"),
        ("three_bits", [3, 0, 1, -2], "numbers of steps"),
        ("three_bits", [0.9, 0, 0.225, -0.675], "needs a place"),
        ("three_bits", [0.9, -0.9 / 7, 1.8 / 7, -4.5 / 7], r"3 \+ 1 \+ 3"),
        ("three_bits", [0.9, -0.3, 0.3, -0.6], "a third of a step"),
        ("three_bits", [0.9, 0, 0, -0.6], "a multiple of it"),
        ("two_bits", [0.9, 0, 0.3, -0.6], "grid of three bits"),
        ("two_bits", [1, 0, 0, -1], "numbers of steps"),
        ("two_bits", [0.9, 0, 0, 0], "do not cut off"),
        ("two_bits", [0.9, -0.9, 0.9, -0.9], "these are the signs"),
        ("two_bits", [0, 0, 0, 0], "three values"),
        ("places", 800, "must know how many"),
        ("places", 404, "its place as well"),
        ("places", 400, "no place is known"),
        ("places", 7204, "100 entries are left, not 900"),
        ("places", 4000, "with 8 bytes each"),
        ("bitmap", 1400, "a byte has 8 bits"),
        ("bitmap", 400, "where is the bitmap"),
        ("bitmap", 125, "where are the values"),
        ("bitmap", 3725, "not 900"),
        ("bitmap", 4000, "a bit for each"),
    ],
)
def test_a_wrong_code_by_hand_is_told_which_step_failed(name, answer, hint):
    assert_right(check.by_hand, *RIGHT.values())
    assert_refused(check.by_hand, *(RIGHT | {name: answer}).values(), hint=hint)


def dropped(g, num, sizes=None):
    kept = g.flatten().clone()
    sizes = kept.abs() if sizes is None else sizes.flatten()
    kept[sizes.argsort()[:num]] = 0
    return kept.view_as(g)


def pruned(g, ratio):
    return dropped(g, int(ratio * g.numel()))


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (lambda g, r: dropped(g, g.numel() - int(r * g.numel())), "not kept"),
        (lambda g, r: dropped(g, int(r * g.numel()), g), "not its value"),
        (lambda g, r: dropped(g, int(r * g.numel()), -g.abs()), "largest were dropped"),
        (lambda g, r: dropped(g, ceil(r * g.numel())), "rounded down"),
        (lambda g, r: pruned(g, r).abs(), "keeps its sign"),
        (lambda g, r: torch.stack([pruned(row, r) for row in g]), "whole parameter"),
        (lambda g, r: g, "sort the sizes"),
        (lambda g, r: g[g.abs() > r], "should be a tensor of shape"),
        (
            lambda g, r: torch.where(g.abs() >= pruned(g, r).abs().max(), g, 0),
            "sort the sizes",
        ),
    ],
)
def test_a_wrong_pruning_is_told_what_it_kept(learner, hint):
    assert_right(check.pruned, pruned)
    assert_refused(check.pruned, learner, hint=hint)


def by_threshold(g, ratio):
    sizes = g.abs().flatten().sort().values
    return torch.where(g.abs() > sizes[int(ratio * g.numel()) - 1], g, 0)


def changed_where_equal(g, ratio):
    return pruned(g, ratio) * (2 if len(g.unique()) < 4 else 1)


def test_a_pruning_by_a_threshold_fails_where_entries_are_equal():
    assert_refused(check.pruned, by_threshold, hint="not a threshold")
    assert_refused(check.pruned, changed_where_equal, hint="stays as it is")


def grid(g, step, rounded=torch.round):
    return rounded(g / step) * step if step else g


def quantised(g, bits, rounded=torch.round):
    return grid(g, g.abs().max() / (2 ** (bits - 1) - 1), rounded)


def affine(g, bits):
    step = (g.max() - g.min()) / (2**bits - 1)
    return g.min() + grid(g - g.min(), step)


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (
            lambda g, b: (g / (s := g.abs().max() / (2 ** (b - 1) - 1))).round() * s,
            "of zeros",
        ),
        (
            lambda g, b: (g / g.abs().max() * (2 ** (b - 1) - 1)).round(),
            "numbers of steps",
        ),
        (lambda g, b: grid(g, g.max() / (2 ** (b - 1) - 1)), r"largest \|g\|"),
        (lambda g, b: grid(g, g.abs().max() / 2 ** (b - 1)), "zero is one of them"),
        (lambda g, b: grid(g, g.abs().max() / (2**b - 1)), "both sides together"),
        (lambda g, b: quantised(g, b, torch.floor), "rounded down"),
        (lambda g, b: quantised(g, b, torch.trunc), "cut off towards zero"),
        (affine, "symmetric about"),
        (lambda g, b: g, "whole numbers of a step"),
    ],
)
def test_a_wrong_grid_is_told_which_one_it_is(learner, hint):
    assert_right(check.quantised, quantised)
    assert_refused(check.quantised, learner, hint=hint)


@pytest.mark.parametrize(
    ("messages", "nearest", "hint"),
    [
        (4, "nothing", "still is below"),
        (16, "nothing", "not the first"),
        (1, "nothing", "set the other slider"),
        (2, "nothing", "add messages until"),
        (8, "better", "at the first and at the last"),
        (8, "worse", "at the first and at the last"),
        (8, "the same", "should be one of"),
    ],
)
def test_a_wrong_number_of_messages_is_told_where_to_go(messages, nearest, hint):
    assert_right(check.many_messages, 8, "nothing")
    assert_refused(check.many_messages, messages, nearest, hint=hint)


def test_the_open_question_wants_some_sentences():
    assert_refused(check.one_percent, "", hint="not answered", state="unanswered")
    assert_refused(check.one_percent, "It is wrong.", hint="3 words are few")

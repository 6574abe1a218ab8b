"""Typical wrong answers, and what each is told."""

import pytest
import torch
from marking import assert_refused, assert_right

from precode_lib.checks import the_bill as check

LEAKS = [0.9, 0.4, 0.5, 0.1]


@pytest.mark.parametrize(
    ("leaks", "rows", "later", "hint"),
    [
        ([0.1, 0.4, 0.5, 0.1], "ABD", "AB", "what the search sees"),
        ([0.9, 0.3, 0.2, 0.0], "ABD", "AB", "what the division sees"),
        ([0.5, 0.35, 0.35, 0.05], "ABD", "AB", "these are the means"),
        ([0.1, 0.3, 0.2, 0.0], "ABD", "AB", "the smaller ones"),
        ([1.0, 0.7, 0.7, 0.1], "ABD", "AB", "the best that any"),
        (LEAKS, "ABCD", "AB", "compare C with"),
        (LEAKS, "BD", "AB", "A is missing"),
        (LEAKS, "AD", "AB", "B is missing"),
        (LEAKS, "AB", "AB", "D is missing"),
        (LEAKS, "ABD", "ABD", "after the newcomer(.|\n)*compare D with"),
        (LEAKS, "ABD", "B", "after the newcomer(.|\n)*A is missing"),
        (LEAKS, "none", "AB", "letters in a string"),
        (LEAKS, "", "AB", "letters in a string"),
        (LEAKS, [1], "AB", "letters in a string"),
    ],
)
def test_a_wrong_bill_is_told_which_row_to_compare(leaks, rows, later, hint):
    assert_right(check.by_hand, LEAKS, "ABD", "AB")
    assert_right(check.by_hand, LEAKS, "d, b, a", "B A")
    assert_refused(check.by_hand, leaks, rows, later, hint=hint)


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (lambda s: s.mean(2).amax(1), "chosen for all photographs"),
        (lambda s: s.mean((1, 2)), "mean over attackers"),
        (lambda s: s.amax((1, 2)), "leaks most"),
        (lambda s: s.amin(1).mean(1), "min for max"),
        (lambda s: s.amax(1), "number for each photograph"),
        (lambda s: s.amax(2).mean(1), "second dimension"),
        (lambda s: s[:, 0].mean(1), "first attacker only"),
        (lambda s: s.median(1).values.amin(1), "then the mean"),
        (lambda s: s.amax(), "should be a tensor of shape|should be 0"),
    ],
)
def test_a_wrong_leak_is_told_whose_it_is(learner, hint):
    assert_right(check.leak, lambda ssim: ssim.amax(1).mean(1))
    assert_refused(check.leak, learner, hint=hint)


def front(leaks, accuracies, beats=None):
    def beats_properly(leak, gain):
        return leak <= 0 <= gain and (leak < 0 or gain > 0)

    beats, rows = beats or beats_properly, range(len(leaks))
    return [
        j
        for j in rows
        if not any(
            beats(leaks[i] - leaks[j], accuracies[i] - accuracies[j])
            for i in rows
            if i != j
        )
    ]


def beaten(leaks, accuracies):
    return [i for i in range(len(leaks)) if i not in front(leaks, accuracies)]


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (lambda ls, accs: front([-leak for leak in ls], accs), "a small leak is good"),
        (beaten, "that another beats"),
        (lambda ls, accs: [accs.index(max(accs))], "one column only"),
        (lambda ls, accs: [ls.index(min(ls))], "one column only"),
        (
            lambda ls, accs: [ls.index(min(ls)), accs.index(max(accs))],
            "between the two ends",
        ),
        (
            lambda ls, accs: front(ls, accs, lambda leak, gain: leak < 0 < gain),
            "better in the other beats, too",
        ),
        (
            lambda ls, accs: front(ls, accs, lambda leak, gain: leak <= 0 <= gain),
            "equal rows do not beat",
        ),
        (lambda ls, accs: list(range(len(ls))), "as good in both and better in one"),
        (lambda ls, accs: [i + 1 for i in front(ls, accs)], "better in one"),
        (lambda ls, accs: 3, "list of row numbers"),
        (lambda ls, accs: [True] * len(ls), "list of row numbers"),
    ],
)
def test_a_wrong_front_is_told_which_rows_it_keeps(learner, hint):
    assert_right(check.front, front)
    assert_right(check.front, lambda ls, accs: torch.tensor(front(ls, accs)[::-1]))
    assert_refused(check.front, learner, hint=hint)


@pytest.mark.parametrize(
    ("alone", "together", "hint"),
    [
        (0.98, 0.99, "pruning alone(.|\n)*one step further"),
        (0.99, 0.98, "8 bits(.|\n)*one step further"),
        (0.99, 0.995, "not the first"),
        (0.99, 0.999, "end of the slider"),
        (0.99, 0.9, "8 bits(.|\n)*from the left"),
        (0.5, 0.99, "pruning alone(.|\n)*from the left"),
    ],
)
def test_a_wrong_ratio_is_told_for_which_stack(alone, together, hint):
    assert_right(check.three_weak_ones, 0.99, 0.99)
    assert_refused(check.three_weak_ones, alone, together, hint=hint)


def test_an_open_question_wants_some_sentences():
    assert_refused(check.noise_in_front, "Less leaks.", hint="words are few")
    verdict = check.noise_in_front.judge("", generator=torch.Generator())
    assert verdict.state == "unanswered"


def test_the_same_noise_hides_more_of_a_shorter_gradient():
    (length, ssim), (shorter, less) = (
        check.behind_noise(is_guarded, 0.1) for is_guarded in (False, True)
    )
    assert shorter < 0.6 * length
    assert less < ssim - 0.2

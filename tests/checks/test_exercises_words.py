"""Typical wrong answers about words, and what each is told."""

import pytest
import torch
from marking import assert_refused, assert_right

from precode_lib.checks import words as check

RIGHT = ([0, 1, 3, 5], 6, [0])


@pytest.mark.parametrize(
    ("place", "wrong", "hint"),
    [
        (0, [0, 1, 2, 3, 5], "exactly zero"),
        (0, [0, 3, 3, 1, 1, 5], "moves once"),
        (0, [0, 1, 3], "moves once"),
        (0, "all", "list of numbers"),
        (1, 4, "at another place|of four"),
        (1, 5, "a word's vector plus"),
        (2, [0, 1], "at a later place"),
        (2, [], "who stands first"),
        (2, [5], "who stands first"),
    ],
)
def test_a_wrong_count_is_told_where_to_look(place, wrong, hint):
    assert_right(check.by_hand, *RIGHT)
    answers = [*RIGHT[:place], wrong, *RIGHT[place + 1 :]]
    assert_refused(check.by_hand, *answers, hint=hint)


@pytest.mark.parametrize("form", [0, (0,), {0}, torch.tensor([0])])
def test_a_word_comes_in_many_forms(form):
    assert_right(check.by_hand, *RIGHT[:2], form)


def basis(G):
    _, strength, directions = torch.linalg.svd(G, full_matrices=False)
    return directions[strength > 1e-9 * strength[0]]


def left(X, directions):
    return X - X @ directions.mT @ directions


def outside(G, X):
    return left(X, basis(G)).norm(dim=1) / X.norm(dim=1)


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (lambda G, X: left(X, basis(G)).norm(dim=1), "the candidate's own length"),
        (lambda G, X: (1 - outside(G, X) ** 2).sqrt(), "the part inside"),
        (lambda G, X: outside(G, X) ** 2, "the square"),
        (lambda G, X: left(X, G).norm(dim=1) / X.norm(dim=1), "not orthonormal"),
        (lambda G, X: torch.zeros(len(X)), "as the gradient's rank"),
        (lambda G, X: torch.ones(len(X)), "subtract from each"),
        (lambda G, X: outside(G, X)[:, None], "shape"),
    ],
)
def test_a_wrong_distance_is_told_what_is_outside(learner, hint):
    assert_right(check.outside, outside)
    assert_refused(check.outside, learner, hint=hint)


def solved(P, R):
    return torch.linalg.lstsq(P.mT, R.mT).solution


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (lambda P, R: solved(P, R).argmax(0), "one place|shape"),
        (lambda P, R: torch.cdist(P, R).argmin(1), "solve for all at once|S P"),
        (lambda P, R: torch.zeros(len(P)), "solve for S"),
        (lambda P, R: solved(P, R), "shape"),
    ],
)
def test_a_wrong_order_is_told_what_to_solve(learner, hint):
    assert_right(check.order, lambda P, R: solved(P, R).argmax(1))
    assert_refused(check.order, learner, hint=hint)


@pytest.mark.parametrize(
    ("answers", "hint"),
    [
        ((26, 120), "one more"),
        ((5, 120), "are left"),
        ((32, 120), "all 2,000"),
        ((27, 108), "try false_hits"),
        ((27, 128), "all 2,000"),
    ],
)
def test_a_wrong_number_of_directions_is_told_to_count(answers, hint):
    assert_right(check.room, 27, 120)
    assert_refused(check.room, *answers, hint=hint)


def test_false_hits_are_as_many_as_the_law_says():
    # The squared distance of a random direction has a beta law.
    from scipy.stats import beta

    for directions, width in ((29, 32), (31, 32), (61, 64)):
        free = width - directions
        chance = beta.cdf(0.01, free / 2, directions / 2)
        expected = 2000 * chance
        found = check.false_hits(directions, width)
        assert abs(found - expected) < 5 * expected**0.5


def test_the_open_question_wants_some_sentences():
    assert_refused(check.keyboard, "It leaks.", hint="words are few")
    assert_right(check.keyboard, " ".join(f"reason{i}" for i in range(30)))

"""Typical wrong answers about a server that cheats, and what each is told."""

import pytest
import torch
from marking import assert_refused, assert_right

from precode_lib.checks import cheating_server as check

RIGHT = ("BE", 4, -0.5)


@pytest.mark.parametrize(
    ("place", "wrong", "hint"),
    [
        (0, "ABE", "A fires no row"),
        (0, "BCE", "C and D lie in one bin"),
        (0, ["B"], "somebody else"),
        (0, 3, "somebody else"),
        (1, 1, "every row below it"),
        (1, 3, "count all four"),
        (1, 5, "a row fires on"),
        (2, 1.5, "that is D's weight"),
        (2, 0.25, "a sum with signs"),
        (2, 0.1, "that is C's slope"),
        (2, 0.5, "plain mean|sign of the sum"),
        (2, -2, "other way round"),
        (2, 7, "divide C's part"),
    ],
)
def test_a_wrong_bin_is_told_who_lies_in_it(place, wrong, hint):
    assert_right(check.by_hand, *RIGHT)
    answers = [*RIGHT[:place], wrong, *RIGHT[place + 1 :]]
    assert_refused(check.by_hand, *answers, hint=hint)


@pytest.mark.parametrize("form", [["E", "B"], "b, e", ("B", "E"), {"B", "E"}])
def test_letters_come_in_many_forms(form):
    assert_right(check.by_hand, form, *RIGHT[1:])


def steps(rows):
    return rows - torch.cat([rows[1:], torch.zeros_like(rows[:1])])


def divided(part, size):
    return part / size.where(size.abs() > 1e-9, 1)[:, None]


def read(G, g):
    return divided(steps(G) * (steps(g).abs() > 1e-9)[:, None], steps(g))


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (divided, "quotients of whole rows"),
        (lambda G, g: steps(G), "still multiplied"),
        (lambda G, g: divided(steps(G), g), "not by the bias"),
        (lambda G, g: steps(G) / steps(g)[:, None], "let it be zeros|rows minus"),
        (lambda G, g: read(G, g)[:-1], "the last is gone"),
        (
            lambda G, g: torch.cat([read(G, g)[:-1], torch.zeros_like(G[:1])]),
            "nothing follows its row",
        ),
        (lambda G, g: -read(G, g), "rows minus the next ones"),
        (lambda G, g: read(G, g).mT, "shape"),
    ],
)
def test_a_wrong_reading_is_told_what_to_subtract_or_divide_by(learner, hint):
    assert_right(check.read, read)
    assert_refused(check.read, learner, hint=hint)


def held(fires):
    """Whether unit i's pictures are among unit j's, for each i and j."""
    return (fires[:, :, None] <= fires[:, None]).all(0)


def pairs(matrix):
    i, j = torch.triu_indices(len(matrix), len(matrix), 1)
    return matrix[i, j].double()


def nested(fires):
    return pairs(held(fires) | held(fires).mT).mean()


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (lambda f: (held(f) | held(f).mT).double().mean(), "no unit with itself"),
        (lambda f: pairs(held(f)).mean(), "ask both ways"),
        (lambda f: held(f).double().mean(), "ordered pairs"),
        (lambda f: pairs(held(f) & held(f).mT).mean(), "nested is less|ask both ways"),
        (lambda f: pairs(held(f) | held(f).mT).sum(), "not a number of pairs"),
        (lambda f: 1 - nested(f), "the other pairs"),
        (lambda f: 7.0, "all pictures that fire the one"),
    ],
)
def test_a_wrong_share_is_told_which_pairs_count(learner, hint):
    assert_right(check.nested, nested)
    assert_refused(check.nested, learner, hint=hint)


def rows_needed(n, share, others=1):
    rows = 1
    while (1 - 1 / rows) ** (n - others) < share:
        rows += 1
    return rows


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (lambda n, share: rows_needed(n, share, others=0), "n - 1 others"),
        (lambda n, share: rows_needed(n, share) - 1, "round up"),
        (lambda n, share: rows_needed(n, share) + 1, "one row less is enough"),
        (lambda n, share: n, "another question"),
        (lambda n, share: 1 / (1 - share ** (1 / (n - 1))), "solve it for K"),
    ],
)
def test_a_wrong_number_of_rows_is_told_what_to_solve(learner, hint):
    assert_right(check.rows_needed, rows_needed)
    assert_refused(check.rows_needed, learner, hint=hint)


def test_the_open_question_wants_some_sentences():
    assert_refused(check.a_message, "We refuse.", hint="words are few")
    assert_right(check.a_message, " ".join(f"reason{i}" for i in range(30)))

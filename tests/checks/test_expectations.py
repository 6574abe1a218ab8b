"""Markers say what was expected, what came and where to look."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from marking import assert_refused, assert_right

from precode_lib.checks import (
    TODO,
    NotSolved,
    exercise,
    expect,
    expect_choice,
    expect_close,
    expect_number,
    open_question,
)
from precode_lib.marking import HANDED_IN, whole


@exercise
def doubled(learner, generator):
    x = torch.randn(3, generator=generator)
    expect_close(learner(x), 2 * x, hint="add it to itself.", given={"x": x})


@exercise
def seven(number, generator):
    expect_number(number, 7, hint="count again.", secret=True, mistakes={"less.": 8})


@exercise
def word(answer, generator):
    expect_choice(answer, "no", {"yes": "look at the sign."})
    return "Well read."


@exercise
def essay(text, generator):
    return open_question(text, mentions="noise.", mistakes=["it helps."])


def test_a_right_answer_prints_one_line(capsys):
    doubled(lambda x: x + x)
    word(" No ")
    assert capsys.readouterr().out == "doubled: correct.\nword: correct. Well read.\n"


def test_an_answer_that_nobody_has_read_is_not_called_correct(capsys):
    essay(" ".join(f"word{i}" for i in range(30)))
    said = capsys.readouterr().out
    assert said.startswith("essay: handed in, for a person to read. A good answer")
    assert said.endswith("mentions noise.\nOften misunderstood: it helps.\n")
    assert "correct" not in said


def test_what_a_marker_judged_is_called_correct_however_its_remark_begins(capsys):
    @exercise
    def quoting(answer, generator):
        return f"{HANDED_IN} That is what the page says of texts."

    quoting("any")
    assert capsys.readouterr().out.startswith("quoting: correct. handed in")


def test_a_wrong_answer_raises_what_jupyter_shows_without_our_code():
    with pytest.raises(NotSolved) as caught:
        doubled(lambda x: x)
    assert caught.value.state == "wrong"
    (shown,) = caught.value._render_traceback_()
    for part in ("NotSolved: doubled:", "x = [", "should be [", "got [", "add it to"):
        assert part in shown


def test_inputs_are_fresh_each_time_unless_a_generator_says_which():
    seen = []
    for seed in (None, None, 1, 1):
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        doubled.judge(lambda x: seen.append(x) or x, generator=generator)
    assert not torch.equal(seen[0], seen[1])
    assert torch.equal(seen[2], seen[3])


@pytest.mark.parametrize("answer", [TODO, lambda x: TODO])
def test_a_missing_answer_is_not_a_wrong_one(answer):
    assert_refused(doubled, answer, hint="not answered yet", state="unanswered")


def test_a_forgotten_return_is_said_and_is_no_todo():
    assert_refused(doubled, lambda x: None, hint="does every way .* end with `return`")


@pytest.mark.parametrize(
    ("learner", "message"),
    [
        (lambda x: x[:2], r"should be a tensor of shape \(3,\), got .*\(2,\)"),
        (lambda x: "text", "should be a tensor of shape .* got 'text'"),
        (lambda x: object(), "a object is not accepted"),
        (lambda x: x * float("nan"), "NaN or infinity in 3 of 3"),
        (lambda x: {"x": x}, "should be a tensor .* got a dict"),
        (lambda x: [1.0, 2.0, [3.0]], "got a list"),
        (lambda x: [torch.zeros(2), torch.zeros(3)], "got a list"),
        (lambda x: {1.0, 2.0, 3.0}, "a frozenset.*no order: use a list"),
        (lambda x: 2 * x + 99j, "should be real; got complex"),
        (lambda x: [2 * v + 99j for v in x], "should be real"),
        (lambda x: ["1", "2", "3"], r"should be a tensor .*got a list"),
        (lambda x: (2 * x)[:, None], r"got .*\(3, 1\): .*`.reshape\(3\)`"),
        (lambda x: [[2 * v] for v in x.tolist()], r"\(3, 1\): .*`.reshape\(3\)`"),
        (lambda x: [10**400, 0, 0], "got a list"),
    ],
)
def test_anything_may_come_and_is_named(learner, message):
    assert_refused(doubled, learner, hint=message)


def test_lists_and_other_dtypes_are_accepted_for_tensors():
    assert_right(doubled, lambda x: (2 * x).tolist())
    assert_right(doubled, lambda x: 2 * x.double().requires_grad_())


@pytest.mark.parametrize(
    "form",
    [
        lambda x: [v for v in 2 * x],
        lambda x: tuple((2 * x).tolist()),
        lambda x: [*(2 * x).numpy()],
        lambda x: (2 * x).numpy()[::-1][::-1],
        lambda x: [Fraction(v) for v in (2 * x).tolist()],
    ],
    ids=["0-d tensors", "tuple", "numpy scalars", "view", "fractions"],
)
def test_numbers_in_any_list_are_a_tensor(form):
    assert_right(doubled, form)


def test_lists_of_tensors_and_of_lists_are_a_table():
    @exercise
    def table(learner, generator):
        x = torch.randn(2, 3, generator=generator)
        came = expect_close(learner(x), x, hint="as it is.")
        expect(came.shape == (2, 3), "the marker goes on with a tensor.", hint="")

    for form in (list, torch.Tensor.tolist, lambda x: [list(row) for row in x]):
        assert_right(table, form)


@pytest.mark.parametrize(
    "number",
    [7.0, np.int64(7), np.float32(7), torch.tensor(7), np.array(7), Fraction(7)],
    ids=lambda number: type(number).__name__,
)
def test_a_number_of_any_kind_is_a_number(number):
    assert seven.judge(number).is_right


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("7", "should be a number; got '7', which is text: leave out the quotation"),
        ([7], "should be a number; got a list"),
        (torch.tensor([7]), r"got a tensor of shape \(1,\): .*`.item\(\)`"),
        (7 + 99j, "should be real; got complex numbers"),
        (7 + 0j, "should be real; got complex numbers"),
        (10**4000, "should be a number; got"),
    ],
)
def test_what_is_no_number_is_told_how_to_become_one(answer, message):
    assert_refused(seven, answer, hint=message)
    assert len(seven.judge(answer).message) < 400


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, 3),
        (3.0, 3),
        (torch.tensor(3), 3),
        (torch.tensor(3.0), 3),
        (1.9, None),
        (True, None),
        (torch.tensor(True), None),
        (torch.tensor([3]), None),
        (torch.tensor(3j), None),
        (float("inf"), None),
        ("3", None),
    ],
)
def test_a_whole_number_is_one_in_every_form_and_nothing_else_is(value, expected):
    assert whole(value) == expected


def test_a_secret_is_kept():
    verdict = seven.judge(3)
    assert "7" not in verdict.message
    assert "is not 3" in verdict.message
    assert "less." in seven.judge(8).message
    assert "7" not in seven.judge(8).message
    assert seven.judge(7).is_right


def test_a_word_is_chosen_from_those_offered():
    assert_refused(word, "yes", hint="look at the sign")
    assert_refused(word, "maybe", hint='one of "no", "yes"')
    assert_refused(word, 3, hint='one of "no", "yes"; got 3')


def test_a_large_difference_is_shown_at_its_worst_place():
    @exercise
    def eye(learner, generator):
        expect_close(learner(5), torch.eye(5), hint="ones on the diagonal.")

    wrong = torch.eye(5)
    wrong[3, 4] = 2
    assert_refused(eye, lambda n: wrong, hint=r"at \[3, 4\]: expected 0, got 2")


def test_a_condition_says_where_to_look():
    @exercise
    def positive(number, generator):
        expect(number > 0, f"{number} is not positive.", hint="the sign.")

    assert_refused(positive, -1, hint="Where to look: the sign")
    assert_right(positive, 1)


def test_a_mistake_that_happens_to_be_right_is_right():
    @exercise
    def root(learner, generator):
        expect_number(learner(1.0), 1.0, hint="√", mistakes={"not halved.": 1.0})

    assert_right(root, lambda x: x)


def test_an_interrupt_is_no_answer():
    def stop(x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        doubled(stop)

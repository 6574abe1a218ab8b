"""Typical wrong answers, and what each is told."""

import pytest
import torch
from marking import assert_refused, assert_right

from precode_lib.checks import what_a_gradient_knows as check

DW, DB = [[-0.5, 0.25], [0.5, -0.25]], [-0.25, 0.25]


@pytest.mark.parametrize(
    ("dW", "db", "hint"),
    [
        (DW, [0.75, 0.25], "probabilities"),
        (DW, [0.25, -0.25], "the sign"),
        (DW, [0.75, -0.75], "first class"),
        (DW, [0.0, 0.0], "start from the logits"),
        ([[-0.5, 0.5], [0.25, -0.25]], DB, "transpose"),
        ([[0.5, -0.25], [-0.5, 0.25]], DB, "sign of every entry"),
        ([[0.0, 0.0], [0.0, 0.0]], DB, r"db\[c\] times x"),
        (DW[0], DB, r"tensor of shape \(2, 2\), got a tensor of shape \(2,\)"),
    ],
)
def test_a_wrong_gradient_by_hand_is_told_which_step_failed(dW, db, hint):
    assert_right(check.by_hand, DW, DB)
    assert_refused(check.by_hand, dW, db, hint=hint)


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (lambda dW, db: dW[0] / db[0], "unit 0 is off"),
        (lambda dW, db: dW[db.argmax()] / db[db.argmax()], "db may be negative"),
        (lambda dW, db: dW[db.abs().argmax()], "still multiplied"),
        (lambda dW, db: db[db.argmin()] / dW[db.argmin()], "upside down"),
        (lambda dW, db: dW.sum(0), r"db\[i\] times"),
        (lambda dW, db: dW / db[:, None], "should be a tensor of shape"),
    ],
)
def test_a_wrong_division_is_told_what_it_computed(learner, hint):
    assert_refused(check.closed_form, learner, hint=hint)


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (lambda db: int(db.argmax()), "look at the signs"),
        (lambda db: int(db.argmin()) + 1, "count classes from 0"),
        (lambda db: int(db.abs().argmin()), "closest to zero"),
        (lambda db: db.min(), "exactly one entry is negative"),
        (lambda db: db < 0, "should be a number, got a tensor of shape"),
    ],
)
def test_a_wrong_label_rule_is_told_what_to_look_at(learner, hint):
    assert_refused(check.label, learner, hint=hint)


@pytest.mark.parametrize(
    ("sigma", "hint"),
    [
        (0.01, "one step further"),
        (0.1, "not the first"),
        (0, "move the slider"),
        ("large", "should be a number; got 'large'"),
    ],
)
def test_a_wrong_noise_level_is_told_where_to_go(sigma, hint):
    assert_refused(check.enough_noise, sigma, hint=hint)


@pytest.mark.parametrize(
    ("text", "hint", "state"),
    [
        ("", "not answered yet", "unanswered"),
        ("A mixture of both.", "4 words are few", "wrong"),
        ("word " * 40, "different enough", "wrong"),
        (7, "should be text, got a int", "wrong"),
    ],
)
def test_an_open_question_wants_some_sentences(text, hint, state):
    assert_refused(check.two_photographs, text, hint=hint, state=state)


def test_what_a_learner_does_to_the_inputs_changes_nothing():
    def division(dW, db):
        row = db.abs().argmax()
        found = dW[row] / db[row]
        dW.zero_(), db.zero_()
        return found

    assert_right(check.closed_form, division)


def test_an_error_in_a_learners_function_is_shown_with_its_line():
    def broken(dW, db):
        return dW @ torch.zeros(1, 1, 7)

    assert_refused(check.closed_form, broken, hint="RuntimeError", state="raised")
    assert_refused(check.closed_form, broken, hint="dW @ torch.zeros", state="raised")

"""Typical wrong judgements of a defense, and what each is told."""

import pytest
from marking import assert_refused, assert_right
from right_answers import solved

from precode_lib.checks import judging as check

HELD = "not broken by what was tried"
RIGHT = (HELD, "open", "broken", "open", 0.2059, "b")


@pytest.mark.parametrize(
    ("place", "wrong", "hint"),
    [
        (0, "open", "They do"),
        (0, "safe", "should be one of"),
        (1, HELD, "Does the control"),
        (1, "broken", "nobody found one"),
        (2, HELD, "whatever others miss"),
        (2, "open", "12 of 16 is more than half"),
        (3, HELD, "Does the oracle"),
        (4, 0, "which rate is not excluded"),
        (4, 20.59, "a share, not percent"),
        (4, 0.0625, "the interval goes further"),
        (4, 0.1707, "on the other side"),
        (4, 0.794, "take it from 1"),
        (4, 0.1875, "rule of thumb"),
        (4, 0.5, "with n = 16"),
        (5, "a", "no attack is named"),
        (5, "c", "nothing in the table is a proof"),
        (5, "d", "the attacks do work"),
    ],
)
def test_a_wrong_reading_of_a_table_is_told_what_it_overlooked(place, wrong, hint):
    assert_right(check.by_hand, *RIGHT)
    answers = [*RIGHT[:place], wrong, *RIGHT[place + 1 :]]
    assert_refused(check.by_hand, *answers, hint=hint)


def by_rule(
    control,
    oracle,
    attacks,
    victims,
    *,
    controls=lambda control, oracle: [control] + [oracle] * bool(oracle),
    least=min,
    most=lambda found, victims: found > victims / 2,
    rare=lambda found, victims: found <= victims / 8,
):
    """The rule in other words, with a part to replace."""
    if [attack for attack in attacks if most(least(attack), victims)]:
        return "broken"
    if [found for attack in attacks for found in attack if not rare(found, victims)]:
        return "open"
    weak = [c for c in controls(control, oracle) if not most(least(c), victims)]
    return "open" if weak else HELD


def but(**changed):
    return lambda *given: by_rule(*given, **changed)


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (but(controls=lambda c, o: [o] if o else []), "the control has to find"),
        (but(controls=lambda c, o: [c]), "the oracle has to find"),
        (but(controls=lambda c, o: [c, o or [0]]), "then none is needed"),
        (but(least=max), "with \\*every\\* seed"),
        (but(least=lambda counts: sum(counts) / len(counts)), "not their mean"),
        (but(most=lambda found, n: found >= n / 2), "half is not more than half"),
        (but(rare=lambda found, n: found < n / 8), "exactly one in eight"),
        (but(rare=lambda found, n: found <= n / 2), "between that and half"),
        (
            lambda c, o, a, n: by_rule(c, o, [[*map(max, zip(*a, strict=True))]], n),
            "not the best of each",
        ),
        (
            lambda c, o, a, n: "open" if 2 * min(c) <= n else by_rule(c, o, a, n),
            "whatever control and oracle find",
        ),
        (lambda c, o, a, n: "safe", "one of the three words"),
        (lambda c, o, a, n: 3, "one of the three words"),
        (lambda c, o, a, n: "open", "three lines of the rule"),
    ],
)
def test_a_wrong_rule_is_told_which_border_it_moved(learner, hint):
    assert_right(check.verdict, by_rule)
    assert_refused(check.verdict, learner, hint=hint)


def hidden(heard, dim=0):
    return {n for n, v in heard.items() if v.ndim == 2 and (v == 0).all(dim).any()}


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (lambda heard: [*heard], "meets the defense"),
        (lambda heard: [*hidden(heard)], "names to leave out|column of zeros"),
        (lambda heard: [n for n in heard if n not in hidden(heard, 1)], "a row"),
        (lambda heard: [n for n, v in heard.items() if (v != 0).all()], "whole column"),
        (
            lambda heard: [
                n for n in heard if n.replace("bias", "weight") not in hidden(heard)
            ],
            "bias is as it was",
        ),
        (lambda heard: len(heard), "list of text"),
        (lambda heard: ["fc.weight"], "column of zeros"),
    ],
)
def test_wrong_names_are_told_what_they_keep_or_lose(learner, hint):
    assert_right(check.to_match, lambda heard: {*heard} - hidden(heard))
    assert_refused(check.to_match, learner, hint=hint)


@pytest.mark.parametrize(
    ("key", "wrong", "hint"),
    [
        ("attacker", "in part", "says all three"),
        ("adapted", "yes", "signs of its own"),
        ("arithmetic", "in part", "only a search"),
        ("control", "yes", "9 of 200"),
        ("oracle", "yes", "nobody is told"),
        ("ages", "in part", "weights are fresh"),
        ("setting", "no", "says all four"),
        ("recognised", "yes", "the rest is not"),
        ("interval", "yes", "one seed"),
        ("price", "in part", "five seeds"),
        ("words", "in part", "one was tried"),
        ("repeated", "no", "are public"),
        ("words", "perhaps", "should be one of"),
        ("words", None, "should be one of"),
    ],
)
def test_a_wrong_line_of_the_checklist_is_told_what_the_paper_says(key, wrong, hint):
    (right,) = solved("judging")["fill_in"][1]
    assert {*right} == {*check.QUESTIONS}
    assert_right(check.fill_in, right)
    assert_refused(check.fill_in, {**right, key: wrong}, hint=hint)


def test_a_checklist_has_all_its_lines_and_may_use_truth_values():
    (right,) = solved("judging")["fill_in"][1]
    words = {"yes": True, "no": False}
    assert_right(check.fill_in, {k: words.get(v, v) for k, v in right.items()})
    short = {k: v for k, v in right.items() if k != "words"}
    assert_refused(check.fill_in, short, hint="with an answer for each")
    assert_refused(check.fill_in, [*right.values()], hint="with an answer for each")


def test_the_open_question_wants_some_sentences():
    assert_refused(check.transformed, "It is broken.", hint="words are few")
    assert_right(check.transformed, " ".join(f"reason{i}" for i in range(30)))

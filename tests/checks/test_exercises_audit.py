"""Typical wrong answers about audits, and what each is told."""

import pytest
import torch
from marking import assert_refused, assert_right
from right_answers import solved

from precode_lib.checks import audit as check

BY_HAND = (3, 0.5, "no", 0)


@pytest.mark.parametrize(
    ("place", "wrong", "hint"),
    [
        (0, 5, "told what no attacker knows"),
        (0, 4, "count clients, not ticks"),
        (0, 2, "found by any of them"),
        (0, 1, "need not be all of them"),
        (0, 6, "each client once"),
        (1, 50, "not percent"),
        (1, 5 / 6, "told what no attacker knows"),
        (1, 1 / 3, "found by any of them"),
        (1, 3, "a share of the six"),
        (2, "yes", "> is not >="),
        (2, "perhaps", 'one of "no", "yes"'),
        (3, 1, "a rule that fired"),
        (3, 2, "two attacks ran"),
        (3, 3, "follows from the rule"),
    ],
)
def test_a_wrong_count_by_hand_is_told_who_was_counted(place, wrong, hint):
    assert_right(check.by_hand, *BY_HAND)
    answers = [*BY_HAND[:place], wrong, *BY_HAND[place + 1 :]]
    assert_refused(check.by_hand, *answers, hint=hint)


@pytest.mark.parametrize(
    "rule",
    [
        "asr > 0.1 or certified",
        "certified > 0 or asr > 0.1",
        "not (asr <= 0.1 and certified == 0)",
        "0.1 < asr or certified >= 1",
    ],
)
def test_a_rule_may_be_written_in_several_ways(rule):
    assert_right(check.rule, rule)


@pytest.mark.parametrize(
    ("rule", "hint"),
    [
        ("asr > 0.1 and certified", "either is enough"),
        ("asr >= 0.1 or certified", "not yet .more. than one in ten"),
        ("asr > 10 or certified", "between 0 and 1"),
        ("recovered > 1 or certified", "of how many"),
        ("asr > 0.1", "if it is a proof"),
        ("certified", "without a proof"),
        ("asr > 0.2 or certified", "pass|fail"),
        ("asr > 0.1 or features", "nobody's example"),
        ("labels or tokens", "which figures"),
        ("asr > 0.1 or certifed", "did you mean 'certified'"),
        ("asr >", "cannot be read"),
        (0.1, "should be text"),
    ],
)
def test_a_wrong_rule_is_told_a_case_that_it_misjudges(rule, hint):
    assert_refused(check.rule, rule, hint=hint)


def names(report, counts, controls=False):
    """Parameters of the findings that count, as a list in their order."""
    found = [
        finding["parameter"]
        for case in report["cases"]
        if controls or not case["control"]
        for finding in case["findings"]
        if finding["parameter"] and counts(finding)
    ]
    return [*dict.fromkeys(found)]


def is_proven(finding):
    return any(finding["certified"])


def is_example(finding):
    return is_proven(finding) and finding["gives"] != "features"


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (lambda report: names(report, is_proven), "features are the inputs"),
        (lambda report: names(report, is_example, True), "a control is not"),
        (lambda report: names(report, lambda f: any(f["recovered"])), "`certified`"),
        (
            lambda report: names(
                report, lambda f: is_example(f) and all(f["certified"])
            ),
            "one client whose example is proven",
        ),
        (lambda report: 2 * names(report, is_example), "there twice"),
        (lambda report: [], "a case under audit"),
        (lambda report: len(names(report, is_example)), "names in a list or a set"),
        (lambda report: ", ".join(names(report, is_example)), "names in a list"),
    ],
)
def test_a_wrong_list_of_parameters_is_told_what_counts(learner, hint):
    assert_right(check.leaking, lambda report: names(report, is_example))
    assert_refused(check.leaking, learner, hint=hint)


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (lambda found, of: found / of, "the rate that was seen"),
        (lambda found, of: 1 - 0.025 ** (1 / of), "that is for none"),
        (lambda found, of: 1 - 0.05 ** (1 / of), "on the other side"),
        (lambda found, of: min(1, (found + 3) / of), "probability of 0.025"),
        (lambda found, of: 100 * check.exact_interval(found, of)[1], "so many or"),
        (lambda found, of: check.exact_interval(found, of)[0], "the rate that was"),
    ],
)
def test_a_wrong_bound_is_told_what_it_is(learner, hint):
    assert_right(check.highest, solved("audit")["highest"][1][0])
    assert_refused(check.highest, learner, hint=hint)


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (torch.sign, "how far to go"),
        (lambda g: g.sign() * g.abs().max(), "the largest size"),
        (lambda g: g.sign() * g.mean(), "not of the entries"),
        (lambda g: g.sign() * g.square().mean().sqrt(), "mean square"),
        (lambda g: g.sign() * g[g != 0].abs().mean(), "zeros included"),
        (lambda g: torch.where(g >= 0, 1.0, -1.0) * g.abs().mean(), "a zero stays"),
        (lambda g: g / g.abs() * g.abs().mean(), "NaN or infinity"),
        (lambda g: g.flatten().sign() * g.abs().mean(), "tensor of shape"),
    ],
)
def test_wrong_signs_are_told_what_was_sent(learner, hint):
    assert_right(check.signs, lambda g: torch.copysign(g.abs().mean(), g) * (g != 0))
    assert_refused(check.signs, learner, hint=hint)


ZEROS = ("B", "C", "A", "D")


@pytest.mark.parametrize(
    ("place", "wrong", "hint"),
    [
        (0, "A", "without the defense, either"),
        (0, "C", "nothing but zeros"),
        (1, "D", "no attack that could"),
        (2, "B", "none with it"),
        (3, "A", "in A nothing"),
        (3, "E", 'one of "a", "b", "c", "d"'),
    ],
)
def test_a_misread_zero_is_told_what_stands_there(place, wrong, hint):
    assert_right(check.zeros, *ZEROS)
    assert_right(check.zeros, *map(str.lower, ZEROS))
    answers = [*ZEROS[:place], wrong, *ZEROS[place + 1 :]]
    assert_refused(check.zeros, *answers, hint=hint)


def test_the_four_reports_are_what_the_answer_says():
    found = {letter: check.seen(letter) for letter in check.REPORTS}
    for report in found.values():
        assert report.cases[0].figures["recovered"] == 0
    controls = {
        n: r.cases[1].figures["recovered"] for n, r in found.items() if n != "C"
    }
    assert controls == {"A": 0, "B": 4, "D": 0}
    assert len(found["A"].cases[1].returned) == 1  # it searched, and found nothing
    assert not found["D"].cases[0].returned
    assert len(found["C"].cases[0].health["silent"]) == 4
    codes = {name: report.exit_code for name, report in found.items()}
    assert codes == {"A": 0, "B": 0, "C": 2, "D": 2}


def test_release_notes_are_handed_in_for_a_person():
    text = solved("audit")["release_notes"][1][0]
    verdict = check.release_notes.judge(text)
    assert verdict.is_right and "37 percent" in verdict.message
    assert_refused(check.release_notes, "Our updates are safe.", hint="words are few")

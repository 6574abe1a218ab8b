"""What the pages say of attackers who know a defense: counts, oracles, verdicts."""

from dataclasses import replace

import pytest

from precode_lib.experiments import LITE, SCALES, TABLES, Finished
from precode_lib.experiments.cells import reseeded
from precode_lib.experiments.findings import (
    BROKEN,
    OPEN,
    WITHSTOOD,
    age_of,
    attacker_of,
    cases,
    control_of,
    defense_of,
    finding,
    network_of,
    oracle_of,
    table_of,
    verdict_of,
)
from precode_lib.experiments.questions import questions
from precode_lib.experiments.shelf import Shelf

EVERY = TABLES["adapt"].cells(LITE)
PRECODE = next(g for g in cases(EVERY) if g[0].setup.defense == "precode")
BY = {cell.attack: cell for cell in PRECODE}
FRESH, EARLY, JOINT, TOLD = (
    BY[a] for a in ("strong", "strong-early", "joint", "strong-told")
)
OTHERS = [c for c in PRECODE if c not in (FRESH, EARLY, JOINT, TOLD)]


def shelf_of(*those: tuple) -> Shelf:
    """A shelf with these cells: (cell, found of 16 with each seed, share first)."""
    found = {}
    for cell, counts, *first in those:
        for seed, count in enumerate(counts):
            one = reseeded(cell, seed)
            near = round(16 * (first[0] if first else 1))
            result = {
                "ssim": [0.9] * count + [0.1] * (16 - count),
                "rank": [1] * near + [7] * (16 - near),
            }
            made = {"processor_seconds": 60.0}
            key = f"{cell.attack}-{seed}"
            found[one] = Finished(one, result, [], made, key=key)
    return Shelf(LITE, found)


# --- the questions --------------------------------------------------------------------


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_the_questions_are_the_table(scale):
    asked = [cell for cells in questions(scale).values() for cell in cells]
    assert TABLES["adapt"].cells(scale) == asked
    assert all(question.endswith("?") for question in questions(scale))


def test_no_cell_answers_two_questions():
    assert len(EVERY) == len(set(EVERY))


# --- one finding ----------------------------------------------------------------------


def test_a_finding_counts_seed_by_seed():
    it = finding(shelf_of((JOINT, [16, 15, 16], 0.5)), reseeded(JOINT, 2))
    assert it.cell == JOINT
    assert it.successes == (16, 15, 16)
    assert it.found == "16, 15, 16 of 16"
    assert it.interval == "79–100, 70–100"  # in percent, and equal ones once
    assert it.ssim == pytest.approx((47 * 0.9 + 0.1) / 48)
    assert (it.first, it.worst, it.nearest) == (0.5, 0.9, 1)
    assert it.keys == ("joint-0", "joint-1", "joint-2")
    assert it.missing == 0


def test_what_was_not_run_says_so_and_what_it_would_cost():
    it = finding(shelf_of(), JOINT)
    assert not it.is_run
    assert (it.ssim, it.first, it.interval) == (None, None, "")
    assert (it.worst, it.nearest, it.closeness) == (None, None, ["", ""])
    assert it.found.startswith("not run: ") and it.found.endswith(("seconds", "es"))
    assert it.in_short == "not run"


def test_one_seed_costs_what_the_others_did():
    assert finding(shelf_of((JOINT, [16])), JOINT).missing == 2 * 60


# --- beside it ------------------------------------------------------------------------


def test_the_oracle_is_the_same_attack_told_the_noise():
    assert oracle_of(JOINT) == TOLD
    trained = [c for c in EVERY if c.epoch and c.attack == "strong-told"]
    joint = {oracle_of(c) for c in EVERY if c.attack == "joint"}
    assert trained and set(trained) <= joint


def test_the_control_is_without_the_defense_and_its_training():
    controls = {c for c in EVERY if c.setup.defense == "none"}
    for cell in EVERY:
        control = control_of(cell)
        assert control in controls
        assert (control.epoch, control.whose) == (cell.epoch, cell.whose)
        assert control.training is None or control.training.setup == control.setup


def test_a_line_has_its_oracle_and_its_control_beside_it():
    shelf = shelf_of((JOINT, [16, 15], 0.5), (TOLD, [16]), (control_of(JOINT), [14]))
    heads, lines, names = table_of(shelf, [FRESH, JOINT, TOLD])
    assert (heads[:names], heads[-2:]) == (["attacker"], ["oracle", "no defense"])
    fresh, joint = lines  # the oracle has no line of its own
    assert fresh[0] == "fresh noise" and fresh[1].startswith("not run")
    assert fresh[2:] == ["", "", "", "", "14 of 16 (0.80)"]
    assert joint[:3] == ["joint search", "16, 15 of 16", "79–100, 70–100"]
    assert joint[3:] == [
        ("0.88", "worst 0.90"),
        "50 %",
        "16 of 16 (0.90)",
        "14 of 16 (0.80)",
    ]


def test_a_table_names_what_its_lines_do_not_share():
    heads, lines, names = table_of(shelf_of(), EVERY)
    assert heads[:names] == ["network", "defense", "age", "attacker"]
    assert all(len(line) == len(heads) for line in lines)
    assert table_of(shelf_of(), [TOLD])[1][0][0].startswith("oracle")


def test_where_nothing_is_drawn_no_attacker_draws_anew():
    names = {c.setup.defense: attacker_of(c) for c in EVERY if c.attack == "strong"}
    draws = {defense for defense, name in names.items() if name == "fresh noise"}
    assert draws == {"precode", "cvb", "cvb-published", "dropout", "ppp"}


# --- the verdict ----------------------------------------------------------------------

NO_JOINT = [(FRESH, [0, 1], 0), (EARLY, [2, 0], 0), *((c, [1], 0) for c in OTHERS)]
NOTHING = [*NO_JOINT, (JOINT, [0, 0], 0)]
CONTROL, ORACLE = (control_of(FRESH), [16, 9]), (TOLD, [16, 16])


def judged(*those):
    return verdict_of(shelf_of(*those), PRECODE)


def test_broken_is_what_one_attacker_finds_mostly_with_every_seed():
    it = judged((FRESH, [0]), (EARLY, [3, 3]), (JOINT, [9, 16, 16]))
    assert (it.word, it.why) == (BROKEN, "")
    assert it.best.cell == JOINT


def test_half_with_one_seed_is_not_yet_broken():
    assert judged(*NO_JOINT, (JOINT, [8, 16]), CONTROL, ORACLE).word == OPEN


def test_an_oracle_breaks_nothing():
    it = judged(*NOTHING, ORACLE, CONTROL)
    assert (it.word, it.why) == (WITHSTOOD, "")
    assert it.best.cell in PRECODE and it.best.cell != TOLD


@pytest.mark.parametrize(
    ("those", "why"),
    [
        ([*NOTHING[1:], CONTROL, ORACLE], "not run"),
        ([*NOTHING, ORACLE], "not run"),
        ([*NO_JOINT, (JOINT, [0, 3], 0), CONTROL, ORACLE], "in between"),
        ([*NO_JOINT, (JOINT, [0], 3 / 16), CONTROL, ORACLE], "recognised"),
        ([*NOTHING, (control_of(FRESH), [16, 8]), ORACLE], "without the defense"),
        ([*NOTHING, CONTROL, (TOLD, [8])], "told the noise"),
        ([*NOTHING, CONTROL], "told the noise"),
    ],
)
def test_what_says_nothing_is_open(those, why):
    it = judged(*those)
    assert it.word == OPEN
    assert it.why.startswith(why)


def test_cases_differ_by_more_than_the_attacker():
    groups = cases(EVERY)
    assert sum(map(len, groups)) == sum(c.setup.defense != "none" for c in EVERY)
    names = [(network_of(c), defense_of(c), age_of(c)) for c, *_ in groups]
    assert len(set(names)) == len(names) > 25
    assert ("SMLP", "noise 10⁻²", "untrained") in names
    assert ("LeNet", "PRECODE after activation1", "untrained") in names
    assert ("LeNet", "CVB", "untrained, batches of 8") in names
    assert ("LeNet", "CVB", "50 epochs, learnt pictures") in names


def test_a_division_is_a_case_s_attacker_like_the_others():
    (group,) = (
        g
        for g in cases(EVERY)
        if (g[0].setup.model, g[0].setup.defense, g[0].epoch) == ("smlp", "precode", 10)
    )
    assert {c.attack for c in group} > {"joint", "divide"}
    divided = next(c for c in group if c.attack == "divide")
    assert control_of(divided).attack == "divide"
    it = verdict_of(shelf_of((divided, [16])), group)
    assert it.word == BROKEN
    assert replace(it.best.cell, attack="joint").iterations == 0

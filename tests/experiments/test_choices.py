"""Attackers who run several searches: which guess they keep, and what it is worth."""

from dataclasses import replace

import pytest

from precode_lib.experiments import LITE, TABLES, Finished
from precode_lib.experiments.cells import reseeded
from precode_lib.experiments.choices import choices, table_of_choices
from precode_lib.experiments.findings import attacker_of, cases
from precode_lib.experiments.shelf import Shelf

CASES = cases(TABLES["adapt"].cells(LITE))
PRECODE = {c.attack: c for c in next(g for g in CASES if len(g) > 5)}
FRESH, JOINT, TOLD = (PRECODE[a] for a in ("strong", "joint", "strong-told"))
EARLY, STILL = PRECODE["strong-early"], PRECODE["strong-early-still"]


def shelf_of(*those: tuple) -> Shelf:
    """A shelf with these cells: (cell, seed, objectives, SSIMs)."""
    found = {}
    for cell, seed, objective, ssim in those:
        one = reseeded(cell, seed)
        ranks = [1 if value > 0.5 else 9 for value in ssim]
        result = {"objective": objective, "ssim": ssim, "rank": ranks}
        made = {"processor_seconds": 1.0}
        found[one] = Finished(one, result, [], made, key=f"{cell.attack}-{seed}")
    return Shelf(LITE, found)


def test_of_each_victim_the_guess_with_the_lowest_objective_is_kept():
    shelf = shelf_of(
        (FRESH, 0, [0.1, 0.9, 0.5], [0.7, 0.8, 0.3]),
        (JOINT, 0, [0.2, 0.3, 0.4], [0.9, 0.2, 0.65]),
    )
    (it,) = choices(shelf, PRECODE.values())
    assert it.often == {"strong": 1, "joint": 2}
    assert it.kept.successes == (2,)  # by what they see: 0.7, 0.2 and 0.65
    assert it.kept.ssim == pytest.approx((0.7 + 0.2 + 0.65) / 3)
    assert (it.kept.worst, it.kept.nearest) == (0.7, 1)
    assert it.kept.first == pytest.approx(2 / 3)
    assert it.by_any == (3,)
    assert it.kept.cell == JOINT
    assert set(it.kept.keys) == {"strong-0", "joint-0"}


def test_nobody_chooses_the_oracle_or_what_was_not_run():
    told = (TOLD, 0, [0.0] * 3, [1.0] * 3)
    joint = (JOINT, 0, [0.5] * 3, [0.1] * 3)
    assert choices(shelf_of(told, joint), PRECODE.values()) == []
    (it,) = choices(
        shelf_of(told, joint, (FRESH, 0, [0.9] * 3, [0.9] * 3)), PRECODE.values()
    )
    assert it.kept.successes == (0,)
    assert {c.attack for c in it.among} == {"strong", "joint"}


def test_only_objectives_of_the_same_layers_and_distance_compare():
    every = [(c, 0, [0.5] * 3, [0.1] * 3) for c in PRECODE.values()]
    families = choices(shelf_of(*every), PRECODE.values())
    attacks = [{c.attack for c in family.among} for family in families]
    means = {"strong-mean-4", "strong-mean-16"}
    whole = {"strong", "joint"} | (means & PRECODE.keys())
    assert attacks == [whole, {"strong-early", "strong-early-still"}]


def test_a_seed_counts_if_there_is_a_choice():
    shelf = shelf_of(
        (EARLY, 0, [0.1] * 2, [0.7] * 2),
        (EARLY, 1, [0.1] * 2, [0.8] * 2),
        (STILL, 1, [0.2] * 2, [0.9] * 2),
    )
    (it,) = choices(shelf, PRECODE.values())
    assert it.kept.successes == (2,) and it.kept.worst == 0.8
    late = shelf_of((EARLY, 0, [1], [0]), (STILL, 1, [1], [0]))
    assert choices(late, PRECODE.values()) == []


def test_pictures_of_one_gradient_share_its_objective():
    fresh, joint = (replace(c, batch_size=2) for c in (FRESH, JOINT))
    shelf = shelf_of(
        (fresh, 0, [0.1, 0.9], [0.7, 0.6, 0.1, 0.1]),
        (joint, 0, [0.2, 0.3], [0.0, 0.0, 0.8, 0.9]),
    )
    (it,) = choices(shelf, [fresh, joint])
    assert it.kept.successes == (4,)
    assert it.often == {"strong": 2, "joint": 2}


def test_a_line_says_how_often_each_search_was_kept():
    shelf = shelf_of(
        (FRESH, 0, [0.9] * 16, [0.1] * 16), (JOINT, 0, [0.1] * 16, [0.8] * 15 + [0.2])
    )
    heads, (line,), names = table_of_choices(shelf, CASES)
    assert len(heads) == len(line) and heads[: names - 1] == [
        "network",
        "defense",
        "age",
    ]
    assert line[names - 1 : names + 3] == [
        f"{attacker_of(FRESH)} 0; {attacker_of(JOINT)} 16",
        "15 of 16",
        "70–100",
        "15",
    ]
    assert line[-2:] == [("0.76", "worst 0.80"), "94 %"]

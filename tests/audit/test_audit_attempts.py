"""Which search applies where, and what an attacker has to know for it."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from precode_lib.audit.attempts import attempts, cut_share
from precode_lib.audit.protections import NONE, protection
from precode_lib.audit.running import Turn, _shared_out
from precode_lib.audit.samples import sample
from precode_lib.audit.scenes import Case, Terms, play
from precode_lib.audit.threats import BOX, threat
from precode_lib.data import victims
from precode_lib.models import lenet

PICTURES = victims("photos", 2)


def scene(model, examples=PICTURES, protected=NONE, letter="C", **options):
    case = Case("given", True, 1, protected)
    terms = Terms(threat(letter), clients=2, **options)
    return play(case, model, sample(examples), terms, seed=0)


def applying(played) -> set[str]:
    return {a.name for a in attempts() if a.why_not(played) is None}


def test_nothing_drawn_is_searched_for_plainly():
    assert applying(scene(lenet())) == {"search by directions (IGA)", "strong search"}


def test_what_a_model_draws_is_searched_for_and_told_to_the_oracle():
    played = scene(lenet(), protected=protection("precode:16"))
    assert applying(played) == {
        "search by directions (IGA)",
        "joint search",
        "strong search before the noise",
        "oracle: told what the model drew",
    }
    assert len(played.drawn) == 1 and len(played.drawn[0]) == 2


def test_dropout_draws_too_and_its_masks_are_noted():
    network = nn.Sequential(
        nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Dropout(0.5), nn.Linear(1800, 10)
    )
    played = scene(network)
    assert "joint search" in applying(played) and len(played.drawn) == 1
    assert "joint search" not in applying(
        play(Case("given", False, 1, NONE), network, sample(PICTURES),
             Terms(threat("C"), clients=2), seed=0)
    )  # fmt: skip


def test_a_pruned_gradient_is_compared_where_it_was_kept():
    played = scene(lenet(), protected=protection("prune:0.9"))
    assert cut_share(played.seen) > 0.8
    assert "strong search among what was kept" in applying(played)
    assert cut_share(scene(lenet()).seen) < 0.2
    # A network of its own zeros, and nobody who prunes.
    rectified = nn.Sequential(nn.Flatten(), nn.Linear(3072, 64), nn.ReLU(),
                              nn.Linear(64, 10))  # fmt: skip
    played = scene(rectified)
    assert cut_share(played.seen) > 0.2
    assert "strong search among what was kept" not in applying(played)


def test_a_picture_needs_its_box_and_a_row_needs_nothing():
    needy = [a for a in attempts() if BOX in a.needs]
    played = scene(lenet(), letter="A")
    assert played.seen.normalisation is None
    assert all(a.lacks(played, threat("A")) for a in needy)
    assert not any(a.lacks(played, threat("B")) for a in needy)
    assert "search without a prior" in applying(played)
    rows = (torch.randn(4, 5), torch.zeros(4).long())
    of_rows = scene(nn.Linear(5, 3), rows, letter="A")
    assert not any(a.lacks(of_rows, threat("A")) for a in needy)


@pytest.mark.parametrize("letter", ["A", "D"])
def test_every_search_that_applies_makes_its_steps(letter):
    for protected in (NONE, protection("precode:16"), protection("prune:0.9")):
        played = scene(lenet(), protected=protected, letter=letter)
        for attempt in attempts():
            if attempt.why_not(played) or attempt.lacks(played, threat(letter)):
                continue
            generator = torch.Generator().manual_seed(0)
            search = attempt.search(played, 2, generator)
            assert len(list(search)) == 2
            assert search.result.images.shape == (2, 1, 3, 32, 32)


def test_only_data_enhanced_attackers_look_at_public_examples():
    eight = victims("photos", 8)
    assert scene(lenet(), eight, letter="C").public is None
    assert len(scene(lenet(), eight, letter="D").public) == 6


def turns(*paces: float) -> list[Turn]:
    """Made-up searches that take so long a step."""
    made = []
    for number, pace in enumerate(paces):
        attempt = replace(attempts()[1], name=f"search {number}", full=30, least=5)
        made.append(Turn(scene(lenet()), attempt, pace=pace))
    return made


@pytest.mark.parametrize(
    ("paces", "seconds", "steps"),
    [
        ((1.0, 1.0), 60, [30, 30]),
        ((1.0, 1.0), 20, [10, 10]),
        ((0.1, 1.0), 20, [30, 17]),  # what the first does not need
        ((1.0, 1.0), 8, [8, 0]),  # 4 and 4 would say nothing
        ((5.0, 1.0), 20, [0, 20]),  # the most expensive goes first
        ((5.0, 5.0), 20, [0, 0]),
        ((0.0, 1.0), 3, [30, 0]),  # one that fails, and is reported
        ((1.0,), -2, [0]),
    ],
)
def test_a_budget_is_shared_out_so_that_what_is_made_says_something(
    paces, seconds, steps
):
    planned = _shared_out(turns(*paces), seconds)
    assert [turn.iterations for turn in planned] == steps

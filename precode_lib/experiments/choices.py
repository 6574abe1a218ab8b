"""Attackers who run several searches and keep the guess that they believe in most.

Searches that minimise the same function of what was sent can be compared by it, victim
by victim and without the truth. That is the strongest attack that nobody has to choose
by luck; an oracle is not among them.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from precode_lib.experiments.cells import reseeded
from precode_lib.experiments.findings import (
    Finding,
    age_of,
    attacker_of,
    defense_of,
    network_of,
)
from precode_lib.experiments.kinds.adaptive import AdaptiveCell
from precode_lib.experiments.names.attacks import ATTACKS, Attack
from precode_lib.experiments.shelf import Shelf
from precode_lib.experiments.store import Finished
from precode_lib.metrics import SUCCESS_SSIM

Round = Mapping[str, Finished]  # attack -> what it found, all with one seed


@dataclass(frozen=True)
class Choice:
    """Of each victim the guess with the lowest objective, among several searches.

    Args:
        among: the searches, whose objectives are one function.
        kept: what the guesses that were kept come to. Its cell is that of the search
            which was kept most often, its keys are those of all of them.
        often: how often each attack was kept, over victims and seeds.
        by_any: victims that at least one of the searches finds, seed by seed.
    """

    among: tuple[AdaptiveCell, ...]
    kept: Finding
    often: Mapping[str, int]
    by_any: tuple[int, ...]


def choices(shelf: Shelf, cells: Iterable[AdaptiveCell]) -> list[Choice]:
    """What comes of choosing, for each set of searches of one case that compare.

    They look at the same layers, by the same distance and prior, and differ in what
    they do about what is hidden. Seed by seed, among those that were run with it.
    """
    families: dict[tuple, list[AdaptiveCell]] = {}
    for cell in cells:
        attack = ATTACKS.named(cell.attack)
        is_one = attack.recipe is not None and not attack.knows_noise
        if is_one and shelf.seeds_of(cell):
            families.setdefault(_objective(attack), []).append(cell)
    several = [family for family in families.values() if len(family) > 1]
    found = [(family, _rounds(shelf, family)) for family in several]
    return [_choice(family, rounds) for family, rounds in found if rounds]


def _objective(attack: Attack) -> tuple:
    """What its search minimises; of two that are equal the values can be compared."""
    recipe = attack.recipe()
    terms = recipe.distance, recipe.prior, recipe.prior_weight, recipe.stages
    return *terms, recipe.label_weight, recipe.layers, recipe.layer_weights


def _rounds(shelf: Shelf, family: Sequence[AdaptiveCell]) -> list[Round]:
    """The results seed by seed, where there are several."""
    by_seed: dict[int, dict[str, Finished]] = {}
    for cell in family:
        for finished in shelf.seeds_of(cell):
            by_seed.setdefault(finished.cell.setup.seed, {})[cell.attack] = finished
    return [each for _, each in sorted(by_seed.items()) if len(each) > 1]


def _choice(family: Sequence[AdaptiveCell], rounds: Sequence[Round]) -> Choice:
    picks = [_lowest(each) for each in rounds]
    often = Counter(attack for pick in picks for attack in pick)
    most = max(family, key=lambda cell: often[cell.attack])
    results = [
        {name: _picked(each, pick, name) for name in ("ssim", "rank")}
        for each, pick in zip(rounds, picks, strict=True)
    ]
    keys = tuple(finished.key for each in rounds for finished in each.values())
    kept = Finding.of(reseeded(most, 0), results, keys=keys)
    return Choice(tuple(family), kept, often, tuple(map(_by_any, rounds)))


def _lowest(each: Round) -> list[str]:
    """Of each victim the attack whose guess has the lowest objective.

    Pictures of one gradient share its objective.
    """
    (count,) = {len(finished.result["ssim"]) for finished in each.values()}

    def objective(attack: str, victim: int) -> float:
        values = each[attack].result["objective"]
        return values[victim * len(values) // count]

    return [min(each, key=lambda a, i=i: objective(a, i)) for i in range(count)]


def _picked(each: Round, pick: Sequence[str], name: str) -> list[float]:
    return [each[attack].result[name][i] for i, attack in enumerate(pick)]


def _by_any(each: Round) -> int:
    results = (finished.result["ssim"] for finished in each.values())
    return sum(max(those) >= SUCCESS_SSIM for those in zip(*results, strict=True))


def table_of_choices(
    shelf: Shelf, cases: Iterable[Iterable[AdaptiveCell]]
) -> tuple[list[str], list[list[str | tuple[str, str]]], int]:
    """Heads and lines of a table, and how many columns name a line.

    A line for each set of searches that compare, with how often each was kept.
    """
    heads = ["network", "defense", "age", "kept", "found", "95 %, in %", "by any"]
    lines = [_line(choice) for case in cases for choice in choices(shelf, case)]
    return [*heads, "SSIM", "first of 1,000"], lines, 4


def _line(choice: Choice) -> list[str | tuple[str, str]]:
    kept, cell = choice.kept, choice.kept.cell
    names = [network_of(cell), defense_of(cell), age_of(cell)]
    often = [f"{attacker_of(c)} {choice.often[c.attack]}" for c in choice.among]
    any_of = ", ".join(map(str, choice.by_any))
    return [
        *names,
        "; ".join(often),
        kept.found,
        kept.interval,
        any_of,
        *kept.closeness,
    ]

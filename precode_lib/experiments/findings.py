"""The table "adapt" as the book reads it: counts seed by seed, oracles, verdicts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from precode_lib.experiments.cells import Setup, reseeded
from precode_lib.experiments.costs import in_words, seconds
from precode_lib.experiments.kinds.adaptive import WHOSE, AdaptiveCell
from precode_lib.experiments.names.attacks import ATTACKS
from precode_lib.experiments.names.defenses import DEFENSES
from precode_lib.experiments.names.models import MODELS
from precode_lib.experiments.shelf import NOT_RUN, Shelf
from precode_lib.metrics import SUCCESS_SSIM, exact_interval

ORACLE, CONTROL = "strong-told", "strong"
BROKEN, WITHSTOOD, OPEN = "broken", "not broken by what we tried", "open"


@dataclass(frozen=True)
class Finding:
    """What one attacker found, seed by seed.

    Args:
        cell: which attack on which network, with seed 0.
        successes: victims with an SSIM of 0.6 or more, of each seed that was run.
        ssim: mean over victims and seeds; None if no seed was run.
        worst: the largest SSIM of a victim, with any seed: the client who lost most.
        first: share of guesses to which the true picture is nearest, among 1,000.
        nearest: the lowest rank of a victim, with any seed; 1 is recognised.
        keys: the names of the files, a seed each.
        missing: seconds of one core that the seeds which were not run would cost.
    """

    cell: AdaptiveCell
    successes: tuple[int, ...]
    ssim: float | None
    worst: float | None
    first: float | None
    nearest: int | None
    keys: tuple[str, ...]
    missing: float

    @classmethod
    def of(
        cls,
        cell: AdaptiveCell,
        results: Sequence[Mapping[str, Sequence[float]]],
        *,
        keys: tuple[str, ...],
        missing: float = 0.0,
    ) -> "Finding":
        """What these results, a seed each, come to by their SSIM and ranks."""
        ssim = [value for result in results for value in result["ssim"]]
        ranks = [rank for result in results for rank in result["rank"]]
        return cls(
            cell=cell,
            successes=tuple(sum(v >= SUCCESS_SSIM for v in r["ssim"]) for r in results),
            ssim=_mean(ssim),
            worst=max(ssim, default=None),
            first=_mean(rank == 1 for rank in ranks),
            nearest=min(ranks, default=None),
            keys=keys,
            missing=missing,
        )

    @property
    def is_run(self) -> bool:
        """Whether at least one seed was."""
        return bool(self.successes)

    @property
    def found(self) -> str:
        """As the tables say it: "16, 15, 16 of 16", a number a seed."""
        if not self.is_run:
            return f"{NOT_RUN}: {in_words(self.missing)}"
        return f"{', '.join(map(str, self.successes))} of {self.cell.victims}"

    @property
    def interval(self) -> str:
        """The exact 95 % interval of each seed in percent, equal ones once."""
        each = (exact_interval(n, self.cell.victims) for n in self.successes)
        shown = (f"{100 * low:.0f}–{100 * high:.0f}" for low, high in each)
        return ", ".join(dict.fromkeys(shown))

    @property
    def closeness(self) -> list[str | tuple[str, str]]:
        """Mean SSIM above the largest of a client, and the share recognised."""
        if not self.is_run:
            return ["", ""]
        ssim = f"{self.ssim:.2f}", f"worst {self.worst:.2f}"
        return [ssim, f"{100 * self.first:.0f} %"]

    @property
    def in_short(self) -> str:
        """Counts and mean SSIM in one cell of a table."""
        return f"{self.found} ({self.ssim:.2f})" if self.is_run else NOT_RUN


def finding(shelf: Shelf, cell: AdaptiveCell) -> Finding:
    """What the files say of a cell, whatever its seed."""
    there = shelf.seeds_of(cell)
    seeds = [reseeded(cell, seed) for seed in shelf.scale.seeds]
    ran = {finished.cell for finished in there}
    # Of its own kind only: to compare a cell with all others takes long.
    known = [f for f in shelf.found.values() if f.cell.kind == cell.kind]
    return Finding.of(
        reseeded(cell, shelf.scale.seeds[0]),
        [finished.result for finished in there],
        keys=tuple(finished.key for finished in there),
        missing=sum(seconds(seed, known) for seed in seeds if seed not in ran),
    )


def oracle_of(cell: AdaptiveCell) -> AdaptiveCell:
    """The same search, told what the client drew: what a joint search may reach."""
    return replace(cell, attack=ORACLE)


def control_of(cell: AdaptiveCell) -> AdaptiveCell:
    """The same victims without the defense: what there is to find.

    By the same kind of attack: a division, the usual search, or the strong one.
    """
    was = cell.setup
    bare = Setup(was.dataset, was.model, "none", was.seed, was.width, was.init)
    return replace(
        cell,
        setup=bare,
        attack=_without(cell.attack),
        training=cell.training and replace(cell.training, setup=bare),
    )


def _without(attack: str) -> str:
    """The attack that this one changes on account of a defense."""
    kinds = ("divide", "iga-fast")
    return next((kind for kind in kinds if attack.startswith(kind)), CONTROL)


@dataclass(frozen=True)
class Verdict:
    """What the attackers of one case come to, by the rule of `verdict_of`.

    Args:
        word: "broken", "not broken by what we tried" or "open".
        why: what is missing, where it is open.
        best: the attacker who found most; nobody who was told the noise.
        control: what is found without the defense.
    """

    word: str
    why: str
    best: Finding
    control: Finding


def cases(cells: Iterable[AdaptiveCell]) -> list[list[AdaptiveCell]]:
    """The cells with a defense, together where only the attacker differs."""
    groups: dict[AdaptiveCell, list[AdaptiveCell]] = {}
    for cell in cells:
        if cell.setup.defense != "none":
            # A division has 0 steps, so steps cannot tell cases apart.
            case = replace(cell, attack=CONTROL, iterations=1)
            groups.setdefault(case, []).append(cell)
    return [*groups.values()]


def verdict_of(shelf: Shelf, cells: Sequence[AdaptiveCell]) -> Verdict:
    """Judge the attackers of one case by a rule that was fixed beforehand.

    Broken: with every seed that was run, one attacker finds more than half of the
    victims. Not broken by what we tried: all attackers were run and none finds more
    than one in eight with any seed, nor is the true picture first among 1,000 for more
    than one in eight; though more than half are found without the defense, and by the
    search that is told the noise. Open: everything else.
    """
    found = [finding(shelf, cell) for cell in cells]
    told = [f for f in found if ATTACKS[f.cell.attack].knows_noise]
    tried = [f for f in found if f not in told]
    best = max(tried, key=lambda f: (_least(f), sum(f.successes), f.ssim or 0))
    control = finding(shelf, control_of(best.cell))
    if finds_most(best):
        return Verdict(BROKEN, "", best, control)
    why = _missing(tried, told, control)
    return Verdict(OPEN if why else WITHSTOOD, why, best, control)


def finds_most(finding: Finding) -> bool:
    """Whether more than half of the victims are found, with every seed."""
    return 2 * _least(finding) > finding.cell.victims


def _missing(
    tried: Sequence[Finding], told: Sequence[Finding], control: Finding
) -> str:
    """Why nothing follows from attackers who do not find most; empty if it does."""
    if not all(f.is_run for f in tried):
        return NOT_RUN
    if any(8 * max(f.successes) > f.cell.victims for f in tried):
        return "in between"
    if any(8 * (f.first or 0) > 1 for f in tried):
        return "recognised, though not found whole"
    if not finds_most(control):
        return "without the defense no more is found" if control.is_run else NOT_RUN
    if not all(map(finds_most, told)):
        return "told the noise, the search fails as well"
    return ""


def table_of(
    shelf: Shelf, cells: Sequence[AdaptiveCell]
) -> tuple[list[str], list[list[str | tuple[str, str]]], int]:
    """Heads and lines of a table, and how many columns name a line.

    A line per attacker. Its oracle stands beside it, and what the search, or the
    division, finds without the defense. What all lines share is left out.
    """
    shown = [c for c in cells if c.attack != ORACLE] or list(cells)
    named = {
        "network": [network_of(c) for c in shown],
        "defense": [defense_of(c) for c in shown],
        "age": [age_of(c) for c in shown],
        "attacker": [attacker_of(c) for c in shown],
    }
    named = {
        head: column
        for head, column in named.items()
        if head == "attacker" or len(set(column)) > 1
    }
    found = [finding(shelf, c) for c in shown]
    heads = [*named, "found", "95 %, in %", "SSIM", "first of 1,000"]
    lines = [
        [*names, f.found, f.interval, *f.closeness, *_beside(shelf, f.cell, cells)]
        for *names, f in zip(*named.values(), found, strict=True)
    ]
    return [*heads, "oracle", "no defense"], lines, len(named)


def _beside(
    shelf: Shelf, cell: AdaptiveCell, cells: Sequence[AdaptiveCell]
) -> list[str]:
    """The oracle of a joint search, and what there is to find without a defense."""
    has_oracle = cell.attack == "joint" and oracle_of(cell) in cells
    oracle = finding(shelf, oracle_of(cell)).in_short if has_oracle else ""
    is_bare = cell.setup.defense == "none"
    return [oracle, "" if is_bare else finding(shelf, control_of(cell)).in_short]


def network_of(cell: AdaptiveCell) -> str:
    """The network as tables name it."""
    weights = ", PyTorch's weights" if cell.setup.init == "pytorch" else ""
    return f"{MODELS.title(cell.setup.model)}{weights}"


def defense_of(cell: AdaptiveCell) -> str:
    """The defense as tables name it, with its place if that is not the usual one."""
    title, places = DEFENSES.title(cell.setup.defense), cell.setup.places
    if places == Setup.places:
        return title
    return f"{title} {' and '.join(places).replace('features.', '')}"


def age_of(cell: AdaptiveCell) -> str:
    """How long the network was trained, and how its victims met it."""
    epochs = "1 epoch" if cell.epoch == 1 else f"{cell.epoch} epochs"
    parts = [epochs if cell.epoch else "untrained", WHOSE[cell.whose]]
    if cell.batch_size > 1:
        parts.append(f"batches of {cell.batch_size}")
    return ", ".join(filter(None, parts))


def attacker_of(cell: AdaptiveCell) -> str:
    """The attacker as tables name it; the plain search, where nothing is drawn."""
    if cell.attack == CONTROL and DEFENSES[cell.setup.defense].insert is None:
        return "the search as it is"
    return ATTACKS.title(cell.attack)


def _least(finding: Finding) -> int:
    return min(finding.successes, default=-1)


def _mean(values: Iterable[float]) -> float | None:
    each = list(values)
    return fmean(each) if each else None

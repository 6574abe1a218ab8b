"""Attack by whoever knows the defense, and ask also which picture it was."""

from dataclasses import dataclass
from statistics import fmean, median
from typing import ClassVar

from precode_lib.experiments import conditions
from precode_lib.experiments.cells import (
    Cell,
    Kind,
    Reading,
    Run,
    Setup,
    check_trained,
)
from precode_lib.experiments.costs import grown, pace_of
from precode_lib.experiments.kinds import attack as plain
from precode_lib.experiments.kinds.training import TrainingCell
from precode_lib.experiments.names.attacks import ATTACKS
from precode_lib.experiments.names.defenses import DEFENSES

CANDIDATES = 1_000  # pictures among which the true one has its rank
WHOSE = {
    "published": "",
    "seen": "learnt pictures",
    "unseen": "new pictures",
}


@dataclass(frozen=True)
class AdaptiveCell(Cell):
    """Attack by whoever knows the defense, and ask also which picture it was.

    Args:
        attack: a name in `ATTACKS`; what it makes no use of is set to 0.
        victims: how many pictures.
        batch_size: pictures that share one gradient.
        iterations: of the search.
        epoch: how long the model was trained before; 0 is at random initialisation.
        training: which training that was; None at epoch 0.
        whose: the victims: "published" ones, or of the pictures that the training has
            "seen", or of those that it was tested with, "unseen".
    """

    kind: ClassVar[str] = "adaptive"
    setup: Setup
    attack: str = "joint"
    victims: int = 16
    batch_size: int = 1
    iterations: int = 30
    epoch: int = 0
    training: TrainingCell | None = None
    whose: str = "published"

    def __post_init__(self) -> None:
        if "iterations" in plain.unused(self.attack):
            object.__setattr__(self, "iterations", 0)
        if self.whose not in WHOSE:
            raise ValueError(f"whose is one of {', '.join(WHOSE)}, got {self.whose!r}.")
        if self.whose != "published" and self.training is None:
            raise ValueError(
                f"victims that a training has {self.whose} need a training."
            )
        plain.check_batches(self.victims, self.batch_size)
        check_trained(self)

    def __str__(self) -> str:
        parts = [f"{self.attack} on {self.setup}", f"{self.victims} victims"]
        if self.batch_size > 1:
            parts.append(f"batches of {self.batch_size}")
        if self.epoch:
            parts.append(f"after {self.epoch} epochs")
        return ", ".join([*parts, WHOSE[self.whose] or "published"])


def _pictures(cell: AdaptiveCell, gallery) -> list:
    """The victims; and those among which they are looked for."""
    dataset = cell.setup.dataset
    others = gallery.splits(dataset, 1, CANDIDATES).test
    if cell.whose == "published":
        return [gallery.victims(dataset, cell.victims), others]
    sizes = cell.training.train_pictures, cell.training.test_pictures
    part = "train" if cell.whose == "seen" else "test"
    return [gallery.some(dataset, *sizes, part=part, number=cell.victims), others]


def _run(cell: AdaptiveCell, bench) -> Run:
    from precode_lib.experiments.runs import adaptive

    return adaptive.run(cell, bench)


def _read(cell: AdaptiveCell, scale) -> Reading:
    """The last guesses, judged by the paper's convention, and the ranks."""
    return Reading(
        metrics={
            "ssim": lambda r: plain.means(r).get("ssim"),
            "relative_error": lambda r: plain.means(r).get("relative_error"),
            "asr": lambda r: 100 * plain.means(r)["asr"],
            "first": lambda r: 100 * fmean(rank == 1 for rank in r["rank"]),
            "rank": lambda r: median(r["rank"]),
        },
        printed={},
        rare=plain.RARE,
        attack=cell.attack,
        condition=", ".join([*_condition(cell), *conditions.of_setup(cell.setup)]),
    )


def _condition(cell: AdaptiveCell) -> list[str]:
    parts = [f"batch {cell.batch_size}"] if cell.batch_size > 1 else []
    parts.append(f"epoch {cell.epoch}")
    return [*parts, *filter(None, [WHOSE[cell.whose]])]


def _cost(cell: AdaptiveCell) -> float:
    setup = cell.setup
    pace, defense = pace_of(setup), DEFENSES.get(setup.defense)
    is_dense = defense is not None and defense.is_dense
    per_victim = pace.dense_step if is_dense else pace.victim_step
    known = ATTACKS.get(cell.attack)
    evaluations = 20 if known is None else known.evaluations
    # A division looks once, at rows that noise made dense thirty times.
    steps = cell.iterations * evaluations or 30
    # L-BFGS remembers a hundred pairs of pictures beside what a search by Adam does.
    return 2 * grown(setup) * steps * (pace.step + cell.victims * per_victim)


KIND = Kind(
    AdaptiveCell,
    _pictures,
    _run,
    _read,
    _cost,
    values=plain.VALUES,
    summary=plain.KIND.summary,
)

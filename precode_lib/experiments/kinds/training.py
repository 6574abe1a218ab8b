"""Train a model and note loss and accuracy after every epoch."""

from dataclasses import dataclass
from typing import ClassVar

from precode_lib.experiments import conditions, paper
from precode_lib.experiments.cells import Cell, Kind, Reading, Run, Setup, Value
from precode_lib.experiments.costs import grown, pace_of
from precode_lib.experiments.names.datasets import DATASETS
from precode_lib.experiments.names.defenses import DEFENSES

ACCURACIES = ("train_accuracy", "test_accuracy")
VALUES = {
    **dict.fromkeys(("train_loss", "test_loss"), Value("nats; one per epoch")),
    **dict.fromkeys(ACCURACIES, Value("a share of 1; one per epoch")),
}


@dataclass(frozen=True)
class TrainingCell(Cell):
    """Train a model and note loss and accuracy after every epoch.

    Args:
        epochs: how many.
        train_pictures: how many to learn from, of every class alike; None for all.
        test_pictures: likewise, to test with.
    """

    kind: ClassVar[str] = "training"
    setup: Setup
    epochs: int
    train_pictures: int | None = None
    test_pictures: int | None = None

    def __str__(self) -> str:
        return f"train {self.setup}, {self.epochs} epochs"


def _pictures(cell: TrainingCell, gallery) -> list:
    sizes = cell.train_pictures, cell.test_pictures
    splits = gallery.splits(cell.setup.dataset, *sizes)
    return [splits.train, splits.test]


def _run(cell: TrainingCell, bench) -> Run:
    from precode_lib.experiments.runs import training

    return training.run(cell, bench)


def _read(cell: TrainingCell, scale) -> Reading:
    """The accuracies after the last epoch, in percent."""
    setup = cell.setup
    case = setup.dataset, setup.model, conditions.meant_by(setup).defense
    is_usual = conditions.is_published(setup)
    return Reading(
        metrics={m: lambda r, m=m: 100 * r[m][-1] for m in ACCURACIES},
        printed=paper.ACCURACIES.get(case, {}) if is_usual else {},
        condition=", ".join(conditions.of_setup(setup)),
    )


def _cost(cell: TrainingCell) -> float:
    setup = cell.setup
    pictures = cell.train_pictures or 50_000
    rate = pace_of(setup).trained / _times_as_long(setup)
    return grown(setup) * cell.epochs * 1.1 * pictures / rate


def _times_as_long(setup: Setup) -> float:
    """A training's cost beside the same without a defense on pictures of 32 pixels."""
    if pace_of(setup).hides_defense:
        return DATASETS[setup.dataset].slows if setup.dataset in DATASETS else 1
    return DEFENSES[setup.defense].slows if setup.defense in DEFENSES else 1


def _summary(result) -> dict[str, float]:
    """What the last epoch came to."""
    return {name: result[name][-1] for name in VALUES}


KIND = Kind(
    TrainingCell, _pictures, _run, _read, _cost, values=VALUES, summary=_summary
)

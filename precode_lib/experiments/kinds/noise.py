"""Compare the gradients of a picture under one draw of noise and under another."""

from dataclasses import dataclass
from statistics import fmean
from typing import ClassVar

from precode_lib.experiments import conditions
from precode_lib.experiments.cells import (
    Cell,
    Kind,
    Reading,
    Run,
    Setup,
    Value,
    check_trained,
)
from precode_lib.experiments.costs import grown
from precode_lib.experiments.kinds.training import TrainingCell


@dataclass(frozen=True)
class NoiseCell(Cell):
    """Compare the gradients of a picture under one draw of noise and under another.

    Args:
        victims: how many pictures, each with a gradient of its own.
        draws: of each gradient; every one is compared with the one before.
        epoch: how long the model was trained before; 0 is at random initialisation.
        training: which training that was; None at epoch 0.
    """

    kind: ClassVar[str] = "noise"
    setup: Setup
    victims: int = 128
    draws: int = 6
    epoch: int = 0
    training: TrainingCell | None = None

    def __post_init__(self) -> None:
        check_trained(self)

    def __str__(self) -> str:
        extra = f", after {self.epoch} epochs" if self.epoch else ""
        return f"noise of {self.setup}, {self.victims} victims{extra}"


def _pictures(cell: NoiseCell, gallery) -> list:
    return [gallery.victims(cell.setup.dataset, cell.victims)]


def _run(cell: NoiseCell, bench) -> Run:
    from precode_lib.experiments.runs import noise

    return noise.run(cell, bench)


def _read(cell: NoiseCell, scale) -> Reading:
    parts = [*conditions.of_moment(cell), *conditions.of_setup(cell.setup)]
    return Reading(
        metrics={"cosine": lambda r: fmean(r["cosine"])},
        printed={},
        condition=", ".join(parts),
    )


def _cost(cell: NoiseCell) -> float:
    return grown(cell.setup) * cell.draws * cell.victims * 0.04


def _summary(result) -> dict[str, float]:
    return {"cosine": fmean(result["cosine"])}


VALUES = {"cosine": Value("of two gradients of one picture, -1 to 1", per="victim")}
KIND = Kind(NoiseCell, _pictures, _run, _read, _cost, values=VALUES, summary=_summary)

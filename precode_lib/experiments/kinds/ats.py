"""Attack pictures under a transformation policy, with or without adapting to it."""

from dataclasses import dataclass
from typing import ClassVar

from precode_lib.experiments import paper
from precode_lib.experiments.cells import Cell, Kind, Reading, Run, Setup, Value

NO_POLICY = "-1"


@dataclass(frozen=True)
class AtsCell(Cell):
    """Attack pictures under a transformation policy, with or without adapting to it.

    Args:
        policy: numbers of operations such as "3-1-7"; -1 for none.
        adaptive: whether the attacker searches through the transformation.
    """

    kind: ClassVar[str] = "ats"
    setup: Setup
    policy: str = NO_POLICY
    adaptive: bool = False
    victims: int = 100
    iterations: int = 4_800

    def __str__(self) -> str:
        attacker = "adaptive" if self.adaptive else "plain"
        return f"ats {self.policy}, {attacker}, {self.setup}"


def _pictures(cell: AtsCell, gallery) -> list:
    return [gallery.victims(cell.setup.dataset, cell.victims)]


def _run(cell: AtsCell, bench) -> Run:
    from precode_lib.experiments.runs import ats

    return ats.run(cell, bench)


def _read(cell: AtsCell, scale) -> Reading:
    is_policy = cell.policy != NO_POLICY
    return Reading(
        metrics={
            "psnr": lambda r: r["transformed"]["psnr"],
            "psnr against the original": lambda r: r["original"]["psnr"],
            "ssim against the original": lambda r: r["original"]["ssim"],
        },
        printed={"psnr": paper.ATS_PSNR.get((cell.policy, cell.adaptive))},
        attack="adaptive" if cell.adaptive else "plain",
        condition=f"policy {cell.policy}" if is_policy else "no policy",
    )


def _cost(cell: AtsCell) -> float:
    tries = 2.5 if cell.adaptive else 1
    wider = (cell.setup.width / 64) ** 2
    return tries * cell.iterations * cell.victims * 0.1 * wider


MEANS = "means over victims of MSE, PSNR (dB) and SSIM; ASR as a share of 1"
VALUES = {
    "original": Value(f"against the victims' own pictures: {MEANS}"),
    "transformed": Value(f"against the pictures that were learnt: {MEANS}"),
}
KIND = Kind(AtsCell, _pictures, _run, _read, _cost, values=VALUES)

"""Attack the gradients of a set of victims."""

from collections import Counter
from dataclasses import dataclass
from statistics import fmean
from typing import ClassVar

from precode_lib.basics.thresholds import CLOSE
from precode_lib.experiments import conditions, paper
from precode_lib.experiments.cells import (
    Cell,
    Kind,
    Reading,
    Run,
    Setup,
    Value,
    check_trained,
)
from precode_lib.experiments.costs import grown, pace_of
from precode_lib.experiments.kinds.training import TrainingCell
from precode_lib.experiments.names.attacks import ATTACKS
from precode_lib.experiments.names.defenses import DEFENSES

METRICS = ("mse", "psnr", "ssim", "relative_error", "asr")
RARE = frozenset({"relative_error"})  # of what is no picture
_MEANS = "means over victims of MSE, PSNR (dB) and SSIM; ASR as a share of 1"
VALUES = {
    "last": Value(f"the last guesses: {_MEANS}"),
    "best": Value(f"the guesses with the lowest objective: {_MEANS}"),
    "examples": Value(
        "of what is no picture, the last guesses and those with the lowest objective: "
        "means over victims of MSE and relative error; ASR as a share of 1, of those "
        f"with a relative error below {CLOSE:g}"
    ),
    "relative_error": Value(
        "|guess - original| / |original|, last guess", per="victim", rare=True
    ),
    "mse": Value("last guess, normalised pixels", per="victim"),
    "psnr": Value("dB, last guess, stretched; null is infinite", per="victim"),
    "ssim": Value("last guess, stretched, -1 to 1", per="victim"),
    "rank": Value("of the true picture among others, from 1", per="victim"),
    "objective": Value("of the attack, last guess", per="gradient"),
    "iterations": Value("steps", per="gradient", column="steps"),
    "outcomes": Value("how it ended", per="gradient", column="outcome"),
    "shown": Value("victims, from 0, whose pictures are kept"),
    "pictures": Value("PNG in base64"),
}
# Most searches end on their plateau, before the last iteration.
_SHARE, _DENSE_SHARE = 0.8, 0.5


@dataclass(frozen=True)
class AttackCell(Cell):
    """Attack the gradients of a set of victims.

    Args:
        attack: a name in `ATTACKS`. What the attack makes no use of is set to 0, so
            that the same work has one name.
        victims: how many pictures.
        batch_size: pictures that share one gradient.
        iterations: of the search.
        patience: steps without a lower objective after which a victim's search ends.
        epoch: how long the model was trained before; 0 is at random initialisation.
        training: which training that was; None at epoch 0.
        lr: of the attack's optimizer; the paper prints 0.01 for Adam.
        shows: whether some reconstructions are kept as pictures.
    """

    kind: ClassVar[str] = "attack"
    setup: Setup
    attack: str = "iga"
    victims: int = 128
    batch_size: int = 1
    iterations: int = 7_000
    patience: int = 1_200
    epoch: int = 0
    training: TrainingCell | None = None
    lr: float = 0.01
    shows: bool = False

    def __post_init__(self) -> None:
        for name in unused(self.attack):
            object.__setattr__(self, name, 0)
        object.__setattr__(self, "lr", float(self.lr))
        check_batches(self.victims, self.batch_size)
        check_trained(self)

    def __str__(self) -> str:
        extra = f", batches of {self.batch_size}" if self.batch_size > 1 else ""
        extra += f", after {self.epoch} epochs" if self.epoch else ""
        extra += f", lr {self.lr:g}" if self.lr not in (LR, 0) else ""
        return f"{self.attack} on {self.setup}, {self.victims} victims{extra}"


def check_batches(victims: int, batch_size: int) -> None:
    """Refuse victims that leave the last of their gradients short."""
    if victims % batch_size:
        raise ValueError(
            f"{victims} victims do not fill batches of {batch_size}; choose a multiple."
        )


LR = AttackCell.lr  # of the paper's attacks, as printed


def unused(attack: str) -> tuple[str, ...]:
    """The fields of a cell that do not matter to this attack."""
    return ATTACKS[attack].unused if attack in ATTACKS else ()


def _pictures(cell: AttackCell, gallery) -> list:
    return [gallery.victims(cell.setup.dataset, cell.victims)]


def _run(cell: AttackCell, bench) -> Run:
    from precode_lib.experiments.runs import attack

    return attack.run(cell, bench)


def _read(cell: AttackCell, scale) -> Reading:
    """The last images, judged by the paper's convention; what is none by its error."""
    # Another learning rate, initialisation or reading of "10 %" is tried to explain
    # the printed number, so that is what it stands beside.
    setup = conditions.meant_by(cell.setup, init="published")
    case = setup.dataset, cell.attack, setup.model, setup.defense
    is_usual = (
        conditions.is_published(setup) and cell.batch_size == 1 and cell.epoch == 0
    )
    read = {m: lambda r, m=m: means(r).get(m) for m in METRICS}
    read["asr"] = lambda r: 100 * means(r)["asr"]
    return Reading(
        metrics=read,
        rare=RARE,
        printed=paper.ATTACKS.get(case, {}) if is_usual else {},
        attack=cell.attack,
        condition=", ".join(
            [*_condition(cell, scale), *conditions.of_setup(cell.setup)]
        ),
    )


def means(result) -> dict[str, float]:
    """Of the last guesses: those of pictures, or of what is none."""
    return result["last"]["paper"] if "last" in result else result["examples"]["last"]


def _condition(cell: AttackCell, scale) -> list[str]:
    parts, idle = conditions.of_moment(cell, cell.batch_size), unused(cell.attack)
    if cell.lr != LR and "lr" not in idle:
        parts.append(f"lr {cell.lr:g}")
    if cell.iterations != scale.iterations and "iterations" not in idle:
        parts.append(f"{cell.iterations:,} steps")
    return parts


def _cost(cell: AttackCell) -> float:
    setup = cell.setup
    pace, defense = pace_of(setup), DEFENSES.get(setup.defense)
    is_dense = defense is not None and defense.is_dense
    share = _DENSE_SHARE if is_dense else _SHARE
    steps = cell.iterations * (share if pace.ends_early else 1)
    if cell.attack in ATTACKS:
        steps *= ATTACKS[cell.attack].evaluations
    per_victim = pace.dense_step if is_dense else pace.victim_step
    return grown(setup) * steps * (pace.step + cell.victims * per_victim)


def _summary(result) -> dict[str, float | str]:
    """Steps of a search on average, and how many searches ended in which way.

    An attack of one's own may note neither.
    """
    ends = sorted(Counter(result.get("outcomes", [])).items())
    steps = result.get("iterations")
    return {
        "steps": fmean(steps) if steps else None,
        "outcomes": ", ".join(f"{n} {how}" for how, n in ends),
    }


KIND = Kind(AttackCell, _pictures, _run, _read, _cost, values=VALUES, summary=_summary)

"""What can be run, as data: each cell is one number's worth of work, named by a hash.

A cell holds everything that determines its result except the pictures themselves,
whose digest joins it in `key_of`. Cells are plain values: they travel to other
machines, and two equal ones are the same cell.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

# Raise a kind's number whenever its results may change: finished cells of the old
# number are then run anew. A test pins a small result of each kind as a reminder.
RESULTS_VERSION = {"training": 1, "attack": 1, "noise": 1, "ats": 1}
BEFORE_FC = ("before fc",)


@dataclass(frozen=True)
class Setup:
    """A model, what it is fed with, and how it is defended.

    Args:
        dataset: a name that `Lab` knows.
        model: smlp, dmlp, lenet or resnet.
        defense: none, precode, ng-2, ng-3 or gc; or another reading of one of these
            three, such as ng-2-x10 (ten times the noise) or gc-90 (90 % pruned).
        seed: of the weights, the noise and the attack's start.
        width: of the hidden layers or, for resnet, of its first stage.
        init: published or pytorch; they differ for lenet.
        k: size of PRECODE's code.
        beta: weight of the KL in bits, as in the paper.
        places: where PRECODE stands, such as "before fc" or "after features.hidden1".
    """

    dataset: str
    model: str
    defense: str = "none"
    seed: int = 0
    width: int = 1024
    init: str = "published"
    k: int = 256
    beta: float = 1e-3
    places: tuple[str, ...] = BEFORE_FC

    def __post_init__(self) -> None:
        if isinstance(self.places, str):
            raise TypeError(f'places are several: write ("{self.places}",).')
        if self.init not in ("published", "pytorch"):
            raise ValueError(f"init is published or pytorch, got {self.init!r}.")
        # Equal cells have equal names: 1 == 1.0, but JSON writes them differently.
        object.__setattr__(self, "places", tuple(self.places))
        object.__setattr__(self, "beta", float(self.beta))

    def __str__(self) -> str:
        usual = Setup(self.dataset, self.model)
        extra = [
            f"{name}={_plain(value)}"
            for name, value in asdict(self).items()
            if name not in ("dataset", "model", "defense", "seed")
            and value != getattr(usual, name)
        ]
        parts = [self.dataset, self.model, self.defense, *extra, f"seed {self.seed}"]
        return " ".join(parts)


@dataclass(frozen=True)
class TrainingCell:
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


@dataclass(frozen=True)
class AttackCell:
    """Attack the gradients of a set of victims.

    Args:
        attack: iga or cpl, with the settings of Scheliga et al. 2022; dlg, also in
            other units (dlg-e3, dlg-e6, dlg-free); or lbfgs.
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
        object.__setattr__(self, "lr", float(self.lr))
        if self.victims % self.batch_size:
            raise ValueError(
                f"{self.victims} victims do not fill batches of {self.batch_size}; "
                "choose a multiple."
            )
        _check_trained(self)

    def __str__(self) -> str:
        extra = f", batches of {self.batch_size}" if self.batch_size > 1 else ""
        extra += f", after {self.epoch} epochs" if self.epoch else ""
        extra += f", lr {self.lr:g}" if self.lr != 0.01 else ""
        return f"{self.attack} on {self.setup}, {self.victims} victims{extra}"


@dataclass(frozen=True)
class NoiseCell:
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
        _check_trained(self)

    def __str__(self) -> str:
        extra = f", after {self.epoch} epochs" if self.epoch else ""
        return f"noise of {self.setup}, {self.victims} victims{extra}"


@dataclass(frozen=True)
class AtsCell:
    """Attack pictures under a transformation policy, with or without adapting to it.

    Args:
        policy: numbers of operations such as "3-1-7"; -1 for none.
        adaptive: whether the attacker searches through the transformation.
    """

    kind: ClassVar[str] = "ats"
    setup: Setup
    policy: str = "-1"
    adaptive: bool = False
    victims: int = 100
    iterations: int = 4_800

    def __str__(self) -> str:
        attacker = "adaptive" if self.adaptive else "plain"
        return f"ats {self.policy}, {attacker}, {self.setup}"


Cell = TrainingCell | AttackCell | NoiseCell | AtsCell
KINDS: dict[str, type] = {
    c.kind: c for c in (TrainingCell, AttackCell, NoiseCell, AtsCell)
}


def to_dict(cell: Cell) -> dict[str, Any]:
    """The cell as JSON knows it, with its kind."""
    return {"kind": cell.kind, **json.loads(json.dumps(asdict(cell)))}


def from_dict(entry: dict[str, Any]) -> Cell:
    """The cell of a `to_dict`; refuses fields and kinds that it does not know."""
    entry = dict(entry)
    kind = KINDS.get(entry.pop("kind"))
    if kind is None:
        raise ValueError(f"a cell's kind is one of {', '.join(KINDS)}.")
    setup = _made(Setup, entry.pop("setup"))
    if entry.get("training") is not None:
        training = dict(entry["training"])
        inner = _made(Setup, training.pop("setup"))
        entry["training"] = _made(TrainingCell, training, setup=inner)
    return _made(kind, entry, setup=setup)


def key_of(cell: Cell, data_digest: str) -> str:
    """The name of a cell's files: readable, and different for different results."""
    decisive = to_dict(cell)
    decisive["version"] = version_of(cell)
    decisive["data"] = data_digest
    text = json.dumps(decisive, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    setup = cell.setup
    words = [cell.kind, setup.dataset, setup.model, setup.defense, f"s{setup.seed}"]
    return "-".join([word.replace("_", "") for word in words] + [digest])


def version_of(cell: Cell) -> int:
    """The number of its results; one that starts from a training counts that one too.

    Both numbers only ever rise, so no sum of them comes twice.
    """
    if getattr(cell, "training", None) is None:
        return RESULTS_VERSION[cell.kind]
    return RESULTS_VERSION[cell.kind] + RESULTS_VERSION["training"] - 1


def _check_trained(cell: AttackCell | NoiseCell) -> None:
    if (cell.epoch > 0) != (cell.training is not None):
        raise ValueError(
            "a cell of a trained model (epoch > 0) needs its training, and only "
            f"that: got epoch {cell.epoch} and training {cell.training}."
        )


def _made(kind: type, entry: dict[str, Any], **parts: Any) -> Any:
    unknown = entry.keys() - {f.name for f in fields(kind)}
    if unknown:
        raise ValueError(
            f"unknown fields {sorted(unknown)} of a {kind.__name__}; it was written by "
            "another version of the library."
        )
    return kind(**entry, **parts)


def _plain(value: Any) -> str:
    return "+".join(value) if isinstance(value, tuple | list) else f"{value}"

"""From the names in a cell to pictures, models and defenses: what a run works with."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar
from zlib import crc32

import numpy as np
import torch
from torch import nn

from precode_lib import data, models
from precode_lib.attacks import (
    CPL_PRECODE,
    DLG,
    IGA_PRECODE,
    UNIT_FREE_DLG,
    Recipe,
    VictimLBFGS,
    known_labels,
)
from precode_lib.attacks.objectives import scaled
from precode_lib.basics.validation import closest
from precode_lib.bottleneck import NATS_PER_BIT, with_precode
from precode_lib.data import Pictures, Splits, victims
from precode_lib.defenses import Defense, add_noise, prune, prune_globally
from precode_lib.experiments.cells import AttackCell, Cell, Setup, TrainingCell
from precode_lib.models import pytorch_default

T = TypeVar("T")

# An attack of a cell; its optimizer gets the cell's learning rate.
RECIPES: Mapping[str, Recipe] = {
    "iga": IGA_PRECODE,
    "cpl": CPL_PRECODE,
    # The same search on the same distance, in other units: see the table "units".
    "dlg": DLG,
    "dlg-e3": replace(DLG, name="DLG on 1e3 D", distance=scaled(DLG.distance, 1e3)),
    "dlg-e6": replace(DLG, name="DLG on 1e6 D", distance=scaled(DLG.distance, 1e6)),
    "dlg-free": UNIT_FREE_DLG,
    # The label known, as to IGA, and no pixel moves further than a spread at once.
    "lbfgs": replace(
        UNIT_FREE_DLG,
        name="L-BFGS",
        labels=known_labels,
        optimizer=partial(VictimLBFGS, longest=1.0),
    ),
}
# From a generator to the function that changes a gradient.
PERTURBATIONS: Mapping[str, Callable[[torch.Generator], Defense | None]] = {
    "none": lambda generator: None,
    "precode": lambda generator: None,  # it changes the model instead
    "ng-2": lambda generator: partial(add_noise, std=1e-2, generator=generator),
    "ng-3": lambda generator: partial(add_noise, std=1e-3, generator=generator),
    "gc": lambda generator: partial(prune, ratio=0.1),
    # What the paper may have meant, or done: see the table "why".
    "ng-2-x10": lambda generator: partial(add_noise, std=1e-1, generator=generator),
    "ng-3-x10": lambda generator: partial(add_noise, std=1e-2, generator=generator),
    "gc-90": lambda generator: partial(prune, ratio=0.9),
    "gc-99": lambda generator: partial(prune, ratio=0.99),
    "gc-90-global": lambda generator: partial(prune_globally, ratio=0.9),
}
MODELS: Mapping[str, Callable[..., nn.Module]] = {
    "smlp": models.smlp,
    "dmlp": models.dmlp,
    "lenet": lambda *shape, width, **options: models.lenet(*shape, **options),
    "resnet": partial(models.resnet, blocks_per_stage=1),
    "resnet20": partial(models.resnet, blocks_per_stage=3),
}


@dataclass(frozen=True)
class Dataset:
    """Where pictures of one name come from.

    Args:
        title: for people.
        load: from a path (or None: the cache folder) to train and test parts.
        files: patterns of the files or folders to look for in a data folder.
        size: how many pictures its training part has when it is complete.
        victims: chooses the pictures to attack, if they are not of the training part.
        is_free: whether its pictures may be stored in this repository.
    """

    title: str
    load: Callable[[Path | None], Splits]
    size: int
    files: tuple[str, ...] = ()
    victims: str | None = None
    is_free: bool = False


DATASETS: Mapping[str, Dataset] = {
    "photos": Dataset("embedded photographs", lambda _: data.photos(), 1, is_free=True),
    "cifar10": Dataset(
        "CIFAR-10",
        data.cifar10,
        50_000,
        ("cifar-10-python.tar.gz", "cifar-10-batches-py", "cifar10", "cifar10[!0]*"),
        victims="paper",
    ),
    "cifar100": Dataset(
        "CIFAR-100",
        data.cifar100,
        50_000,
        ("cifar-100-python.tar.gz", "cifar-100-python", "cifar100*"),
    ),
    "medical_mnist": Dataset(
        "Medical MNIST",
        data.medical_mnist,
        47_163,
        ("Medical-MNIST*", "medical_mnist*"),
    ),
}
_VICTIM_FILE = "128CIF_RECDATA.dict"
# Photographs without a stated licence are attacked, never stored.
_NOT_STORED = {"motorcycle"}


@dataclass(eq=False)
class Lab:
    """Where cells are run: data, device, and a folder for unfinished work.

    Args:
        data: a folder that holds the data sets' files, or one path per data set; what
            is in neither is looked for in the cache folder.
        device: where models and attacks run.
        work: checkpoints and trained weights; may be deleted when nothing runs.
        every: seconds between two checkpoints.
    """

    work: Path
    data: Path | Mapping[str, Path] | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    every: float = 20.0
    _loaded: dict = field(default_factory=dict, repr=False)

    def __getstate__(self) -> dict:
        """What travels to other processes: where pictures are, not the pictures."""
        return {**vars(self), "_loaded": {}}

    def path_of(self, name: str) -> Path | None:
        """The file or folder of a data set, where the user has named one."""
        if isinstance(self.data, Mapping):
            return self.data.get(name)
        if self.data is None:
            return None
        patterns = (_VICTIM_FILE,) if name == "paper" else DATASETS[name].files
        found = (path for p in patterns for path in sorted(Path(self.data).glob(p)))
        return next(found, None)

    def splits(self, cell: TrainingCell) -> Splits:
        """What a training learns from and is tested with."""
        whole = self._whole(cell.setup.dataset)
        wanted = cell.train_pictures or DATASETS[cell.setup.dataset].size
        _check_enough(whole.train, wanted)
        train, test = cell.train_pictures, cell.test_pictures
        return self._once(
            ("splits", cell.setup.dataset, train, test),
            lambda: Splits(_some(whole.train, train), _some(whole.test, test)),
        )

    def victims(self, cell: Cell) -> Pictures:
        """The pictures under attack: the paper's own, or some of the training part."""
        if _named(DATASETS, cell.setup.dataset, "data set").victims == "paper":
            source = self._once("paper", self._paper_victims)
        else:
            source = self._whole(cell.setup.dataset).train
        _check_enough(source, cell.victims)
        name = "victims", cell.setup.dataset, cell.victims
        return self._once(name, lambda: victims(source, cell.victims))

    def digest(self, cell: Cell) -> str:
        """A checksum of the very pictures that a cell uses."""
        if isinstance(cell, TrainingCell):
            splits = self.splits(cell)
            parts = [splits.train, splits.test]
        else:
            parts = [self.victims(cell)]
            if training := getattr(cell, "training", None):
                splits = self.splits(training)
                parts += [splits.train, splits.test]
        # An id names these pictures as long as the lab holds them, which is for good.
        names = [("digest", id(p)) for p in parts]
        pairs = zip(names, parts, strict=True)
        return "-".join(self._once(name, partial(_digest, p)) for name, p in pairs)

    def pictures(self, cell: Cell) -> list[Pictures]:
        """The collections behind a cell, for its provenance."""
        if isinstance(cell, TrainingCell):
            splits = self.splits(cell)
            return [splits.train, splits.test]
        return [self.victims(cell)]

    def model(self, setup: Setup, like: Pictures) -> nn.Module:
        """A fresh model for these pictures, with PRECODE where the setup says so."""
        generator = stream(setup.seed, "model")
        options = {"width": setup.width, "generator": generator}
        if setup.init == "pytorch":
            options["init"] = pytorch_default
        shape, classes = like.image_shape, like.num_classes
        model = _named(MODELS, setup.model, "model")(shape, classes, **options)
        if setup.defense == "precode":
            sides = {"before": [], "after": []}
            for place in setup.places:
                side, layer = place.split(" ", 1)
                sides[side].append(layer)
            model = with_precode(
                model,
                **{side: layers or None for side, layers in sides.items()},
                k=setup.k,
                beta=setup.beta / NATS_PER_BIT,
                generator=generator,
            )
        return model.to(self.device)

    def perturbation(self, setup: Setup, generator: torch.Generator) -> Defense | None:
        """What the setup does to a gradient before it is sent."""
        return _named(PERTURBATIONS, setup.defense, "defense")(generator)

    def generator(self, setup: Setup, purpose: str) -> torch.Generator:
        """A stream of random numbers on the device, of its own for each purpose."""
        return stream(setup.seed, purpose, self.device)

    def _whole(self, name: str) -> Splits:
        known = _named(DATASETS, name, "data set")
        return self._once(name, lambda: known.load(self.path_of(name)))

    def _paper_victims(self) -> Pictures:
        """The published victims; without their file, pictures of the training part."""
        try:
            return data.paper_victims(self.path_of("paper"))
        except data.MissingDataError:
            return self._whole("cifar10").train

    def _once(self, name: object, build: Callable):
        if name not in self._loaded:
            self._loaded[name] = build()
        return self._loaded[name]


def recipe(cell: AttackCell) -> Recipe:
    """The attack of a cell."""
    attack = _named(RECIPES, cell.attack, "attack")
    return replace(
        attack,
        optimizer=partial(attack.optimizer, lr=cell.lr),
        iterations=cell.iterations,
        patience=cell.patience,
    )


def stream(
    seed: int, purpose: str, device: torch.device | str = "cpu"
) -> torch.Generator:
    """Random numbers that depend on the seed and the purpose, and on nothing else."""
    sequence = np.random.SeedSequence([seed, crc32(purpose.encode())])
    state = sequence.generate_state(2, np.uint64)
    return torch.Generator(device).manual_seed(int(state[0] >> 1))


def storable(pictures: Pictures, cell: AttackCell) -> list[int]:
    """Which victims' reconstructions may be kept as pictures in this repository."""
    if not (cell.shows and DATASETS[cell.setup.dataset].is_free):
        return []
    names = [pictures.classes[label] for label in pictures.labels]
    return [i for i, name in enumerate(names) if name not in _NOT_STORED][:6]


def _named(known: Mapping[str, T], name: str, what: str) -> T:
    if name not in known:
        raise ValueError(
            f"no {what} {name!r}; there are {', '.join(known)}.{closest(name, known)}"
        )
    return known[name]


def _check_enough(pictures: Pictures, wanted: int) -> None:
    if len(pictures) < wanted:
        raise data.MissingDataError(
            f"{wanted:,} pictures are wanted, {pictures.name} has {len(pictures):,}; "
            "name a complete copy of the data set."
        )


def _some(pictures: Pictures, number: int | None) -> Pictures:
    if number is None or number >= len(pictures):
        return pictures
    return victims(pictures, number, seed=0)


def _digest(pictures: Pictures) -> str:
    digest = hashlib.sha256(str(tuple(pictures.stored.shape)).encode())
    digest.update(pictures.stored.contiguous().numpy().tobytes())
    digest.update(pictures.labels.numpy().tobytes())
    return digest.hexdigest()[:16]

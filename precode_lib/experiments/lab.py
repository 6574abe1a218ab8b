"""Where cells are run: pictures, models and defenses, and a folder for checkpoints."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from zlib import crc32

import numpy as np
import torch
from torch import nn

from precode_lib.data import Examples, Splits, cache_folder
from precode_lib.defenses import Defense
from precode_lib.experiments.cells import Cell, Setup, kind_of
from precode_lib.experiments.gallery import Gallery
from precode_lib.experiments.names.defenses import DEFENSES
from precode_lib.experiments.names.models import MODELS
from precode_lib.models import pytorch_default


@dataclass(eq=False)
class Lab:
    """Where cells are run: data, device, and a folder for unfinished work.

    Args:
        data: a folder that holds the data sets' files, or one path per data set; what
            is in neither is looked for in the cache folder.
        device: where models and attacks run.
        work: checkpoints and trained weights; may be deleted when nothing runs.
        every: seconds between two checkpoints.
        gallery: pictures of this data that were loaded already.
    """

    work: Path
    data: Path | Mapping[str, Path] | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    every: float = 20.0
    gallery: Gallery | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.gallery is None or self.gallery.data != self.data:
            self.gallery = Gallery(self.data)

    def splits(self, cell: Cell) -> Splits:
        """What a training learns from and is tested with."""
        sizes = cell.train_pictures, cell.test_pictures
        return self.gallery.splits(cell.setup.dataset, *sizes)

    def victims(self, cell: Cell) -> Examples:
        """The pictures under attack: the paper's own, or some of the training part."""
        return self.gallery.victims(cell.setup.dataset, cell.victims)

    def pictures(self, cell: Cell) -> list[Examples]:
        """The collections that a cell itself works on: its provenance."""
        return [*kind_of(cell).pictures(cell, self.gallery)]

    def digest(self, cell: Cell) -> str:
        """A checksum of the very pictures that a cell uses, in its training too."""
        parts = self.pictures(cell)
        if cell.training is not None:
            parts += self.pictures(cell.training)
        return self.gallery.digest(parts)

    def model(self, setup: Setup, like: Examples) -> nn.Module:
        """A fresh model for these pictures, with what its defense puts in there."""
        generator = stream(setup.seed, "model")
        options = {"width": setup.width, "generator": generator}
        if setup.init == "pytorch":
            options["init"] = pytorch_default
        shape, classes = like.image_shape, like.num_classes
        model = MODELS.named(setup.model).make(shape, classes, **options)
        insert = DEFENSES.named(setup.defense).insert
        if insert is not None:
            model = insert(model, setup, generator)
        return model.to(self.device)

    def perturbation(self, setup: Setup, generator: torch.Generator) -> Defense | None:
        """What the setup does to a gradient before it is sent."""
        return DEFENSES.named(setup.defense).make(generator)

    def generator(self, setup: Setup, purpose: str) -> torch.Generator:
        """A stream of random numbers on the device, of its own for each purpose."""
        return stream(setup.seed, purpose, self.device)


def default_work() -> Path:
    """Where unfinished work is kept if nobody says otherwise: in the cache folder."""
    return cache_folder() / "unfinished"


def device_named(name: str, *, is_here: bool = True) -> torch.device:
    """The device of this name, or for "auto" a GPU if there is one.

    Args:
        is_here: whether it must work on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if is_here:
            torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as problem:
        raise ValueError(f"{name} cannot be used here: {problem}") from problem
    return device


def stream(
    seed: int, purpose: str, device: torch.device | str = "cpu"
) -> torch.Generator:
    """Random numbers that depend on the seed and the purpose, and on nothing else."""
    sequence = np.random.SeedSequence([seed, crc32(purpose.encode())])
    state = sequence.generate_state(2, np.uint64)
    return torch.Generator(device).manual_seed(int(state[0] >> 1))

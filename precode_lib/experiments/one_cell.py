"""Run one cell, from its checkpoint if there is one, to its result.

A run is an iterator of `Progress` whose return value is the result: whoever loops over
it owns the bar and the stop button. Results hold no times and no dates, so a run that
was killed and resumed ends, on a CPU, with the same result to the last digit.
"""

from collections.abc import Collection
from functools import partial
from pathlib import Path

import torch
from torch import nn

from precode_lib.bottleneck import per_example_loss
from precode_lib.experiments.bench import Bench
from precode_lib.experiments.cells import Cell, Run, key_of, kind_of
from precode_lib.experiments.lab import Lab
from precode_lib.experiments.names.datasets import DATASETS
from precode_lib.experiments.names.defenses import DEFENSES
from precode_lib.experiments.store import rounded
from precode_lib.training import read_checkpoint


def run(cell: Cell, lab: Lab, key: str, *, marks: Collection[int] = ()) -> Run:
    """Run a cell to its end; the generator's return value is its result.

    Args:
        key: names its checkpoint.
        marks: of a training: epochs after which the weights are kept, for attacks.

    All is float32: on a GPU this switches cuDNN's TF32 off, for the whole process.
    """
    if lab.device.type == "cuda":
        # It is on by default, and keeps 10 bits of what a convolution is given.
        torch.backends.cudnn.allow_tf32 = False
    result = yield from kind_of(cell).run(cell, bench(cell, lab, key, marks=marks))
    return rounded(result)


def bench(cell: Cell, lab: Lab, key: str, *, marks: Collection[int] = ()) -> Bench:
    """What the lab hands to this cell."""
    lab.work.mkdir(parents=True, exist_ok=True)
    pictures = tuple(lab.pictures(cell))
    loss = DATASETS.named(cell.setup.dataset).loss
    return Bench(
        pictures=pictures,
        model=partial(_model, cell, lab, pictures),
        defense=partial(lab.perturbation, cell.setup),
        step=DEFENSES.named(cell.setup.defense).step,
        generator=partial(lab.generator, cell.setup),
        device=lab.device,
        checkpoint=_checkpoint(lab, key),
        every=lab.every,
        marks={mark: weights_file(cell, lab, mark) for mark in marks},
        loss=per_example_loss if loss is None else loss,
    )


def forget(lab: Lab, key: str) -> None:
    """Delete the checkpoint of a cell whose result is safe."""
    _checkpoint(lab, key).unlink(missing_ok=True)


def weights_file(cell: Cell, lab: Lab, epoch: int) -> Path:
    """Where the weights after an epoch of a training are kept."""
    return lab.work / f"{key_of(cell, lab.digest(cell))}-epoch{epoch}.pt"


def _model(cell: Cell, lab: Lab, pictures: tuple) -> nn.Module:
    """The cell's model, fresh or as its training left it."""
    model = lab.model(cell.setup, pictures[0])
    if cell.training is not None:
        file = weights_file(cell.training, lab, cell.epoch)
        model.load_state_dict(read_checkpoint(file, lab.device))
    return model


def _checkpoint(lab: Lab, key: str) -> Path:
    return lab.work / f"{key}.pt"

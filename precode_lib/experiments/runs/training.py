"""Train a cell's model, and keep the weights that attacks start from."""

from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import nn

from precode_lib.basics.files import atomic_file
from precode_lib.data import Splits
from precode_lib.experiments.bench import Bench
from precode_lib.experiments.cells import Progress, Run
from precode_lib.training import PAPER, Randomness, Training, fit

EVERY_STEPS = 250  # of an epoch, between two checkpoints


def run(cell, bench: Bench) -> Run:
    """Train to the last epoch; the result is what every epoch came to."""
    training = begun(cell, bench)
    if any(
        _has_passed(training, mark)
        for mark, file in bench.marks.items()
        if not file.exists()
    ):
        # It was begun for other tables, which did not ask for these weights.
        bench.checkpoint.unlink(missing_ok=True)
        training = begun(cell, bench)
    # Killed after an epoch's checkpoint, it may not have kept this epoch's weights.
    _keep_weights(training.model, bench.marks.get(len(training.history)))
    for epoch in training:
        _keep_weights(training.model, bench.marks.get(epoch.epoch))
        note = f"test accuracy {epoch.test_accuracy:.1%}"
        yield Progress(epoch.epoch, cell.epochs, note)
    names = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
    history = [asdict(epoch) for epoch in training.history]
    return {name: [epoch[name] for epoch in history] for name in names}


def begun(cell, bench: Bench) -> Training:
    """The training where its checkpoint left it, or at its beginning."""
    if not bench.pictures[0].is_classified:
        raise ValueError(
            f"a training counts right guesses of classes; {bench.pictures[0]!r} have "
            "other labels. Attack untrained models, or write a kind of cell."
        )
    random = Randomness.seeded(cell.setup.seed, bench.device)
    return fit(
        bench.model(),
        Splits(*bench.pictures),
        replace(PAPER, epochs=cell.epochs),
        defense=bench.defense(random.defense),
        loss=bench.loss,
        random=random,
        checkpoint=bench.checkpoint,
        every=EVERY_STEPS,
    )


def _has_passed(training: Training, epoch: int) -> bool:
    """Whether the weights are no longer those after this epoch."""
    is_within_one = training.state_dict()["running"] is not None
    return len(training.history) + is_within_one > epoch


def _keep_weights(model: nn.Module, file: Path | None) -> None:
    if file is not None and not file.exists():
        with atomic_file(file) as partial:
            torch.save(model.state_dict(), partial)

"""What a cell is given to work with, and where it leaves what is unfinished."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from precode_lib.bottleneck import Loss, per_example_loss
from precode_lib.data import Examples
from precode_lib.defenses import ClientStep, Defense


@dataclass(frozen=True)
class Bench:
    """What a cell is given to work with; a kind's `run` asks for nothing else.

    Args:
        pictures: the collections that the kind named; of a data set of one's own they
            may be other examples.
        model: makes the cell's model, new or as its training left it, on the device.
        defense: from a generator to what the setup does to a gradient before it is
            sent; None where it does nothing.
        step: makes what clients compute instead of their plain gradient; None where
            that is what they compute.
        generator: from a purpose to a stream of random numbers of its own.
        device: where models and attacks run.
        checkpoint: the file for what is unfinished; it is deleted when the result is
            safe.
        every: seconds between two checkpoints.
        marks: of a training: after which epochs its weights are kept, and where.
        loss: the data set's; trainer, victim and attacker share it.
    """

    pictures: tuple[Examples, ...]
    model: Callable[[], nn.Module]
    defense: Callable[[torch.Generator], Defense | None]
    generator: Callable[[str], torch.Generator]
    device: torch.device
    checkpoint: Path
    every: float = 20.0
    marks: Mapping[int, Path] = field(default_factory=dict)
    step: Callable[[], ClientStep] | None = None
    loss: Loss = per_example_loss


@dataclass(frozen=True)
class Found:
    """What an attack came to.

    Args:
        last: images (V, B, C, H, W), normalised, or other examples (V, B, ...): the
            last, by which tables judge.
        best: those that the attacker believes in most.
        notes: what else the result says, such as how the search ended.
    """

    last: Tensor
    best: Tensor
    notes: Mapping[str, Any] = field(default_factory=dict)

"""How to train: published protocols as data, and where the random numbers come from."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from precode_lib.basics.schedules import (
    OptimizerFactory,
    Schedule,
    constant,
    step_decay,
)
from precode_lib.basics.validation import check_count
from precode_lib.gradients import trainable

ats_decay = step_decay  # by the name of those whose protocol it is here


@dataclass(frozen=True)
class Protocol:
    """How to train, apart from model, pictures and defense.

    Args:
        epochs: how often every picture is seen.
        batch_size: pictures of a step; the last batch of an epoch may be smaller.
        optimizer: makes one of torch.optim; functools.partial binds its options.
        schedule: (epoch, epochs) -> factor of the learning rate, for a whole epoch.
    """

    epochs: int
    batch_size: int
    optimizer: OptimizerFactory
    schedule: Schedule = constant

    def __post_init__(self) -> None:
        check_count(self.epochs, "epochs")
        check_count(self.batch_size, "batch_size")


# fused: one kernel for all parameters instead of several for each; also on CPUs.
PAPER = Protocol(  # Scheliga et al. 2022, section 4
    epochs=300,
    batch_size=64,
    optimizer=partial(torch.optim.Adam, lr=1e-3, betas=(0.9, 0.999), fused=True),
)
# As published, where the loss is half the cross-entropy; with our whole one the same
# run would have lr 0.05 and weight_decay 1e-3.
ATS = Protocol(  # Gao et al. 2021, their train script
    epochs=200,
    batch_size=128,
    optimizer=partial(
        torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4
    ),
    schedule=ats_decay,
)


@dataclass(frozen=True, eq=False)
class Randomness:
    """Separate streams, so that another defense or model meets the same shuffles.

    Args:
        shuffle: the order of the pictures; on the CPU, so that it is one everywhere.
        augment: what the augmentation draws, on the model's device, as the next two.
        noise: what bottlenecks draw.
        defense: for you to hand to a defense: `partial(..., generator=r.defense)`.
    """

    shuffle: torch.Generator
    augment: torch.Generator
    noise: torch.Generator
    defense: torch.Generator

    @classmethod
    def seeded(cls, seed: int, device: torch.device | str = "cpu") -> "Randomness":
        """Independent streams from one seed."""
        check_count(seed, "seed", 0)
        seeds = np.random.SeedSequence(seed).generate_state(4).tolist()
        devices = ["cpu", device, device, device]
        pairs = zip(seeds, devices, strict=True)
        return cls(*(torch.Generator(d).manual_seed(s) for s, d in pairs))

    def torch_states(self, device: torch.device) -> "TorchStates":
        """Another stream, for what draws from torch's global generators."""
        return TorchStates(self.noise.initial_seed() ^ 0xD20, device)

    def state_dict(self) -> dict[str, Tensor]:
        """Where each stream is."""
        return {f.name: getattr(self, f.name).get_state() for f in fields(self)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue the streams from there."""
        for name, position in state.items():
            getattr(self, name).set_state(position.cpu())


def make_optimizer(
    factory: OptimizerFactory, model: nn.Module
) -> torch.optim.Optimizer:
    """Give the model's parameters to the factory."""
    named = trainable(model)
    if not named:
        raise ValueError("no parameter of the model requires a gradient.")
    optimizer = factory(list(named.values()))
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(
            "optimizer must make a torch.optim optimizer from parameters, such as "
            f"partial(torch.optim.SGD, lr=0.1); it made {type(optimizer).__name__}."
        )
    return optimizer


class TorchStates:
    """States of torch's global generators that belong to one run: dropout draws there.

    A GPU's generator is included where the device has one of its own.
    """

    def __init__(self, seed: int, device: torch.device):
        self.device = device
        self._gpus = [device] if device.type == "cuda" else []
        places = ["cpu", *self._gpus]
        self.states = [torch.Generator(d).manual_seed(seed).get_state() for d in places]

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Put them in place of the global states, which come back afterwards."""
        with torch.random.fork_rng(self._gpus):
            torch.set_rng_state(self.states[0])
            for device, state in zip(self._gpus, self.states[1:], strict=True):
                torch.cuda.set_rng_state(state, device)
            try:
                yield
            finally:
                self.note()

    def note(self) -> None:
        """Remember how far the lent states have come."""
        on_gpus = [torch.cuda.get_rng_state(device) for device in self._gpus]
        self.states = [torch.get_rng_state(), *on_gpus]

    def load(self, states: list[Tensor]) -> None:
        """Go on from states of an earlier run."""
        self.states = [state.cpu() for state in states]

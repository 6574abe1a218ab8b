"""What is measured: models, numbers of victims, and the goals we set ourselves."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.optim import Adam

from precode_lib import models
from precode_lib.attacks import IGA, Recipe, Search
from precode_lib.data import CIFAR10
from precode_lib.federated import Observation, observe
from precode_lib.gradients import Gradients

# Both sides: cosine + total variation, signed Adam, boxed, one restart.
PRIOR_WEIGHT, LR = 1e-4, 0.1


@dataclass(frozen=True)
class Case:
    """A model, how many victims at once, and what we want.

    Args:
        noise: standard deviation of what a defense adds to the gradient; its target
            is dense, where an undefended one is factored.
        times_faster: goal, against the peer, per victim and iteration.
        of_matmul: goal, the share of the machine's matmul rate.
    """

    model: str
    victims: int
    noise: float = 0.0
    times_faster: float | None = None
    of_matmul: float | None = None

    @property
    def name(self) -> str:
        return self.model + (" behind noise" if self.noise else "")


CASES = [
    Case("smlp", 1, times_faster=10),
    Case("smlp", 16),
    Case("smlp", 128, times_faster=250, of_matmul=0.6),
    Case("dmlp", 1, times_faster=10),
    Case("dmlp", 16),
    Case("dmlp", 128, times_faster=100, of_matmul=0.6),
    Case("dmlp", 32, noise=1e-3, times_faster=10),
    Case("lenet", 1, times_faster=1),
    Case("lenet", 16),
    Case("lenet", 128, times_faster=20),
    Case("resnet20_4", 1, times_faster=1),
    Case("resnet20_4", 16, times_faster=4),
]
QUICK = [c for c in CASES if c.model != "resnet20_4" and c.victims != 16]
# Where the cores are full, twice the victims should take twice the time.
SCALING = [Case("dmlp", victims) for victims in (1, 2, 4, 8, 16, 32, 64, 128)]
# (case, at most so many gigabytes) in a process of its own.
MEMORY = [(Case("smlp", 128), None), (Case("dmlp", 128), 3.0)]


@dataclass(frozen=True)
class Scene:
    """A case with its model, its victims and what the attacker sees of them."""

    model: torch.nn.Module
    labels: Tensor  # (V, 1)
    start: Tensor  # (V, 1, C, H, W)
    seen: Observation


def make_scene(case: Case, *, device: str = "cpu", size: int = 32) -> Scene:
    """Random pictures of 10 classes: a step costs the same whatever they show."""
    generator = torch.Generator().manual_seed(0)
    shape = (case.victims, 1, 3, size, size)
    images = CIFAR10.normalise(torch.rand(shape, generator=generator)).to(device)
    start = torch.randn(shape, generator=generator).to(device)
    labels = (torch.arange(case.victims) % 10).view(-1, 1).to(device)
    make = getattr(models, case.model)
    model = make((3, size, size), generator=generator).eval().to(device)
    defense = partial(_add_noise, std=case.noise) if case.noise else None
    seen = observe(model, images, labels, defense=defense, normalisation=CIFAR10)
    return Scene(model, labels, start, seen)


def our_steps(scene: Scene, iterations: int = 10**6) -> Iterator:
    """Our search; each step attacks all victims."""
    generator = torch.Generator().manual_seed(0)
    return Search(
        scene.seen, recipe(iterations), generator=generator, start=scene.start
    )


def recipe(iterations: int) -> Recipe:
    """Geiping et al. 2020, as the peer calls it `invertinggradients`."""
    return replace(
        IGA,
        iterations=iterations,
        optimizer=partial(Adam, lr=LR),
        prior_weight=PRIOR_WEIGHT,
    )


def _add_noise(gradients: Gradients, *, std: float) -> Gradients:
    return gradients.map(lambda tensor: tensor + std * torch.randn_like(tensor))

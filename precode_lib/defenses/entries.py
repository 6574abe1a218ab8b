"""Gradients entry by entry: rows of numbers, and random ones of the same shape."""

from collections.abc import Callable

import torch
from torch import Tensor

from precode_lib.basics.validation import check_generator
from precode_lib.gradients import Gradients

# (how many, generator, dtype) -> that many numbers, on the generator's device.
Draw = Callable[[int, torch.Generator, torch.dtype], Tensor]


def rows(term: Tensor) -> Tensor:
    """The entries of each victim's parameter: (V, *shape) -> (V, n)."""
    return term.reshape(len(term), term.shape[1:].numel())  # scalars have no flatten(1)


def draw_normal(count: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Standard normal numbers: (count,)."""
    device = generator.device
    return torch.randn(count, generator=generator, device=device, dtype=dtype)


def draw_uniform(count: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Numbers in [0, 1): (count,)."""
    device = generator.device
    return torch.rand(count, generator=generator, device=device, dtype=dtype)


def draw_laplace(count: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Laplace numbers of scale 1: (count,)."""
    # A difference of two waiting times; inverting the distribution function would meet
    # log 0 once in 2**24 numbers, which is about one per model.
    waits = torch.empty(2, count, device=generator.device, dtype=dtype)
    first, second = waits.exponential_(generator=generator)
    return first - second


def random_like(
    gradients: Gradients, draw: Draw, generator: torch.Generator
) -> dict[str, Tensor]:
    """Random numbers for every entry of every parameter: name -> (V, *shape).

    Drawn where the generator lives, so that a seed means the same on every device, and
    victim by victim, so that it means the same however they are cut into chunks.
    """
    check_generator(generator)
    terms = gradients.dense()
    double = any(term.dtype == torch.float64 for term in terms.values())
    dtype = torch.float64 if double else torch.float32
    sizes = [shape.numel() for shape in terms.shapes.values()]
    rows = [draw(sum(sizes), generator, dtype) for _ in range(terms.num_victims)]
    parts = torch.stack(rows).split(sizes, dim=1)
    return {
        name: part.reshape(term.shape).to(term)
        for (name, term), part in zip(terms.items(), parts, strict=True)
    }

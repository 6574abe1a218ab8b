"""Noise on every entry of the gradient."""

from math import sqrt

import torch

from precode_lib.basics.validation import check_range
from precode_lib.defenses.entries import Draw, draw_laplace, draw_normal, random_like
from precode_lib.gradients import Gradients, check_gradients


def add_noise(
    gradients: Gradients, std: float, *, generator: torch.Generator
) -> Gradients:
    """Add N(0, std²) to every entry; returns dense gradients.

    The noise of a seed is the same on every device, and a victim's does not depend on
    how many are defended after it.
    """
    check_range(std, "std", 0)
    return _add(gradients, std, draw_normal, generator)


def add_laplace_noise(
    gradients: Gradients,
    *,
    scale: float | None = None,
    std: float | None = None,
    generator: torch.Generator,
) -> Gradients:
    """Add Laplace noise to every entry, by its scale or by its standard deviation.

    Its standard deviation is √2 · scale: at one scale it is not comparable to Gaussian
    noise, at one std it is. Otherwise as `add_noise`.
    """
    if (scale is None) == (std is None):
        raise ValueError(
            f"give either scale or std = √2 · scale, got scale={scale} and std={std}."
        )
    if scale is None:
        check_range(std, "std", 0)
        scale = std / sqrt(2)
    check_range(scale, "scale", 0)
    return _add(gradients, scale, draw_laplace, generator)


def _add(
    gradients: Gradients, scale: float, draw: Draw, generator: torch.Generator
) -> Gradients:
    check_gradients(gradients)
    terms = gradients.dense()
    noise = random_like(terms, draw, generator)
    return Gradients({name: term + scale * noise[name] for name, term in terms.items()})

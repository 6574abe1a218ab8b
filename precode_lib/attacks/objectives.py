"""What a search minimises: distances between gradients, and priors on pictures.

A distance takes the guess's gradients and the target (V victims each) and returns one
number per victim; a prior takes the images (V, B, C, H, W) and does the same.
"""

from collections.abc import Callable
from math import exp

import torch
from torch import Tensor
from torch.nn import functional as F

from precode_lib.gradients import (
    Cost,
    Gradients,
    cosine_similarity,
    entry_sums,
    layer_cosines,
    squared_distance,
)

__all__ = [
    "absolute_distance",
    "balanced_cosine_distance",
    "cosine_distance",
    "entrywise",
    "exponential_weights",
    "layerwise_cosine_distance",
    "linear_weights",
    "scaled",
    "squared_distance",
    "squared_label_error",
    "total_variation",
    "where_shared",
]

# (guess, target) -> (V,); where a recipe weighs the layers, also *, weights (P,)
Distance = Callable[..., Tensor]
Prior = Callable[[Tensor], Tensor]  # images (V, B, C, H, W) -> (V,)
LabelTerm = Callable[[Tensor, Tensor], Tensor]  # logits, labels (V, B, ...) -> (V,)


def cosine_distance(
    guess: Gradients, target: Gradients, *, weights: Tensor | None = None
) -> Tensor:
    """1 - one cosine over all parameters together (Geiping et al. 2020, eq. 4)."""
    return 1 - cosine_similarity(guess, target, weights=weights)


def layerwise_cosine_distance(
    guess: Gradients, target: Gradients, *, weights: Tensor | None = None
) -> Tensor:
    """The mean over parameters of 1 - their own cosine, so that small ones count."""
    cosines = layer_cosines(guess, target)
    if weights is None:
        return 1 - cosines.mean(1)
    weights = weights.to(cosines)
    return 1 - cosines @ (weights / weights.sum())


def balanced_cosine_distance(guess: Gradients, target: Gradients) -> Tensor:
    """1 - one cosine over all parameters, each scaled down by the root of its norm.

    Between one cosine of everything, where the loudest layer decides, and a mean of
    layers' cosines, where the faintest counts as much: with |target_p| the norm in
    parameter p, all products in p are divided by it. (V,)
    """
    norms = target.squared_norms().sqrt()
    # What is silent in the target weighs nothing; 1 / 0 would be everything.
    weights = torch.where(norms > 0, 1 / norms, 0)
    return 1 - cosine_similarity(guess, target, weights=weights)


def entrywise(cost: Cost) -> Distance:
    """The sum over all entries of cost(guess's entry, target's entry).

    A linear layer's gradient is built for a moment and not kept: a step costs about
    as much as with a squared distance.

    Args:
        cost: from all entries of a parameter, of the guess and of the target, (V, n)
            each, to what each entry costs, (V, n); differentiable in the guess's.
    """

    def of_entries(
        guess: Gradients, target: Gradients, *, weights: Tensor | None = None
    ) -> Tensor:
        sums = entry_sums(guess, target, cost)
        return (sums if weights is None else sums * weights.to(sums)).sum(1)

    return of_entries


def _absolute_difference(guess: Tensor, target: Tensor) -> Tensor:
    return (guess - target).abs()


# The slope of each entry is a sign, 0 where both agree, and doesn't get smaller near
# the minimum: a search needs a learning rate that does.
absolute_distance = entrywise(_absolute_difference)


def where_shared(distance: Distance) -> Distance:
    """The distance over the entries that the target holds: its zeros say nothing.

    For an attacker who knows that the client prunes.
    """

    def over_entries(guess: Gradients, target: Gradients, **options: Tensor) -> Tensor:
        kept = {n: t != 0 for n, t in target.dense().items()}
        seen = {n: t * kept[n] for n, t in guess.dense().items()}
        return distance(Gradients(seen), target, **options)

    return over_entries


def linear_weights(target: Gradients) -> Tensor:
    """(P,) falling from 1 at the first parameter in equal steps to 1/P."""
    return torch.arange(len(target), 0, -1) / len(target)


def exponential_weights(target: Gradients) -> Tensor:
    """(P,) falling by a factor e from parameter to parameter, from 1."""
    return torch.tensor([exp(-i) for i in range(len(target))])


def total_variation(images: Tensor) -> Tensor:
    """mean |horizontal differences| + mean |vertical differences|: (V,).

    Anisotropic and without a root, over all of a victim's pictures and channels: the
    last two axes are rows and columns, whatever stands before them.
    """
    return _TotalVariation.apply(images)


class _TotalVariation(torch.autograd.Function):
    """The mean steps and, from their signs, the derivative: no graph of differences."""

    @staticmethod
    def forward(ctx, images: Tensor) -> Tensor:
        steps = [images.diff(dim=axis) for axis in (-1, -2)]
        ctx.save_for_backward(*(step.sign() for step in steps))
        ctx.shape = images.shape
        sizes = [step.abs().flatten(1) for step in steps]
        # A picture of one row or column has no steps across it: 0, not their mean, NaN.
        return sum(size.mean(1) if size.numel() else size.sum(1) for size in sizes)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream: Tensor) -> Tensor:
        grad = upstream.new_zeros(ctx.shape)
        upstream = upstream.view(-1, *[1] * (len(ctx.shape) - 1))
        for axis, signs in zip((-1, -2), ctx.saved_tensors, strict=True):
            share, count = signs * (upstream / signs[0].numel()), signs.shape[axis]
            grad.narrow(axis, 1, count).add_(share)
            grad.narrow(axis, 0, count).sub_(share)
        return grad


def scaled(distance: Distance, factor: float) -> Distance:
    """The distance in other units: the same minima, and factor times the slopes."""

    def in_other_units(guess: Gradients, target: Gradients, **options: Tensor):
        return factor * distance(guess, target, **options)

    return in_other_units


def squared_label_error(logits: Tensor, labels: Tensor) -> Tensor:
    """Squared distance of the model's output to the one-hot label: (V,).

    The mean over a victim's pictures (Wei et al. 2020: CPL's second term).

    Args:
        logits: (V, B, classes).
        labels: (V, B) classes, or (V, B, classes) probabilities.
    """
    if labels.dim() == 2:
        labels = F.one_hot(labels, logits.shape[-1])
    return (logits - labels.to(logits)).square().sum(2).mean(1)

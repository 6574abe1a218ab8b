"""How often each class occurs: whole numbers (V, C), and the labels they stand for."""

import torch
from torch import Tensor


def nearest_counts(expected: Tensor, certain: Tensor, total: int) -> Tensor:
    """Whole numbers (V, C) that sum to `total`, closest to `expected` in squares.

    One unit at a time to the class that misses most, on top of the certain ones.
    Where none are and `expected` is not negative and sums to `total`, these are the
    largest remainders.
    """
    counts = certain
    for _ in range(total):
        short = (counts.sum(1, keepdim=True) < total).long()
        neediest = (expected - counts).argmax(1, keepdim=True)
        counts = counts.scatter_add(1, neediest, short)
    return counts


def at_most(counts: Tensor, total: int, *, first: Tensor) -> Tensor:
    """Cut counts (V, C) to a sum of `total`, the classes with the least `first` first.

    Noise can make more classes certain than there are pictures.
    """
    order = first.argsort(dim=1)
    filled = counts.gather(1, order).cumsum(1).clamp(max=total)
    kept = filled.diff(dim=1, prepend=torch.zeros_like(filled[:, :1]))
    return torch.zeros_like(counts).scatter(1, order, kept)


def as_labels(counts: Tensor) -> Tensor:
    """(V, C) counts to (V, B) labels in rising order."""
    num_victims, num_classes = counts.shape
    classes = torch.arange(num_classes, device=counts.device).repeat(num_victims)
    return classes.repeat_interleave(counts.flatten()).view(num_victims, -1)


def counts_of(labels: Tensor, num_classes: int) -> Tensor:
    """(V, B) labels to (V, C) counts."""
    zeros = labels.new_zeros(len(labels), num_classes, dtype=torch.int64)
    ones = torch.ones_like(labels, dtype=torch.int64)
    return zeros.scatter_add(1, labels.long(), ones)

"""What batch norms see of a guess, against what they are known to have seen.

A batch norm's statistics are two numbers for each channel. A client that sends its
running averages along tells those of its own batch: `statistics_sent` takes the average
apart. A search uses them as a prior (Yin et al. 2021, Huang et al. 2021).
"""

from collections.abc import Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from precode_lib.attacks.objectives import Prior
from precode_lib.gradients import mixes_examples


class Moments(NamedTuple):
    """What one batch norm sees, channel by channel: (S, C), or (C,) of one batch.

    Args:
        mean: of its input.
        variance: of its input, the sample's (with n - 1), as torch averages it.
    """

    mean: Tensor
    variance: Tensor


Statistics = Mapping[str, Moments]  # by the name of the layer


def running_statistics(
    model: nn.Module, buffers: Mapping[str, Tensor] | None = None
) -> Statistics:
    """What a model's batch norms remember; of `buffers`, where somebody sent them."""
    held = dict(model.named_buffers()) | dict(buffers or {})
    return {
        name: Moments(held[f"{name}.running_mean"], held[f"{name}.running_var"])
        for name, norm in _norms(model).items()
        if norm.running_mean is not None
    }


def statistics_sent(model: nn.Module, buffers: Mapping[str, Tensor]) -> Statistics:
    """A client's own batch statistics, from the running averages that it sent back.

    Exact after a single step in training mode: the average is a mixture of what the
    server sent and of the batch, by the layer's momentum. After more it is a mixture
    of all batches on the way, the last one strongest.

    Args:
        model: as the server sent it.
        buffers: as the client sent them afterwards.
    """
    before, after = running_statistics(model), running_statistics(model, buffers)
    found = {}
    for name, norm in _norms(model).items():
        if name not in before:
            continue
        if norm.momentum is None:
            raise ValueError(
                f"{name!r} averages over all batches ever seen (momentum=None): the "
                "share of the last one depends on how many there were."
            )
        if not norm.momentum or f"{name}.running_mean" not in buffers:
            raise ValueError(
                f"the buffers hold no running average of {name!r} that its batch moved "
                f"(momentum {norm.momentum}): give all that the client sent."
            )
        share = norm.momentum
        pairs = zip(before[name], after[name], strict=True)
        found[name] = Moments(*((b - (1 - share) * a) / share for a, b in pairs))
    return found


def batch_statistics(model: nn.Module, images: Tensor) -> Statistics:
    """What each batch norm sees of images (S, B, ...), search by search.

    Differentiable; the model runs in the mode it is in, and stays as it is.
    """
    if not mixes_examples(model):
        return _seen(model, images)
    rows = [_seen(model, one) for one in images.split(1)]
    return {
        name: Moments(*map(torch.cat, zip(*(row[name] for row in rows), strict=True)))
        for name in rows[0]
    }


def statistics_prior(model: nn.Module, known: Statistics) -> Prior:
    """A prior on images (S, B, ...): how far their statistics are from known ones.

    The mean, over layers and channels, of (difference of means)^2 + (difference of
    standard deviations)^2, in units of the known variance: for each channel that is the
    squared Wasserstein distance of two Gaussians.

    Args:
        model: as the attacker's client runs it.
        known: `statistics_sent`, or `running_statistics`, which tell of other pictures.
    """
    if not known:
        raise ValueError("no statistics are known: has the model any batch norm?")

    if missing := [name for name in known if name not in _norms(model)]:
        raise ValueError(f"the model has no batch norms {missing}, of which is known.")

    def prior(images: Tensor) -> Tensor:
        seen = batch_statistics(model, images)
        return torch.stack([_apart(seen[name], known[name]) for name in known]).mean(0)

    return prior


def weighed(*terms: tuple[Prior, float]) -> Prior:
    """Several priors as one: the sum of each times its weight."""

    def prior(images: Tensor) -> Tensor:
        return sum(weight * each(images) for each, weight in terms)

    return prior


def _apart(seen: Moments, known: Moments) -> Tensor:
    """(S,)."""
    variance = known.variance.to(seen.mean).clamp(min=_FLOOR)
    means = seen.mean - known.mean.to(seen.mean)
    spreads = seen.variance.clamp(min=_FLOOR).sqrt() - variance.sqrt()
    return ((means.square() + spreads.square()) / variance).mean(1)


_FLOOR = 1e-8  # of a variance: a channel without any has no unit, and no slope


def _seen(model: nn.Module, images: Tensor) -> Statistics:
    """Of searches that do not touch each other."""
    found = {}
    count = len(images)

    def look(name: str, values: Tensor) -> None:
        by_channel = values.unflatten(0, (count, -1)).transpose(1, 2).flatten(2)
        found[name] = Moments(by_channel.mean(2), by_channel.var(2))

    buffers = {name: b.clone() for name, b in model.named_buffers()}
    with _listening(model, look):
        functional_call(model, buffers, (images.flatten(0, 1),))
    return found


@contextmanager
def _listening(model: nn.Module, look):
    handles = []
    for name, norm in _norms(model).items():

        def hook(norm, inputs, name=name):
            look(name, inputs[0])

        handles.append(norm.register_forward_pre_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _norms(model: nn.Module) -> dict[str, _BatchNorm]:
    return {n: m for n, m in model.named_modules() if isinstance(m, _BatchNorm)}

"""torch's optimizers as functions of the slopes, for whoever differentiates a training.

`torch.optim` changes weights in place and out of autograd's sight. What stands here
computes the same, entry by entry, and can be differentiated.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

State = dict[str, Tensor]  # of one parameter
# (weight, slope, state, step from 1) -> the new weight and state
Update = Callable[[Tensor, Tensor, State, int], tuple[Tensor, State]]


def update_of(optimizer: Optimizer) -> Update:
    """What this optimizer of torch does with one parameter."""
    if type(optimizer) not in _UPDATES:
        known = ", ".join(kind.__name__ for kind in _UPDATES)
        raise TypeError(
            f"local training knows {known} of torch.optim, got "
            f"{type(optimizer).__name__}."
        )
    (options,) = optimizer.param_groups
    if options["maximize"]:
        raise ValueError("clients minimise their loss: leave out maximize=True.")
    return partial(_UPDATES[type(optimizer)], options=options)


def _sgd(
    weight: Tensor, slope: Tensor, state: State, step: int, *, options: dict[str, Any]
) -> tuple[Tensor, State]:
    slope = _with_decay(slope, weight, options)
    momentum = options["momentum"]
    if momentum:
        moving = slope
        if "moving" in state:
            new = (1 - options["dampening"]) * slope
            moving = momentum * state["moving"] + new
        state = {"moving": moving}
        slope = slope + momentum * moving if options["nesterov"] else moving
    return weight - options["lr"] * slope, state


def _adam(
    weight: Tensor, slope: Tensor, state: State, step: int, *, options: dict[str, Any]
) -> tuple[Tensor, State]:
    return _adaptive(weight, _with_decay(slope, weight, options), state, step, options)


def _adamw(
    weight: Tensor, slope: Tensor, state: State, step: int, *, options: dict[str, Any]
) -> tuple[Tensor, State]:
    weight = weight * (1 - options["lr"] * options["weight_decay"])
    return _adaptive(weight, slope, state, step, options)


def _adaptive(
    weight: Tensor, slope: Tensor, state: State, step: int, options: dict[str, Any]
) -> tuple[Tensor, State]:
    """Kingma and Ba 2015, algorithm 1."""
    first, second = options["betas"]
    nothing = torch.zeros_like(slope)
    mean = first * state.get("mean", nothing) + (1 - first) * slope
    square = second * state.get("square", nothing) + (1 - second) * slope.square()
    largest = square
    if options["amsgrad"]:
        largest = torch.maximum(square, state.get("largest", nothing))
    state = {"mean": mean, "square": square, "largest": largest}
    scale = _root(largest) / (1 - second**step) ** 0.5 + options["eps"]
    return weight - options["lr"] / (1 - first**step) * mean / scale, state


def _root(squares: Tensor) -> Tensor:
    """The square root, whose slope at 0 is taken to be 0 and not infinite."""
    silent = squares == 0
    return squares.masked_fill(silent, 1).sqrt().masked_fill(silent, 0)


def _with_decay(slope: Tensor, weight: Tensor, options: dict[str, Any]) -> Tensor:
    decay = options["weight_decay"]
    return slope + decay * weight if decay else slope


_UPDATES: dict[type[Optimizer], Callable] = {SGD: _sgd, Adam: _adam, AdamW: _adamw}

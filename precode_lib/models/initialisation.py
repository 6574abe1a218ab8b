"""Initialisation as a choice: functions that fill one layer, and who applies them."""

import math
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from precode_lib.basics.validation import check_generator, check_range

# Fills the parameters of one Linear or Conv2d; None draws from torch's global RNG.
Init = Callable[[nn.Module, torch.Generator | None], None]
M = TypeVar("M", bound=nn.Module)


def pytorch_default(layer: nn.Module, generator: torch.Generator | None) -> None:
    """Fill a Linear or Conv2d as PyTorch does, number for number.

    Weights and biases are uniform within ±1/√fan_in.
    """
    nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
    if layer.bias is not None:
        bound = 1 / math.sqrt(layer.weight[0].numel())
        nn.init.uniform_(layer.bias, -bound, bound, generator=generator)


def uniform(bound: float) -> Init:
    """Weights and biases uniform within ±bound; DLG and iDLG use 0.5."""
    check_range(bound, "bound", 0, open_low=True)

    def fill(layer: nn.Module, generator: torch.Generator | None) -> None:
        for parameter in layer.parameters(recurse=False):
            nn.init.uniform_(parameter, -bound, bound, generator=generator)

    return fill


def built(
    make: Callable[[], M],
    *,
    init: Init = pytorch_default,
    generator: torch.Generator | None = None,
) -> M:
    """Make a module and fill its layers in order, drawing from the generator alone.

    Without a generator the numbers come from torch's global RNG. The module lies on
    the generator's device, or on torch's default device. Works for modules whose
    parameters sit in Linear, Conv2d and norm layers.
    """
    _check_choices(init, generator)
    device = torch.get_default_device() if generator is None else generator.device
    # On the meta device a layer's own initialisation draws no random number.
    with torch.device("meta"):
        module = make()
    module.to_empty(device=device)
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            init(layer, generator)
        elif hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
        else:
            _refuse_unfilled(layer)
    return module


def _refuse_unfilled(layer: nn.Module) -> None:
    tensors = (*layer.parameters(recurse=False), *layer.buffers(recurse=False))
    if tensors:
        raise TypeError(
            f"{type(layer).__name__} has parameters or buffers of its own, but no "
            "reset_parameters() to fill them with; add one."
        )


def _check_choices(init: Init, generator: torch.Generator | None) -> None:
    if not callable(init):
        raise TypeError(
            "init must be a function (layer, generator), such as uniform(0.5) or "
            f"pytorch_default, got {type(init).__name__}."
        )
    if generator is not None:
        check_generator(generator)

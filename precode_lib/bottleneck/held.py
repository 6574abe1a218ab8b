"""Layers that ask for what they usually draw or remember by themselves.

Dropout draws its masks from torch's global generator, and a batch norm in evaluation
mode uses statistics that an attacker may not have been told. Held, both ask
`draw_noise`, as a bottleneck does: then a mask can be noted, repeated, given or
searched for. A held layer keeps the names of its parameters and buffers.
"""

import copy
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .sampling import Law, draw_noise

_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


def masks(p: float) -> Law:
    """How dropout's masks are drawn: 1 - p, plus this, is 1 or 0.

    A search may look for anything between (Scheliga et al. 2023).
    """
    return Law("mask", partial(_kept, p=p), box=(p - 1, p))


def _kept(shape, *, p: float, **where) -> Tensor:
    probability = torch.full(tuple(shape), 1 - p, **_without_generator(where))
    mask = torch.bernoulli(probability, generator=where.get("generator"))
    return mask - (1 - p)


def _zeros(shape, **where) -> Tensor:
    return torch.zeros(tuple(shape), **_without_generator(where))


def _without_generator(where: dict) -> dict:
    return {name: value for name, value in where.items() if name != "generator"}


# What the model remembers is what to expect: drawn, there is no surprise.
STATISTICS = Law("statistics", _zeros, is_shared=True)


class HeldDropout(nn.Module):
    """Dropout whose masks come from `noise_from`: the same law, another source."""

    def __init__(self, dropout: nn.Module):
        super().__init__()
        self.p, self.training = dropout.p, dropout.training
        self.by_channel = type(dropout) is not nn.Dropout

    def forward(self, features: Tensor) -> Tensor:
        """(N, ...) -> some of it, the rest larger by 1 / (1 - p)."""
        if not self.training or self.p == 0:
            return features
        if self.p == 1:
            return torch.zeros_like(features)
        like = features
        if self.by_channel:
            like = features[(..., *[slice(1)] * (features.dim() - 2))]
        return features * (1 + draw_noise(like, masks(self.p)) / (1 - self.p))

    def extra_repr(self) -> str:
        """For print(model)."""
        return f"p={self.p:g}"


class HeldNorm(nn.Module):
    """A batch norm in evaluation mode that asks by how much its statistics are wrong.

    Channel by channel: the mean, in standard deviations, and the variance's logarithm.
    """

    def __init__(self, norm: _BatchNorm):
        super().__init__()
        self.eps, self.training = norm.eps, norm.training
        self.weight, self.bias = norm.weight, norm.bias
        for name, value in norm.named_buffers():
            self.register_buffer(name, value)

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, ...) -> the same, standardised."""
        like = self.running_mean.expand(len(features), -1)
        mean = like + (self.running_var + self.eps).sqrt() * draw_noise(
            like, STATISTICS
        )
        variance = self.running_var * draw_noise(like, STATISTICS).exp()
        scale, offset = (self.eps + variance).rsqrt(), 0.0
        if self.weight is not None:
            scale, offset = scale * self.weight, self.bias

        def beside(values: Tensor) -> Tensor:
            return values.reshape(*values.shape, *[1] * (features.dim() - 2))

        shift = offset - mean * scale
        return features * beside(scale) + beside(shift)


def hold_dropout(model: nn.Module) -> nn.Module:
    """The model whose dropouts ask for their masks; itself where nothing drops.

    Dropout inside a function (attention's, say) cannot be held.
    """

    def held(module: nn.Module) -> nn.Module | None:
        drops = type(module) in _DROPOUTS and module.training and module.p > 0
        return HeldDropout(module) if drops else None

    return _replaced(model, held)


def hold_statistics(model: nn.Module) -> nn.Module:
    """The model whose batch norms, and dropouts, ask for what an attacker may not know.

    For observations in evaluation mode whose clients keep their running statistics.
    """

    def held(module: nn.Module) -> nn.Module | None:
        keeps = isinstance(module, _BatchNorm) and module.running_mean is not None
        return HeldNorm(module) if keeps and not module.training else None

    return _replaced(hold_dropout(model), held)


def _replaced(
    model: nn.Module, held: Callable[[nn.Module], nn.Module | None]
) -> nn.Module:
    """A copy in which some modules gave way; the model itself where none does."""
    if all(held(module) is None for module in model.modules()):
        return model
    if (whole := held(model)) is not None:
        return whole
    model = copy.deepcopy(model)
    # A module that stands in several places is replaced by one, in all of them.
    made: dict[nn.Module, nn.Module] = {}
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            new = made[child] if child in made else held(child)
            if new is not None:
                made[child] = new
                setattr(parent, name, new)
    return model

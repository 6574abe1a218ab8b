"""Convolutions of the model itself, for a search that matches gradients.

Inside `lean_convolutions` a convolution's own derivative is again a plain convolution:
PyTorch's double backward also computes a kernel gradient that nobody asks for.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from .convolutions import convolution_backward


@contextmanager
def lean_convolutions() -> Iterator[None]:
    """Twice differentiable convolutions, with respect to their input only."""
    with _Lean():
        yield


class _Lean(TorchFunctionMode):
    """Answers calls of conv2d, from whatever module they come."""

    def __torch_function__(self, function, types, args=(), options=None):
        if function is torch.conv2d:
            call = _conv2d_arguments(*args, **(options or {}))
            if call is not None:
                return _Convolution.apply(*call)
        return function(*args, **(options or {}))


def _conv2d_arguments(
    input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1
):
    """What `_Convolution` takes; None where only PyTorch knows what to do."""
    cast = torch.is_autocast_enabled(input.device.type)
    # A kernel that is computed may depend on the pictures: its slope is needed.
    computed = any(t is not None and t.grad_fn is not None for t in (weight, bias))
    if isinstance(padding, str) or input.dim() != 4 or cast or computed:
        return None
    pairs = (_pair(value) for value in (stride, padding, dilation))
    return input, weight, bias, (*pairs, groups)


def _pair(value: int | tuple[int, ...]) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, tuple | list) else (value,)
    return values if len(values) == 2 else values * 2


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, geometry):
        ctx.save_for_backward(weight)
        ctx.shape, ctx.geometry = x.shape, geometry
        return F.conv2d(x, weight, bias, *geometry)

    @staticmethod
    def backward(ctx, delta):
        (weight,) = ctx.saved_tensors
        grad = None
        if ctx.needs_input_grad[0]:
            grad = _Transposed.apply(delta, weight, ctx.shape, ctx.geometry)
        return grad, None, None, None


class _Transposed(torch.autograd.Function):
    """From the gradient of a convolution's output to that of its input."""

    @staticmethod
    def forward(ctx, delta, weight, shape, geometry):
        ctx.save_for_backward(weight)
        ctx.geometry = geometry
        x = delta.new_empty(1).expand(shape)  # only its shape
        return convolution_backward(x, delta, weight, geometry, (True, False, False))[0]

    @staticmethod
    def backward(ctx, upstream):
        (weight,) = ctx.saved_tensors
        grad = _Convolution.apply(upstream, weight, None, ctx.geometry)
        return grad, None, None, None

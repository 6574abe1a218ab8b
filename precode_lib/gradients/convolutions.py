"""The gradient of every victim's kernel at once, and what follows from it quickly."""

import torch
from torch import Tensor
from torch.nn import functional as F

Geometry = tuple  # (stride, padding, dilation, groups)

# Up to so many multiplications a copy of the patches and a matrix product are quicker
# than setting up a convolution.
TINY = 2**20

CONTIGUOUS, CHANNELS_LAST = torch.contiguous_format, torch.channels_last


def weight_gradients(
    x: Tensor, delta: Tensor, num_victims: int, shape: torch.Size, geometry: Geometry
) -> Tensor:
    """(V, *shape) from layer inputs x (N, C, H, W) and output gradients delta."""
    if geometry[-1] == 1 and _prefers_patches(x, delta, num_victims, shape):
        left, right = patch_factors(x, delta, num_victims, shape, geometry)
        return (left.transpose(1, 2) @ right).view(num_victims, *shape)
    return _WeightGradients.apply(x, delta, num_victims, shape, geometry)


def patch_factors(
    x: Tensor, delta: Tensor, num_victims: int, shape: torch.Size, geometry: Geometry
) -> tuple[Tensor, Tensor]:
    """A convolution is a linear layer on patches: (V, R, rows) and (V, R, columns).

    R counts a victim's pictures and positions.
    """
    stride, padding, dilation, _ = geometry
    patches = F.unfold(x, shape[2:], dilation, padding, stride)
    left, right = (
        t.transpose(1, 2).reshape(num_victims, -1, t.shape[1])
        for t in (delta.flatten(2), patches)
    )
    return left, right


def _prefers_patches(x: Tensor, delta: Tensor, num_victims: int, shape) -> bool:
    if shape[2:].numel() == 1:
        return True
    work = shape.numel() * delta[0, 0].numel()
    return num_victims == len(x) <= 2 and work <= TINY


class _WeightGradients(torch.autograd.Function):
    """One grouped convolution over all victims, and so are both derivatives.

    PyTorch's own double backward walks the groups one by one.
    """

    @staticmethod
    def forward(ctx, x, delta, num_victims, shape, geometry):
        ctx.save_for_backward(x, delta)
        ctx.num_victims, ctx.geometry = num_victims, geometry
        layout = _layout(x, shape)
        x, delta = (_victims_to_channels(t, num_victims, layout) for t in (x, delta))
        rows, *rest = shape
        kernels = x.new_empty(1).expand(num_victims * rows, *rest)  # only their shape
        mask = (False, True, False)
        gradient = convolution_backward(
            x, delta, kernels, _grouped(geometry, num_victims), mask
        )
        return gradient[1].reshape(num_victims, *shape)

    @staticmethod
    def backward(ctx, upstream):
        num_victims, geometry = ctx.num_victims, _grouped(ctx.geometry, ctx.num_victims)
        few = upstream.shape[2] < 8
        layout = _layout(upstream, upstream.shape[1:]) if few else CONTIGUOUS
        x, delta = (
            _victims_to_channels(t, num_victims, layout) for t in ctx.saved_tensors
        )
        kernels = upstream.flatten(0, 1)
        grad_x = grad_delta = None
        if ctx.needs_input_grad[0]:
            mask = (True, False, False)
            grad_x = convolution_backward(x, delta, kernels, geometry, mask)[0]
            grad_x = _channels_to_victims(grad_x, num_victims)
        if ctx.needs_input_grad[1]:
            grad_delta = F.conv2d(x, kernels, None, *geometry)
            grad_delta = _channels_to_victims(grad_delta, num_victims)
        return grad_x, grad_delta, None, None, None


def _layout(x: Tensor, shape: torch.Size) -> torch.memory_format:
    """Which memory format is quicker on CPUs; measured, see benchmarks.

    oneDNN's fast kernels want groups of 8 or 16 channels. Others are unfolded inside,
    which large kernels do better with channels last.
    """
    odd = shape[0] % 8 or shape[1] % 8
    pays = x.device.type == "cpu" and odd and shape[2:].numel() > 16
    return CHANNELS_LAST if pays else CONTIGUOUS


def _grouped(geometry: Geometry, num_victims: int) -> Geometry:
    *options, groups = geometry
    return (*options, num_victims * groups)


def convolution_backward(
    x, delta, kernels, geometry: Geometry, mask: tuple[bool, ...]
) -> list[Tensor | None]:
    """PyTorch's own: of input, kernels and bias those gradients that the mask names."""
    stride, padding, dilation, groups = geometry
    return torch.ops.aten.convolution_backward(
        delta, x, kernels, None, stride, padding, dilation, False, (0, 0), groups, mask
    )


def _victims_to_channels(
    tensor: Tensor, num_victims: int, layout: torch.memory_format
) -> Tensor:
    """(V * B, C, H, W) -> (B, V * C, H, W)."""
    grouped = tensor.unflatten(0, (num_victims, -1)).transpose(0, 1).flatten(1, 2)
    return grouped.contiguous(memory_format=layout)


def _channels_to_victims(tensor: Tensor, num_victims: int) -> Tensor:
    """(B, V * C, H, W) -> (V * B, C, H, W)."""
    tensor = tensor.contiguous()
    return tensor.unflatten(1, (num_victims, -1)).transpose(0, 1).flatten(0, 1)

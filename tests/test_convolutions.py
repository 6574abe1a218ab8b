"""Convolutions' derivatives agree with PyTorch's, however they are computed."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from precode_lib.gradients import convolutions
from precode_lib.gradients.convolutions import weight_gradients
from precode_lib.gradients.lean import lean_convolutions

# One for each way to compute them: rows, columns, kernel, stride, padding, groups.
WAYS = {
    "patches of a 1x1 kernel": (4, 3, 1, 2, 0, 1),
    "patches of very few pictures": (4, 3, 3, 1, 1, 1),
    "channels last both ways": (4, 3, 5, 2, 2, 1),
    "channels last one way": (4, 12, 5, 1, 2, 1),
    "groups of eight channels": (8, 8, 5, 1, 2, 1),
    "the layer's own groups": (4, 2, 3, 1, 1, 2),
}


def scene(way, victims, batch, generator):
    rows, columns, size, stride, padding, groups = WAYS[way]
    geometry = ((stride,) * 2, (padding,) * 2, (1, 1), groups)
    shape = torch.Size((rows, columns, size, size))
    kernel = torch.randn(shape, generator=generator).double()
    count = victims * batch
    x = torch.randn(count, columns * groups, 6, 6, generator=generator).double()
    output = F.conv2d(x, kernel, None, *geometry)
    delta = torch.randn(output.shape, generator=generator).double()
    return x.requires_grad_(), delta.requires_grad_(), kernel, geometry


@pytest.mark.parametrize(("victims", "batch"), [(1, 1), (2, 1), (3, 1), (2, 2)])
@pytest.mark.parametrize("way", WAYS)
def test_weight_gradients_and_their_slopes_agree_with_autograd(
    way, victims, batch, generator
):
    x, delta, kernel, geometry = scene(way, victims, batch, generator)
    found = weight_gradients(x, delta, victims, kernel.shape, geometry)
    kernels = [kernel.clone().requires_grad_() for _ in range(victims)]
    expected = []
    for k, a, d in zip(kernels, x.split(batch), delta.split(batch), strict=True):
        output = F.conv2d(a, k, None, *geometry)
        expected += torch.autograd.grad(output, k, d, create_graph=True)
    torch.testing.assert_close(found, torch.stack(expected))
    probe = torch.randn(found.shape, generator=generator).double()
    slopes = torch.autograd.grad(found, (x, delta), probe)
    wanted = torch.autograd.grad(torch.stack(expected), (x, delta), probe)
    torch.testing.assert_close(slopes, wanted)


@pytest.mark.parametrize("wanted", ["x", "delta"])
def test_only_the_slope_that_is_asked_for_is_computed(wanted, generator):
    x, delta, kernel, geometry = scene("groups of eight channels", 2, 1, generator)
    other = delta if wanted == "x" else x
    other.requires_grad_(False)
    found = weight_gradients(x, delta, 2, kernel.shape, geometry)
    with FlopCounterMode(display=False) as counter:
        found.sum().backward()
    assert other.grad is None
    assert counter.get_total_flops() > 0


def test_a_large_layer_of_one_picture_is_not_unfolded(generator, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("unfolded")

    monkeypatch.setattr(convolutions.F, "unfold", refuse)
    x, delta = torch.ones(1, 32, 32, 32), torch.ones(1, 32, 32, 32)
    geometry = ((1, 1), (1, 1), (1, 1), 1)
    shape = torch.Size((32, 32, 3, 3))
    assert weight_gradients(x, delta, 1, shape, geometry)[0, 0, 0, 1, 1] == 1024
    with pytest.raises(AssertionError, match="unfolded"):
        weight_gradients(x, delta, 1, torch.Size((32, 32, 1, 1)), geometry)


LAYERS = {
    "plain": lambda: nn.Conv2d(4, 6, 3),
    "strided": lambda: nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=1, bias=False),
    "grouped": lambda: nn.Conv2d(4, 6, 3, dilation=2, padding=2, groups=2),
    "same": lambda: nn.Conv2d(4, 6, 3, padding="same"),
    "reflecting": lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"),
    "a function": lambda: (
        lambda x: F.conv2d(
            x,
            torch.linspace(-1, 1, 216).double().view(6, 4, 3, 3),
            stride=2,
            padding=[1],
        )
    ),
}


def slopes(layer, x):
    """Output, first derivative and second derivative of a nonlinear function."""
    output = layer(x).sigmoid()
    (first,) = torch.autograd.grad(output.square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.pow(3).sum(), x)
    return output, first, second


@pytest.mark.parametrize("kind", LAYERS)
def test_lean_convolutions_have_the_same_derivatives(kind, generator):
    torch.manual_seed(0)
    layer = LAYERS[kind]()
    layer = layer.double() if isinstance(layer, nn.Module) else layer
    x = torch.randn(2, 4, 7, 7, generator=generator).double().requires_grad_()
    expected = slopes(layer, x)
    with lean_convolutions():
        found = slopes(layer, x)
    torch.testing.assert_close(found, expected)


def test_lean_convolutions_do_not_compute_what_nobody_asks_for(generator):
    weight = torch.randn(6, 4, 3, 3, generator=generator, requires_grad=True)

    def layer(x):
        return F.conv2d(x, weight)

    x = torch.randn(2, 4, 7, 7, generator=generator).requires_grad_()
    with FlopCounterMode(display=False) as plain:
        slopes(layer, x)
    with FlopCounterMode(display=False) as lean, lean_convolutions():
        slopes(layer, x)
    # There and back, for the value and for its slope.
    once = 2 * (2 * 6 * 5 * 5) * (4 * 3 * 3)
    assert lean.get_total_flops() == 4 * once
    assert plain.get_total_flops() > 4 * once


def test_convolutions_are_lean_only_inside(generator):
    layer, x = nn.Conv2d(4, 6, 3), torch.randn(2, 4, 7, 7, requires_grad=True)
    with lean_convolutions():
        assert "Convolution" in type(layer(x).grad_fn).__name__
        assert "Lean" not in type(x.sigmoid().grad_fn).__name__
    output = layer(x)
    output.sum().backward()
    assert layer.weight.grad is not None


@pytest.mark.parametrize("case", ["one picture without a batch", "autocast"])
def test_what_only_pytorch_can_do_is_left_to_it(case):
    layer, x = nn.Conv2d(4, 6, 3), torch.randn(4, 7, 7)
    casting = torch.autocast("cpu", dtype=torch.bfloat16, enabled=case == "autocast")
    x = x[None] if case == "autocast" else x
    with casting:
        expected = layer(x)
        with lean_convolutions():
            found = layer(x)
    torch.testing.assert_close(found, expected)
    assert found.dtype == expected.dtype
    found.sum().backward()
    assert layer.weight.grad is not None

"""Random numbers that a page draws too, the same to the last bit.

assets/engine.js has the same generator: it hashes a counter, so that numbers need no
memory of those before them, and makes normal ones with nothing but +, -, *, / and
roots, which every machine rounds alike.
"""

import copy
import math

import numpy as np
import torch
from torch import nn

from precode_lib.basics.validation import check_count

_STRIDE = 0x9E3779B9  # the golden ratio's 32 bits, odd: the counter meets every value
_LN2 = 0.6931471805599453

# Wichura 1988 (AS 241, PPND7): quantiles of the normal distribution, about 7 digits.
_MIDDLE = (
    (59.109374720, 159.29113202, 50.434271938, 3.3871327179),
    (67.187563600, 78.757757664, 17.895169469, 1.0),
)
_NEAR = (
    (0.17023821103, 1.3067284816, 2.7568153900, 1.4234372777),
    (0.0, 0.12021132975, 0.73700164250, 1.0),
)
_FAR = (
    (0.017337203997, 0.42868294337, 3.0812263860, 6.6579051150),
    (0.0, 0.012258202635, 0.24197894225, 1.0),
)


class PageNumbers:
    """A stream of random numbers, float64, which a page continues from the same seed.

    Args:
        seed: from 0 to 2**32 - 1.
    """

    def __init__(self, seed: int):
        if not 0 <= seed < 2**32:
            raise ValueError(f"seed must be from 0 to 2**32 - 1, got {seed}.")
        # Hashed, so that the streams of neighbouring seeds are no shifted copies.
        self._start = int(_mixed(np.array([seed], dtype=np.uint32))[0])
        self._drawn = 0

    def uniform(self, count: int) -> np.ndarray:
        """Numbers in (0, 1), each an odd multiple of 2**-33: (count,)."""
        check_count(count, "count")
        places = np.arange(self._drawn + 1, self._drawn + count + 1, dtype=np.uint64)
        self._drawn += count
        counters = (self._start + places * _STRIDE) & 0xFFFFFFFF
        return (_mixed(counters.astype(np.uint32)) + 0.5) / 2**32

    def within(self, bound: float, count: int) -> np.ndarray:
        """Uniform numbers in (-bound, bound): (count,)."""
        return (2 * self.uniform(count) - 1) * bound

    def normal(self, count: int) -> np.ndarray:
        """Standard normal numbers, to about seven digits of their law: (count,)."""
        from_middle = self.uniform(count) - 0.5
        tail = 0.5 - np.abs(from_middle)
        depth = np.sqrt(-_log(tail))
        outer = np.where(depth <= 5, _ratio(_NEAR, depth - 1.6), 0)
        outer = np.where(depth > 5, _ratio(_FAR, depth - 5), outer)
        middle = from_middle * _ratio(_MIDDLE, 0.180625 - from_middle * from_middle)
        signs = np.where(from_middle < 0, -1.0, 1.0)
        return np.where(np.abs(from_middle) <= 0.425, middle, signs * outer)


def _mixed(values: np.ndarray) -> np.ndarray:
    """A hash of 32 bits (splitmix32's, with the multipliers of Wellons' search)."""
    values = values ^ (values >> 16)
    values = values * np.uint32(0x21F0AAAD)
    values = values ^ (values >> 15)
    values = values * np.uint32(0x735A2D97)
    return values ^ (values >> 15)


def _log(values: np.ndarray) -> np.ndarray:
    """ln of numbers in (0, 1), without a library's own last digits."""
    parts, exponents = np.frexp(values)  # in [1/2, 1)
    step = (parts - 1) / (parts + 1)
    square, series = step * step, np.zeros_like(step)
    for odd in range(23, 0, -2):
        series = series * square + 1 / odd
    return 2 * step * series + exponents * _LN2


def _ratio(polynomials: tuple, at: np.ndarray) -> np.ndarray:
    (a, b, c, d), (e, f, g, h) = polynomials
    return (((a * at + b) * at + c) * at + d) / (((e * at + f) * at + g) * at + h)


def filled(
    model: nn.Module, numbers: PageNumbers, *, bound: float | None = None
) -> nn.Module:
    """A copy of the model in float64, with the weights that a page would draw.

    Args:
        numbers: what they are drawn from, layer after layer, the weight first.
        bound: weights and biases lie within ±bound; None for PyTorch's 1/√fan_in.
    """
    model = copy.deepcopy(model).double()
    for layer in model.modules():
        if not isinstance(layer, nn.Linear | nn.Conv2d):
            continue
        limit = bound or 1 / math.sqrt(layer.weight[0].numel())
        with torch.no_grad():
            for parameter in layer.parameters(recurse=False):
                drawn = torch.from_numpy(numbers.within(limit, parameter.numel()))
                parameter.copy_(drawn.view(parameter.shape))
    return model

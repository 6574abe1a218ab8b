"""Fewer bits for every entry of the gradient.

Both defenses hand back what the server decodes: dense, in the dtype that came, with
values that need fewer bits. Rounding has no useful derivative.
"""

import torch
from torch import Tensor

from precode_lib.basics.validation import check_count, check_range
from precode_lib.defenses.entries import draw_uniform, random_like, rows
from precode_lib.gradients import Gradients, check_gradients


def round_to(gradients: Gradients, dtype: torch.dtype = torch.float16) -> Gradients:
    """Round every entry to the nearest number of a shorter float; dense.

    Entries beyond its range become its largest number: in float16 ±65504, while those
    under 3e-8 become 0. bfloat16 keeps the range and less precision.
    """
    check_gradients(gradients)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise TypeError(
            "dtype must be a floating point type such as torch.float16 or "
            f"torch.bfloat16, got {dtype}; for integers use quantise(bits=8)."
        )

    def rounded(term: Tensor) -> Tensor:
        largest = min(torch.finfo(kind).max for kind in (dtype, term.dtype))
        # In float32: bfloat16 has no 65504, its neighbour is infinite in float16.
        wide = term.to(torch.promote_types(term.dtype, torch.float32))
        return wide.clamp(-largest, largest).to(dtype).to(term.dtype)

    return gradients.dense().map(rounded)


def quantise(
    gradients: Gradients,
    bits: int = 8,
    *,
    symmetric: bool = True,
    generator: torch.Generator | None = None,
) -> Gradients:
    """Round every entry to a whole number of steps that fits into `bits`; dense.

    Each parameter of each victim has its own step. Symmetric: max |g| / (2^(bits-1)-1),
    so that int8 uses -127..127. Affine: the range from min to max, widened to contain
    0, in 2^bits - 1 steps, and 0 stays exact, as in PyTorch. The error is at most half
    a step, with stochastic rounding less than one.

    Args:
        bits: 2 to 16, or from 1 if affine.
        symmetric: whether the grid is symmetric about 0.
        generator: rounds up or down at random, so that the expectation is the entry
            (but for affine grids within half a step of their ends); None rounds to
            the nearest, ties to even.
    """
    check_gradients(gradients)
    check_count(bits, "bits", 2 if symmetric else 1)
    check_range(bits, "bits", 1, 16, hint="round_to keeps more.")
    terms = gradients.dense()
    if generator is None:
        return terms.map(lambda term: _on_grid(term, bits, symmetric))
    lifts = random_like(terms, draw_uniform, generator)
    return Gradients(
        {n: _on_grid(term, bits, symmetric, lifts[n]) for n, term in terms.items()}
    )


def _on_grid(
    term: Tensor, bits: int, symmetric: bool, lift: Tensor | None = None
) -> Tensor:
    """The nearest grid point, or the one below entry + lift · step."""
    # Half precision cannot count the steps of a 16 bit grid.
    entries = rows(term).to(torch.promote_types(term.dtype, torch.float32))
    step, lowest, highest = _grid(entries, bits, symmetric)
    steps = entries / step.where(step > 0, 1)
    steps = steps.round() if lift is None else (steps + rows(lift).to(steps)).floor()
    values = steps.clamp(lowest, highest) * step
    return values.view(term.shape).to(term.dtype)


def _grid(entries: Tensor, bits: int, symmetric: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Of every row: the step (V, 1), and the lowest and highest number of steps."""
    if symmetric:
        highest = 2 ** (bits - 1) - 1
        step = entries.abs().amax(1, keepdim=True) / highest
        return step, torch.full_like(step, -highest), torch.full_like(step, highest)
    low = entries.amin(1, keepdim=True).clamp(max=0)
    high = entries.amax(1, keepdim=True).clamp(min=0)
    step = (high - low) / (2**bits - 1)
    lowest = (low / step.where(step > 0, 1)).round()
    return step, lowest, lowest + 2**bits - 1

"""Sums over entries of whatever a guess and a target have there, factors left factors.

Inner products see a gradient whole and never build its matrix; what is no square, such
as an absolute difference, has to. It is built for a few victims at a time, forgotten at
once, and its slopes go back into the factors.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .algebra import Gradients, check_pair
from .terms import Outer, Term, dense, rows_of, victim_chunks

# What is built at a time, in bytes: a cost makes several temporaries of this size, and
# they should stay in the cache.
CACHED_BYTES = 4 * 2**20

# Entries of a parameter, of the guess and of the target, (V, n) each -> (V, n).
Cost = Callable[[Tensor, Tensor], Tensor]


def entry_sums(guess: Gradients, target: Gradients, cost: Cost) -> Tensor:
    """Each parameter's sum of `cost` over its entries: (V, P).

    Derivatives are those of the guess: the target counts as constant.

    Args:
        cost: from all entries of one parameter, of the guess and of the target, (V, n)
            each, to what each entry costs, (V, n).
    """
    check_pair(guess, target)
    sums = [entry_sum_of(guess[name], target[name], cost) for name in guess]
    return torch.stack(sums, dim=1)


def entry_sum_of(guess: Term, target: Term, cost: Cost) -> Tensor:
    """The sum of each victim: (V,)."""
    wanted = rows_of(dense(target)).detach()
    if isinstance(guess, Outer):
        return _FactoredSum.apply(guess.left, guess.right, wanted, cost)
    return cost(rows_of(guess), wanted).sum(1)


class _FactoredSum(torch.autograd.Function):
    """Sum of cost(left^T right, target) per victim, without keeping the matrix."""

    @staticmethod
    def forward(ctx, left: Tensor, right: Tensor, target: Tensor, cost: Cost):
        sums, grads = left.new_empty(len(left)), []
        for part in victim_chunks(target, CACHED_BYTES):
            matrix = left[part].transpose(1, 2) @ right[part]
            sums[part], slopes = _with_slopes(matrix, target[part], cost)
            grads.append((right[part] @ slopes.transpose(1, 2), left[part] @ slopes))
        ctx.save_for_backward(*(torch.cat(g) for g in zip(*grads, strict=True)))
        return sums

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream: Tensor) -> tuple[Tensor, Tensor, None, None]:
        left, right = ctx.saved_tensors
        scale = upstream[:, None, None]
        return scale * left, scale * right, None, None


def _with_slopes(matrix: Tensor, target: Tensor, cost: Cost) -> tuple[Tensor, Tensor]:
    """The sums (V,), and their slopes in the entries, shaped as the matrices."""
    with torch.enable_grad():
        entries = rows_of(matrix).detach().requires_grad_()
        sums = cost(entries, target).sum(1)
        (slopes,) = torch.autograd.grad(sums.sum(), entries)
    return sums.detach(), slopes.view(matrix.shape)

"""Which recovered picture belongs to which original, when the order is unknown."""

from collections.abc import Callable

import torch
from torch import Tensor

from precode_lib.basics.validation import check_tensor

from .measures import check_alike, check_same_shape, mse


def pair(
    originals: Tensor,
    recovered: Tensor,
    *,
    cost: Callable[[Tensor, Tensor], Tensor] = mse,
) -> Tensor:
    """Find the order of `recovered` with the least total cost: a permutation.

    (B, C, H, W) twice → (B,), or (V, B, C, H, W) twice → (V, B) with each victim's
    batch paired by itself; `reorder(recovered, permutation)` applies it. Pairing
    favours the attacker: pure noise, too, gets its luckiest order.

    Args:
        cost: maps (B, C, H, W) twice to (B,), smaller being more alike: `mse`, or
            `lambda x, y: -ssim(x, y)`.
    """
    check_alike(_merge_victims(originals), _merge_victims(recovered))
    check_same_shape(originals, recovered)
    if originals.ndim == 5:
        batches = zip(originals, recovered, strict=True)
        return torch.stack([_pair(*batch, cost) for batch in batches])
    return _pair(originals, recovered, cost)


def reorder(recovered: Tensor, permutation: Tensor) -> Tensor:
    """Put recovered pictures in the order `pair` found, each victim's by itself."""
    check_tensor(permutation, "permutation")
    if recovered.shape[:-3] != permutation.shape:
        raise ValueError(
            f"expected one index per picture, {tuple(recovered.shape[:-3])}, "
            f"got a permutation of shape {tuple(permutation.shape)}."
        )
    index = permutation[..., None, None, None]
    return recovered.take_along_dim(index, dim=permutation.ndim - 1)


def _pair(
    originals: Tensor, recovered: Tensor, cost: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    from scipy.optimize import linear_sum_assignment  # heavy, and only needed here

    rows = [cost(original.expand_as(recovered), recovered) for original in originals]
    costs = torch.stack(rows)
    if not costs.isfinite().all():
        raise ValueError(
            "the cost must be finite for every pair of pictures; a negative PSNR is "
            "not (it is -inf where exact): use mse."
        )
    _, permutation = linear_sum_assignment(costs.detach().cpu().numpy())
    return torch.as_tensor(permutation, device=originals.device)


def _merge_victims(pictures: Tensor) -> Tensor:
    has_victims = isinstance(pictures, Tensor) and pictures.ndim == 5
    return pictures.flatten(0, 1) if has_victims else pictures

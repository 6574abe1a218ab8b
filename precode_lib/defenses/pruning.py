"""Keep some entries of the gradient, the largest or any, zero the rest."""

from fractions import Fraction

import torch
from torch import Tensor

from precode_lib.basics.validation import check_range
from precode_lib.defenses.entries import draw_uniform, random_like, rows
from precode_lib.gradients import Gradients, check_gradients


def prune(gradients: Gradients, ratio: float) -> Gradients:
    """Zero the smallest `ratio` of the entries of each victim's each parameter.

    Exactly ⌊ratio · n⌋ of n entries go, the smallest in magnitude; of equal ones those
    that come first stay. Returns dense gradients; `bytes_on_wire` with `as_indices` or
    `as_bitmap` says what they cost.

    Args:
        ratio: the share to drop, in [0, 1).

    >>> import torch
    >>> from precode_lib.defenses import prune
    >>> from precode_lib.gradients import Gradients
    >>> gradients = Gradients({"bias": torch.tensor([[3.0, -1.0, 2.0, -4.0]])})
    >>> prune(gradients, 0.5)["bias"]
    tensor([[ 3.,  0.,  0., -4.]])
    """
    check_gradients(gradients)
    _check_ratio(ratio)
    return gradients.dense().map(
        lambda term: _drop_smallest(rows(term), ratio).view(term.shape)
    )


def prune_globally(gradients: Gradients, ratio: float) -> Gradients:
    """Zero the smallest `ratio` of each victim's entries, all parameters together.

    Parameters with small gradients may vanish altogether. Otherwise as `prune`; of
    equal entries those of earlier parameters stay.
    """
    check_gradients(gradients)
    _check_ratio(ratio)
    terms = gradients.dense()
    flat = [rows(term) for term in terms.values()]
    kept = _drop_smallest(torch.cat(flat, dim=1), ratio)
    parts = kept.split([part.shape[1] for part in flat], dim=1)
    return Gradients(
        {
            name: part.reshape(term.shape).to(term.dtype)
            for (name, term), part in zip(terms.items(), parts, strict=True)
        }
    )


def prune_at_random(
    gradients: Gradients, ratio: float, *, generator: torch.Generator
) -> Gradients:
    """Zero each entry with probability `ratio`, whatever its size; dense.

    What is left keeps its size. It hides no entry that it doesn't drop: with fewer
    numbers to recover than entries left, a listener needs no more of them.
    """
    check_gradients(gradients)
    _check_ratio(ratio)
    terms = gradients.dense()
    draws = random_like(terms, draw_uniform, generator)
    return Gradients({n: t.where(draws[n] >= ratio, 0) for n, t in terms.items()})


def _drop_smallest(entries: Tensor, ratio: float) -> Tensor:
    """(V, n) with the smallest ⌊ratio · n⌋ of every row zeroed; NaN stays."""
    # A fraction of the decimal as written: 0.29 * 100 is 28.999999999999996.
    num_dropped = int(Fraction(str(ratio)) * entries.shape[1])
    if num_dropped == 0:
        return entries
    sizes = entries.detach().abs()
    # kthvalue, not quantile: quantile refuses more than 2**24 entries.
    limit = sizes.kthvalue(num_dropped, dim=1, keepdim=True).values
    tied = sizes == limit
    num_spared = (sizes <= limit).sum(1, keepdim=True) - num_dropped
    late = tied & (tied.cumsum(1, dtype=torch.int32) > num_spared)
    return entries.masked_fill((sizes < limit) | late, 0)


def _check_ratio(ratio: float) -> None:
    hint = "It is the share to drop: 0.9 keeps a tenth."
    check_range(ratio, "ratio", 0, 1, open_high=True, hint=hint)

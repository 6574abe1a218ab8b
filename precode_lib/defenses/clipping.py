"""Bound the length of the gradient."""

from torch import Tensor

from precode_lib.basics.validation import check_range
from precode_lib.gradients import Gradients, Outer, Term, check_gradients, squared_norm


def clip(gradients: Gradients, max_norm: float) -> Gradients:
    """Shorten each victim's gradient to Euclidean norm `max_norm`, if it is longer.

    The norm is over all parameters together. Keeps the direction, and factors stay
    factors. By itself it hides nothing from attacks that are blind to the length; it
    bounds what noise has to drown.
    """
    check_gradients(gradients)
    check_range(max_norm, "max_norm", 0, open_low=True)
    # Multiplied-out squares of factored terms may round to less than nothing.
    norms = squared_norm(gradients).clamp_min(0).sqrt()
    factors = (max_norm / norms.where(norms != 0, max_norm)).clamp(max=1)
    return Gradients({name: _scaled(t, factors) for name, t in gradients.items()})


def _scaled(term: Term, factors: Tensor) -> Term:
    if isinstance(term, Outer):
        return Outer(_scaled(term.left, factors), term.right, term.shape)
    return term * factors.to(term.dtype).view(-1, *[1] * (term.dim() - 1))

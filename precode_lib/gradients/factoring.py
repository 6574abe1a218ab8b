"""Factors where only matrices came: what a listener does with a dense gradient."""

from collections.abc import Mapping

from .algebra import Gradients
from .terms import Outer, factor_term


def factor(gradients: Gradients, ranks: Mapping[str, int]) -> Gradients:
    """Write matrices that have at most the expected rank as sums of outer products.

    What crosses the wire is dense. Undefended, a linear layer's gradient has at most
    the rank of its batch (a convolution's: pictures times positions), and this finds
    factors again, to rounding error. A matrix of higher rank (noise, pruning) stays
    as it came, and so does one that would not get smaller. For the first linear layer
    and one picture, `right` is the picture up to a factor: this step already is the
    closed-form leak.

    Args:
        ranks: the expected rank of some parameters' gradients, by name; see `ranks`.
    """
    for name, rank in ranks.items():
        if name not in gradients or rank < 1:
            raise ValueError(f"no parameter {name!r}, or its rank {rank} is below 1.")
    return Gradients(
        {
            name: factor_term(term, ranks[name]) if name in ranks else term
            for name, term in gradients.items()
        }
    )


def ranks(gradients: Gradients) -> dict[str, int]:
    """How many outer products each factored parameter has."""
    return {n: t.left.shape[1] for n, t in gradients.items() if isinstance(t, Outer)}

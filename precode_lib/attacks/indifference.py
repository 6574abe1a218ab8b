"""Can an objective tell pictures apart? Where it can't, a failed search proves nothing.

Two ways to be blind: most of the gradient is exactly zero, or any picture's gradient
is the shared one to the last few digits.
"""

from functools import cached_property

import torch
from torch import Tensor

from precode_lib.attacks.objectives import Distance
from precode_lib.federated import health_of
from precode_lib.gradients import Gradients

# A gradient so near to the shared one, relative to none at all, may be any picture's:
# of models that can be attacked, fresh or trained, a random picture leaves 0.005 to 1.
INDIFFERENT = 1e-3

# Whoever comes so much nearer than a random picture has found something particular.
TOLD_APART = 1e-3


class Indifference:
    """What S searches saw of their objective at the random pictures they began with.

    Args:
        matched: what is compared of V victims' gradients.
        distance: (guess, target) -> (V,), that is minimised.
        count: S, restarts counted; search s is of victim s % V.
    """

    def __init__(self, matched: Gradients, distance: Distance, count: int):
        self._matched, self._distance = matched, distance
        self.first = torch.full((count,), torch.nan, dtype=torch.float64)

    def note(self, searches: Tensor, distance: Tensor) -> None:
        """The distance of these searches at random pictures: (s,)."""
        rows = searches.cpu()
        kept = self.first[rows]  # L-BFGS evaluates several times in a step
        self.first[rows] = kept.where(~kept.isnan(), distance.detach().cpu().double())

    def reasons(self, chosen: Tensor | slice, objective: Tensor) -> tuple[str, ...]:
        """For each victim why its search says nothing, or "".

        Args:
            chosen: which search is each victim's.
            objective: the lowest that it reached, (V,).
        """
        chosen = chosen.cpu() if isinstance(chosen, Tensor) else chosen
        first, lowest = self.first[chosen], objective.cpu().double()
        share = first / self._of_nothing
        blind = (share < INDIFFERENT) & ~(lowest < TOLD_APART * first)
        rows = zip(self._is_silent, blind.tolist(), share.tolist(), strict=True)
        return tuple(_reason(*row) for row in rows)

    @cached_property
    def _is_silent(self) -> list[bool]:
        return health_of(self._matched).vacuous.tolist()

    @cached_property
    @torch.no_grad()
    def _of_nothing(self) -> Tensor:
        """The distance of gradients that are zero: (V,)."""
        # One by one, for zeros take as much memory as what was shared.
        each = (self._matched.take(v) for v in range(self._matched.num_victims))
        found = [self._distance(one.nothing(), one) for one in each]
        return torch.cat(found).cpu().double()

    def state_dict(self) -> dict[str, Tensor]:
        """What was noted."""
        return {"first": self.first.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from a `state_dict`."""
        self.first = state["first"].clone()


def _reason(is_silent: bool, is_blind: bool, share: float) -> str:
    if is_silent:
        return "most of the gradient is exactly zero"
    if is_blind:
        return (
            "the objective can't tell pictures apart: a random one's is already down "
            f"to {max(share, 0):.1g} of what it is without any gradient"
        )
    return ""

"""What is kept of each of S searches: the best, the last, and how it ends."""

from dataclasses import dataclass, fields
from math import inf
from typing import Any

import torch
from torch import Tensor

from precode_lib.attacks.recipe import Recipe
from precode_lib.attacks.reports import (
    CONVERGED,
    DIVERGED,
    EXHAUSTED,
    PLATEAU,
    RUNNING,
)


@dataclass
class Ledger:
    """The state of S searches, of which some are still active.

    Args:
        best: of each unknown the values of the lowest objective, (S, ...).
        best_objective: that objective, (S,).
        last: the pictures of the last step, (S, ...).
        last_objective: their objective.
        waited: steps since the best.
        made: steps made.
        outcome: how it ended, as a number of `reports`.
        active: which searches go on, (A,).
    """

    best: list[Tensor]
    best_objective: Tensor
    last: Tensor
    last_objective: Tensor
    waited: Tensor
    made: Tensor
    outcome: Tensor
    active: Tensor

    @classmethod
    def opened(cls, values: list[Tensor]) -> "Ledger":
        """Nothing is known yet: all searches are active."""
        images = values[0]
        infinite = images.new_full((len(images),), inf)
        nothing = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        return cls(
            best=[value.clone() for value in values],
            best_objective=infinite,
            last=images.clone(),
            last_objective=infinite.clone(),
            waited=nothing,
            made=nothing.clone(),
            outcome=nothing.clone(),
            active=torch.arange(len(images), device=images.device),
        )

    def record(self, objective: Tensor, values: list[Tensor]) -> None:
        """Note one step of the active searches."""
        before = self._now(self.best_objective)
        better = objective < before
        # `where`, not a mask as index: on a GPU that would wait for the result.
        for i, (new, kept) in enumerate(zip(values, self.best, strict=True)):
            lower = torch.where(_beside(better, new), new, self._now(kept))
            self.best[i] = self._with(kept, lower)
        lower = torch.where(better, objective, before)
        self.best_objective = self._with(self.best_objective, lower)
        self.last = self._with(self.last, values[0])
        self.last_objective = self._with(self.last_objective, objective)
        self.made = self._with(self.made, self._now(self.made) + 1)
        waited = torch.where(better, 0, self._now(self.waited) + 1)
        self.waited = self._with(self.waited, waited)

    def forget_best(self) -> None:
        """Let the active searches begin to compare anew."""
        infinite = torch.full_like(self._now(self.best_objective), inf)
        self.best_objective = self._with(self.best_objective, infinite)
        self.waited = self._with(self.waited, torch.zeros_like(self._now(self.waited)))

    def retire(self, recipe: Recipe, iteration: int) -> Tensor | None:
        """Let those go that have converged, waited too long or met a NaN.

        Returns which of the active ones stay, (A,); None if all do.
        """
        active = self.active
        outcome = torch.full_like(active, RUNNING)
        if iteration == recipe.iterations:
            outcome[:] = EXHAUSTED
        if recipe.patience is not None:
            outcome[self.waited[active] >= recipe.patience] = PLATEAU
        if recipe.tolerance is not None:
            outcome[self.last_objective[active] < recipe.tolerance] = CONVERGED
        outcome[~self.last_objective[active].isfinite()] = DIVERGED
        self.outcome[active] = outcome
        staying = outcome == RUNNING
        if bool(staying.all()):
            return None
        self.active = active[staying]
        return staying

    def state_dict(self) -> dict[str, Any]:
        """Copies of all tensors, by name."""
        return {f.name: _copied(getattr(self, f.name)) for f in fields(self)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`, on the device that this ledger is on."""
        device = self.last.device
        for field in fields(self):
            setattr(self, field.name, _copied(state[field.name], device))

    def _now(self, store: Tensor) -> Tensor:
        """The values of the active searches."""
        return store if len(self.active) == len(store) else store[self.active]

    def _with(self, store: Tensor, values: Tensor) -> Tensor:
        """The store with the active searches' values; never changed in place."""
        if len(values) == len(store):
            return values
        return store.index_copy(0, self.active, values)


def _beside(mask: Tensor, values: Tensor) -> Tensor:
    """(V,) shaped to stand beside (V, ...)."""
    return mask.view(-1, *[1] * (values.dim() - 1))


def _copied(value: Tensor | list[Tensor], device: torch.device | None = None) -> Any:
    if isinstance(value, list):
        return [_copied(each, device) for each in value]
    return value.to(value.device if device is None else device).clone()

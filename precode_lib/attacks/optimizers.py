"""torch.optim for V independent searches: who is done can leave the batch.

The optimizers of torch that work entry by entry (Adam, SGD, ...) serve all victims as
one tensor, and so does `VictimLBFGS`. torch's own L-BFGS and Adafactor mix all entries:
each victim gets one of its own.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import LBFGS

from precode_lib.basics.schedules import OptimizerFactory

# (variables of these victims, which of the active victims) -> objectives, slopes
Evaluate = Callable[[Sequence[Tensor], slice], tuple[Tensor, Sequence[Tensor]]]
Box = tuple[float | Tensor, float | Tensor]  # lowest and highest values
_MIXING = (LBFGS, getattr(torch.optim, "Adafactor", LBFGS))  # not in torch 2.4


def optimize(factory: OptimizerFactory, variables: Sequence[Tensor]):
    """Start one optimizer over all victims, or where it must be, one for each."""
    probe = factory([torch.zeros(1, 1, requires_grad=True)])
    kind = OneByOne if isinstance(probe, _MIXING) else Together
    return kind(factory, variables)


class Together:
    """One optimizer over all victims (first axis of every variable)."""

    def __init__(self, factory: OptimizerFactory, variables: Sequence[Tensor]):
        self._factory = factory
        self._start([v.detach().clone() for v in variables])
        self._lrs = [group["lr"] for group in self._optimizer.param_groups]

    def step(
        self, evaluate: Evaluate, lr_factor: float, part: slice = slice(None)
    ) -> Tensor:
        """Update every victim; returns the objectives before it: (V,)."""
        for group, lr in zip(self._optimizer.param_groups, self._lrs, strict=True):
            group["lr"] = lr * lr_factor
        firsts = []

        def closure() -> Tensor:
            objectives, slopes = evaluate(self.variables, part)
            for variable, slope in zip(self.variables, slopes, strict=True):
                variable.grad = slope
            firsts.append(objectives)
            # torch's L-BFGS compares numbers; there the part is a single victim.
            return objectives.sum() if len(objectives) == 1 else objectives

        self._optimizer.step(closure)
        return firsts[0]

    def bound(self, boxes: Sequence[Box | None]) -> None:
        """Bring every variable into its box, if it has one; memories stay."""
        with torch.no_grad():
            for variable, box in zip(self.variables, boxes, strict=True):
                if box is not None:
                    variable.clamp_(*box)

    def keep(self, victims: Tensor) -> None:
        """Go on with these victims only (a mask); their state stays what it was."""
        count = len(victims)
        states = [self._optimizer.state.get(v, {}) for v in self.variables]
        self._start([v.detach()[victims] for v in self.variables])
        for variable, state in zip(self.variables, states, strict=True):
            self._optimizer.state[variable] = _take(state, victims, count)

    def state_dict(self) -> dict:
        """Everything that `load_state_dict` needs to go on exactly."""
        variables = [v.detach().clone() for v in self.variables]
        return {"variables": variables, "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        """Go on from a `state_dict`."""
        device = self.variables[0].device
        self._start([v.to(device).clone() for v in state["variables"]])
        self._optimizer.load_state_dict(state["optimizer"])

    def _start(self, values: Sequence[Tensor]) -> None:
        self.variables = [value.requires_grad_() for value in values]
        self._optimizer = self._factory(self.variables)


class OneByOne:
    """An optimizer for each victim, for algorithms that mix all entries."""

    def __init__(self, factory: OptimizerFactory, variables: Sequence[Tensor]):
        self._factory = factory
        rows = zip(*(v.split(1) for v in variables), strict=True)
        self._each = [Together(factory, row) for row in rows]

    @property
    def variables(self) -> list[Tensor]:
        """Copies of the variables of all victims, put together."""
        rows = zip(*(one.variables for one in self._each), strict=True)
        return [torch.cat([v.detach() for v in row]) for row in rows]

    def step(self, evaluate: Evaluate, lr_factor: float) -> Tensor:
        """One step (many evaluations) of every victim; returns the first objectives."""
        each = enumerate(self._each)
        firsts = [o.step(evaluate, lr_factor, slice(v, v + 1)) for v, o in each]
        return torch.cat(firsts)

    def bound(self, boxes: Sequence[Box | None]) -> None:
        """Bring every variable into its box, if it has one; memories stay."""
        for one in self._each:
            one.bound(boxes)

    def keep(self, victims: Tensor) -> None:
        """Go on with these victims only (a mask)."""
        pairs = zip(self._each, victims.tolist(), strict=True)
        self._each = [one for one, kept in pairs if kept]

    def state_dict(self) -> dict:
        """Everything that `load_state_dict` needs to go on exactly."""
        return {"each": [one.state_dict() for one in self._each]}

    def load_state_dict(self, state: dict) -> None:
        """Go on from a `state_dict`."""
        self._each = [Together(self._factory, s["variables"]) for s in state["each"]]
        for one, own in zip(self._each, state["each"], strict=True):
            one.load_state_dict(own)


def _take(value: Any, victims: Tensor, count: int) -> Any:
    """The part of a state that belongs to these victims; what is common stays."""
    if isinstance(value, dict):
        return {key: _take(each, victims, count) for key, each in value.items()}
    if isinstance(value, list):
        return [_take(each, victims, count) for each in value]
    if isinstance(value, Tensor) and value.dim() and len(value) == count:
        return value[victims]
    return value

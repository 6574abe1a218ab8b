"""L-BFGS for many independent problems at once, each along the first axis."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer


class VictimLBFGS(Optimizer):
    """L-BFGS without line search, for V problems side by side, in any units.

    Row v of every parameter belongs to problem v. Each problem has its own curvature
    memory, step length and stopping rule, as if it ran alone; one evaluation serves
    all. The closure returns the objectives (V,) and sets the gradients of their sum.

    An objective times a constant has the same minima, and here it has the same search.
    With `absolute` this is `torch.optim.LBFGS`, which measures slopes and objectives in
    their own units: it takes a small objective for zero, and stops.

    Args:
        params: tensors with the same first axis.
        lr: the part of each step that is taken. A problem that knows no curvature yet
            moves by lr, summed over its entries (absolute: only the first time, and
            less where slopes are small; later by lr times its slope).
        max_iter: updates in one `step`.
        tolerance_grad: with `absolute`, a problem rests when no slope exceeds this.
        tolerance_change: a problem rests when no entry moves by more than this, or when
            its objective changes by less than this part of itself (absolute: by less).
        history_size: pairs of the curvature memory.
        absolute: whether the rules above are in units of the objective, as torch's are.
        longest: no entry moves further in one update; None for no such limit.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1.0,
        max_iter: int = 20,
        *,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        absolute: bool = False,
        longest: float | None = None,
    ):
        defaults = {
            "lr": lr,
            "max_iter": max_iter,
            "tolerance_grad": tolerance_grad,
            "tolerance_change": tolerance_change,
            "history_size": history_size,
            "absolute": absolute,
            "longest": longest,
        }
        super().__init__(params, defaults)
        if len(self.param_groups) != 1:
            raise ValueError("VictimLBFGS takes one group of parameters, not several.")

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor]) -> Tensor:
        """Update up to max_iter times; returns the objectives it began with: (V,)."""
        group = self.param_groups[0]
        closure = torch.enable_grad()(closure)
        first = objective = closure().detach()
        slope = self._slope()
        memory = self._memory(slope)
        steep = group["tolerance_grad"] if group["absolute"] else 0.0
        live = _exceeds(slope, steep)
        for inner in range(group["max_iter"]):
            change = self._change_that_counts(objective)
            direction = memory.direction(slope, live)
            length = self._length(slope, direction, memory)
            live = live & ((slope * direction).sum(1) <= -change)
            move = torch.where(live[:, None], length[:, None] * direction, 0)
            memory.remember(slope, move, live)
            self._add(move)
            if inner + 1 == group["max_iter"] or not live.any():
                break
            before, objective = objective, closure().detach()
            slope = self._slope()
            live = (
                live
                & _exceeds(slope, steep)
                & _exceeds(move, group["tolerance_change"])
                & ((objective - before).abs() >= change)
            )
        memory.store(self._state())
        return first

    def _state(self) -> dict:
        return self.state[self.param_groups[0]["params"][0]]

    def _memory(self, slope: Tensor) -> "_Memory":
        group, state = self.param_groups[0], self._state() or _Memory.empty(slope)
        return _Memory(group["history_size"], group["absolute"], **state)

    def _change_that_counts(self, objective: Tensor) -> Tensor:
        """A smaller change of the objective lets its problem rest: (V,)."""
        group = self.param_groups[0]
        unit = torch.ones_like(objective) if group["absolute"] else objective.abs()
        return group["tolerance_change"] * unit

    def _length(self, slope: Tensor, direction: Tensor, memory: "_Memory") -> Tensor:
        """How much of the direction each problem goes: (V,)."""
        group = self.param_groups[0]
        length = torch.full_like(memory.scale, group["lr"])
        if group["absolute"]:
            first = (1 / slope.abs().sum(1)).clamp(max=1) * group["lr"]
            length = torch.where(memory.updates == 0, first, length)
        if group["longest"] is not None:
            length = length.minimum(group["longest"] / direction.abs().amax(1))
        return length

    def _slope(self) -> Tensor:
        params = self.param_groups[0]["params"]
        return torch.cat([p.grad.flatten(1) for p in params], dim=1)

    def _add(self, move: Tensor) -> None:
        params = self.param_groups[0]["params"]
        pieces = move.split([p[0].numel() for p in params], dim=1)
        for param, piece in zip(params, pieces, strict=True):
            param.add_(piece.view_as(param))


@dataclass
class _Memory:
    """The curvature pairs of V problems; rho is 0 where a problem has no such pair."""

    size: int
    is_absolute: bool  # whether torch's numbers decide, in the objective's units
    moves: list[Tensor]  # s, (V, N) each, oldest first
    changes: list[Tensor]  # y, (V, N)
    rhos: list[Tensor]  # 1 / y.s, (V,)
    scale: Tensor  # (V,): of the inverse Hessian, by the last pair
    updates: Tensor  # (V,): how often each problem has moved
    last_slope: Tensor  # (V, N)
    last_move: Tensor  # (V, N)

    @staticmethod
    def empty(slope: Tensor) -> dict:
        ones = torch.ones_like(slope[:, 0])
        nothing = torch.zeros_like(slope)
        return {
            "moves": [], "changes": [], "rhos": [], "scale": ones,
            "updates": torch.zeros_like(ones),
            "last_slope": nothing, "last_move": nothing,
        }  # fmt: skip

    def store(self, state: dict) -> None:
        settings = ("size", "is_absolute")
        state.update({k: v for k, v in vars(self).items() if k not in settings})

    def _is_blind(self) -> Tensor:
        """Who has no pair, which would say how far a slope reaches: (V,)."""
        return sum(self.rhos, torch.zeros_like(self.scale)) == 0

    def direction(self, slope: Tensor, live: Tensor) -> Tensor:
        """Minus the inverse Hessian's estimate times the slope: (V, N)."""
        self._learn(slope, live)
        result, shares = -slope, []
        pairs = list(zip(self.moves, self.changes, self.rhos, strict=True))
        for move, change, rho in reversed(pairs):
            share = rho * (move * result).sum(1)
            result = result - share[:, None] * change
            shares.append(share)
        scale = self.scale
        if not self.is_absolute:
            scale = torch.where(self._is_blind(), 1 / slope.abs().sum(1), scale)
        result = result * scale[:, None]
        for (move, change, rho), share in zip(pairs, reversed(shares), strict=True):
            back = rho * (change * result).sum(1)
            result = result + (share - back)[:, None] * move
        return result

    def _learn(self, slope: Tensor, live: Tensor) -> None:
        """Take up the pair that the last move made, where its curvature is positive."""
        change = slope - self.last_slope
        curvature = (change * self.last_move).sum(1)
        least = 1e-10  # torch's number
        if not self.is_absolute:
            # A smaller cosine between move and change can be made by rounding alone.
            sizes = change.norm(dim=1) * self.last_move.norm(dim=1)
            least = torch.finfo(sizes.dtype).eps * sizes
        # NaN fails the comparison too, and then has no influence.
        useful = live & (self.updates > 0) & (curvature > least)
        if not useful.any():
            return
        rows = useful[:, None]
        self.moves.append(self.last_move.where(rows, 0))
        self.changes.append(change.where(rows, 0))
        self.rhos.append(torch.where(useful, 1 / curvature, 0))
        squares = change.square().sum(1)
        self.scale = torch.where(useful, curvature / squares, self.scale)
        if len(self.rhos) > self.size:
            self._forget_one()

    def _forget_one(self) -> None:
        """Drop each problem's oldest pair, or close a gap where it has learnt less."""
        gaps = torch.stack(self.rhos) == 0
        first_gap = torch.where(gaps.any(0), gaps.int().argmax(0), 0)
        for slot in range(int(first_gap.max()), 0, -1):
            older = first_gap >= slot
            for history in (self.moves, self.changes, self.rhos):
                rows = older.view(-1, *[1] * (history[slot].dim() - 1))
                history[slot] = history[slot - 1].where(rows, history[slot])
        for history in (self.moves, self.changes, self.rhos):
            del history[0]

    def remember(self, slope: Tensor, move: Tensor, live: Tensor) -> None:
        """Keep what the next pair is made of."""
        self.last_slope = slope.where(live[:, None], self.last_slope)
        self.last_move = move.where(live[:, None], self.last_move)
        self.updates = self.updates + live.to(self.updates)


def _exceeds(values: Tensor, tolerance: float) -> Tensor:
    """Whether any entry of a row is larger in size than this: (V,)."""
    return values.abs().amax(1) > tolerance

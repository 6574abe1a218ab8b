"""What each parameter sees of the example: all of it, a part, patches, or features.

Numbers of a noise example are all distinct, so each number of an input tells where it
stood. Where every number was scaled and shifted first, two further runs say by what.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from precode_lib.attacks.traces import noise_for, probe_of, traced
from precode_lib.attacks.uses import LOOKUP, Addition, Trace, Use
from precode_lib.federated import Observation
from precode_lib.gradients import mixes_examples

PICTURE, PART, PATCHES, FEATURES = "picture", "part", "patches", "features"

_FEW = 256


@dataclass(frozen=True, eq=False)
class Sight:
    """What goes into one use of a parameter.

    Args:
        use: the product.
        gives: "picture" (the whole example, in whatever order), "part" (a branch's
            share of it), "patches" (one row for each position) or "features".
        places: (N, K), where each number stands in the flattened example, -1 for a
            padding; None for features.
        scale: (N, K), by which the example's numbers were multiplied first.
        shift: (N, K), what was added then.
    """

    use: Use
    gives: str
    places: Tensor | None = None
    scale: Tensor | None = None
    shift: Tensor | None = None

    @property
    def is_plain(self) -> bool:
        """Whether this is the flattened picture itself, in its own order."""
        if self.gives != PICTURE or self.scale is not None:
            return False
        order = torch.arange(self.places.numel(), device=self.places.device)
        return torch.equal(self.places.flatten(), order)

    def examples(self, inputs: Tensor, numel: int) -> Tensor:
        """From inputs (V, N, K) back to flattened examples (V, numel).

        What stands in several patches is their mean; what stands in none is 0.
        """
        if self.scale is not None:
            inputs = (inputs - self.shift.to(inputs)) / self.scale.to(inputs)
        kept = self.places.flatten() >= 0
        at, values = self.places.flatten()[kept], inputs.flatten(1)[:, kept]
        sums = values.new_zeros(len(values), numel).index_add(1, at, values)
        counts = values.new_zeros(numel).index_add(0, at, values.new_ones(len(at)))
        return sums / counts.clamp(min=1)


def sights_of(
    observation: Observation, trace: Trace, *, shared_only: bool = True
) -> list[Sight]:
    """What the parameters' products see, in the order in which they run."""
    uses = [use for use in trace.uses if use.kind != LOOKUP]
    if shared_only:
        uses = [use for use in uses if use.parameter in observation.shared]
    sights = [_plain_sight(use, trace) for use in uses]
    if not any(_may_be_scaled(s, trace) for s in sights):
        return sights
    scales = _Scales(observation, trace)
    return [scales.seen_by(s) if _may_be_scaled(s, trace) else s for s in sights]


def _may_be_scaled(sight: Sight, trace: Trace) -> bool:
    """Whether as many numbers come in as the example has, and are others."""
    x, example = sight.use.x, trace.example
    as_many = x is not None and x.numel() == example.numel()
    return as_many and example.is_floating_point() and sight.gives == FEATURES


def places(ordered: tuple[Tensor, Tensor], seen: Tensor) -> Tensor:
    """Where each number of `seen` stands among others; -1 for nowhere.

    Args:
        ordered: the others, sorted, and where they stand: what `Tensor.sort` returns.
    """
    values, indices = ordered
    at = torch.searchsorted(values, seen.contiguous()).clamp(max=len(values) - 1)
    return indices[at].where(values[at] == seen, -1)


def _plain_sight(use: Use, trace: Trace) -> Sight:
    example, nothing = trace.example, Sight(use, FEATURES)
    if use.x is None or not example.is_floating_point():
        return nothing
    few = use.x.flatten()[:_FEW]  # of most layers already these tell
    if not ((places(trace.ordered, few) >= 0) | (few == 0)).all():
        return nothing
    x = use.inputs()
    at = None if x is None else places(trace.ordered, x)
    if at is None or not ((at >= 0) | (x == 0)).all() or (at < 0).all():
        return nothing
    return Sight(use, _kind(at, example.numel()), at)


def _kind(at: Tensor, numel: int) -> str:
    if len(at) > 1:
        return PATCHES
    return PICTURE if len(at[at >= 0].unique()) == numel else PART


class _Scales:
    """Two more runs: what do a constant and other noise make of each input?"""

    def __init__(self, observation: Observation, trace: Trace):
        self.trace = trace
        # Statistics of the client's own batch are no fixed factors.
        self.fixed = not mixes_examples(observation.model)
        self.runs: list[Trace] = []
        if self.fixed:
            probe = probe_of(observation)
            other = noise_for(observation, seed=1).to(trace.example)
            self.runs = [traced(probe, e) for e in (trace.example + 1, other)]

    def seen_by(self, sight: Sight) -> Sight:
        """The same use, if it sees each number of the example scaled and shifted."""
        same = {len(run.uses) for run in (self.trace, *self.runs)}
        if not self.fixed or len(same) > 1:
            return sight
        index = self.trace.uses.index(sight.use)
        first, moved, other = (
            run.uses[index].x.flatten() for run in (self.trace, *self.runs)
        )
        scale = moved - first
        shift = first - scale * self.trace.example.flatten()
        guess = scale * self.runs[1].example.flatten() + shift
        close = torch.allclose(guess, other, rtol=1e-4, atol=1e-4 * other.abs().max())
        if not close or scale.abs().min() < 1e-4 * scale.abs().max():
            return sight
        return self._scaled(sight.use, scale, shift)

    def _scaled(self, use: Use, scale: Tensor, shift: Tensor) -> Sight:
        example = self.trace.example
        like = copy.copy(use)
        like.x = example.reshape(use.x.shape)
        at = places(self.trace.ordered, like.inputs())
        known = at.clamp(min=0)
        ones, zeros = torch.ones_like(scale[known]), torch.zeros_like(scale[known])
        return Sight(
            use,
            _kind(at, example.numel()),
            at,
            scale[known].where(at >= 0, ones),
            shift[known].where(at >= 0, zeros),
        )


def positions_of(use: Use, trace: Trace) -> tuple[Addition, Tensor] | None:
    """What is added to each output of this use, position by position.

    And where: the rows of the added numbers (N, D) that belong to the positions in
    order, after `rows_of` has made rows of them.
    """
    if use.output is None or use.num_positions < 2:
        return None
    mine = rows_of(use.output, use.width)
    for addition in trace.additions:
        other = None if addition.other is None else rows_of(addition.other, use.width)
        if mine is None or other is None:
            continue
        if torch.equal(other, mine):  # also where tokens repeat
            return addition, torch.arange(len(mine), device=mine.device)
        at = places(other[:, 0].sort(), mine[:, 0])
        if (at >= 0).all() and torch.equal(other[at], mine):
            return addition, at
    return None


def rows_of(values: Tensor, width: int) -> Tensor | None:
    """Vectors of this width, one for each position: the last axis, or the channels."""
    if values.dim() > 3 and values.shape[1] == width:
        return values.movedim(1, -1).reshape(-1, width)
    if values.shape[-1] == width:
        return values.reshape(-1, width)
    is_of_sound = values.dim() == 3 and values.shape[1] == width
    return values.mT.reshape(-1, width) if is_of_sound else None


def advice(
    observation: Observation, sights: list[Sight], trace: Trace
) -> Iterator[str]:
    """What to call instead, for each shared parameter that is worth it."""
    size = observation.image_shape.numel()
    for sight in sights:
        name, use = sight.use.parameter, sight.use
        if name not in observation.shared:
            continue
        places = positions_of(use, trace) if sight.gives == PATCHES else None
        if places is not None and places[0].parameter in observation.shared:
            yield f"{name!r} sees it in patches: patches_of(observation) joins them."
        elif sight.gives in (PICTURE, PART):
            what = "it" if sight.gives == PICTURE else "a part of it"
            changed = "" if sight.is_plain else ", moved or rescaled"
            yield (
                f"{name!r} sees {what}{changed}: input_of(observation, {name!r}) gives "
                "it back."
            )
        elif use.num_inputs == size and use.num_positions == 1:
            layer = name.removesuffix(".weight")
            yield (
                f"{layer!r} takes as many numbers: give layer={layer!r} if it sees the "
                "picture normalised or permuted."
            )

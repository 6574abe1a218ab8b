"""A linear layer's gradient for a batch: each row is a mixture of what went in.

What `batches` and `spear` both stand on: the layer, its rows in few coordinates, and
what its units compute from a candidate.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from precode_lib.attacks.observed import (
    check_observation,
    first_linear,
    layer_on_picture,
    shared_term,
    sight_of,
)
from precode_lib.attacks.sights import FEATURES, PICTURE, Sight
from precode_lib.attacks.traces import trace_of
from precode_lib.federated import Observation
from precode_lib.gradients import Outer, Term

_ITERATIONS = 30  # of the subspace iteration; noiseless gradients need one
_GONE, _THERE = 1e-3, 1e-2  # a direction of orthonormal rows: what is left of it
_SPARE = 2  # more silent units than it takes to leave one direction open


@dataclass(frozen=True)
class Mixtures:
    """A linear layer's gradients, and what its inputs are.

    Args:
        weight: the parameter's name.
        bias: its bias's; None without one.
        matrices: (V, M, K).
        most: how many inputs went in, unless some were equal.
        sight: what they are; None if that could not be found out.
        is_alone: whether the parameters are read nowhere else.
        is_picture: whether an input is the flattened picture.
    """

    weight: str
    bias: str | None
    matrices: Term
    most: int
    sight: Sight | None
    is_alone: bool
    is_picture: bool

    def as_images(
        self, inputs: Tensor, observation: Observation
    ) -> tuple[Tensor, Tensor]:
        """Inputs (N, K) as images, and which of them may be real ones."""
        if not self.is_picture:
            return inputs, torch.arange(len(inputs), device=inputs.device)
        shape, flat = observation.image_shape, inputs
        if self.sight is not None and self.sight.gives == PICTURE:
            flat = self.sight.examples(inputs[:, None], shape.numel())
        images = flat.view(-1, *shape)
        kept = in_box(images, observation.normalisation).nonzero().flatten()
        return images, kept


def mixtures_of(
    observation: Observation,
    layer: str | None,
    parameter: str | None,
    with_bias: bool = False,
) -> Mixtures:
    """What the victims shared of the first layer, of a named one, or of a parameter."""
    if parameter is None:
        return _of_layer(observation, layer, with_bias)
    if layer is not None:
        raise ValueError("give a layer or a parameter, not both.")
    check_observation(observation)
    trace = trace_of(observation)
    sight = sight_of(observation, parameter, trace)
    use, bias = sight.use, sight.use.bias
    if with_bias and (bias is None or bias not in observation.shared):
        raise ValueError(
            f"{parameter!r} has no bias, or none that was shared, and so no factor "
            "that tells which units saw one input only; span needs none."
        )
    return Mixtures(
        parameter,
        bias,
        use.matrices(observation.shared[parameter]),
        use.num_positions * observation.num_examples,
        sight,
        trace.is_alone(use),
        sight.gives == PICTURE,
    )


def _of_layer(observation: Observation, layer: str | None, with_bias: bool) -> Mixtures:
    if with_bias:
        weight, bias = first_linear(observation, layer)
    else:
        layer = layer_on_picture(observation, layer)
        shared_term(observation, layer, "weight")
        weight, bias = f"{layer}.weight", None
    sight, is_alone = None, False
    if with_bias:
        with suppress(ValueError):  # a layer that was named needs no sight
            trace = trace_of(observation)
            sight = sight_of(observation, weight, trace)
            sight = replace(sight, gives=FEATURES)  # its inputs are left as they are
            is_alone = trace.is_alone(sight.use)
    term = observation.shared[weight]
    most = observation.num_examples
    return Mixtures(weight, bias, term, most, sight, is_alone, is_picture=True)


def strongest_factors(term: Term, rank: int) -> tuple[Tensor, Tensor]:
    """left (V, R, rows), right (V, R, columns): the term, or its strongest part."""
    if isinstance(term, Outer):
        return term.left, term.right
    matrices = term.flatten(2)
    generator = torch.Generator().manual_seed(0)  # any fixed start will do
    start = torch.randn(matrices.shape[1], rank, generator=generator).to(matrices)
    left = torch.linalg.qr(matrices @ (matrices.mT @ start)).Q
    for _ in range(_ITERATIONS):
        left = torch.linalg.qr(matrices @ (matrices.mT @ left)).Q
    return left.mT.contiguous(), left.mT @ matrices


def coordinates_in(term: Term, basis: Tensor) -> Tensor:
    """Each row in the coordinates of the span: (V, rows, R)."""
    if isinstance(term, Outer):
        return term.left.mT @ (term.right @ basis.mT)
    return term.flatten(2) @ basis.mT


def unit_inputs(
    observation: Observation, mixtures: Mixtures
) -> Callable[[Tensor], Tensor] | None:
    """From inputs (N, K) to what the layer makes of them, before its ReLU: (N, M).

    With the weights as the server sent them. None where the layer runs more than once.
    """
    sight = mixtures.sight
    if sight is None or not mixtures.is_alone:
        return None
    parameters = dict(observation.model.named_parameters())
    weight = sight.use.matrices(parameters[mixtures.weight].detach()[None])[0]
    bias = parameters[mixtures.bias].detach().flatten()
    return lambda inputs: inputs @ weight.to(inputs).mT + bias.to(inputs)


def missed_directions(rows: Tensor, silent: Tensor) -> Tensor:
    """For each of N sets of units, the one direction that none of them has: (N, R).

    NaN where they miss none or several, or are so few that any would miss one. Units
    that a ReLU silences on one of R inputs miss its share; if they miss nothing else,
    then nothing else is silent on all of them. So if every one of R candidates has such
    a direction, no two the same, these are the shares, and the candidates the inputs.

    Args:
        rows: (M, R), orthonormal columns.
        silent: (N, M) bool.
    """
    rank = rows.shape[1]
    loud = rows.norm(dim=1) > _GONE * rows.norm(dim=1).max()
    found = rows.new_full((len(silent), rank), torch.nan)
    for place, units in enumerate(silent):
        some = rows[units & loud]
        if rank == 1 and not len(some):  # nothing is mixed
            found[place] = 1
        if rank == 1 or len(some) < rank - 1 + _SPARE:
            continue
        _, values, directions = torch.linalg.svd(some, full_matrices=False)
        if values[-1] < _GONE and values[-2] > _THERE:
            found[place] = directions[-1]
    return found


def is_silent(values: Tensor) -> Tensor:
    """Which units cannot have fired, rounding allowed for: (N, M) bool."""
    return values < -1e-4 * values.abs().amax(1, keepdim=True)


def unmix(rows: Tensor, directions: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """What the inputs are if these are their shares' directions: shares, coordinates.

    Args:
        rows: (M, R).
        directions: (R, R), q for which rows @ q is one input's share, up to a factor.
        bias: (M,), its gradient, which tells the factors.
    """
    shares = rows @ directions.mT
    scale = torch.linalg.lstsq(shares, bias[:, None]).solution[:, 0]
    kind = torch.finfo(scale.dtype)
    least = (kind.eps * scale.abs().max()).clamp(min=kind.eps**2)
    scale = scale.where(scale.abs() > least, least)  # nobody's direction
    return shares * scale, torch.linalg.inv(directions.mT * scale)


def is_of_one_step(observation: Observation) -> bool:
    """Whether the weights stayed where they were until the gradient was taken."""
    return observation.local is None or observation.local.steps == 1


def in_box(images: Tensor, normalisation: object | None) -> Tensor:
    """Which images could be real pictures, with 1 % of room for rounding: (N,)."""
    if normalisation is None:
        return torch.ones(len(images), dtype=torch.bool, device=images.device)
    lower, upper = (side.to(images) for side in normalisation.box)
    room = 0.01 * (upper - lower)
    inside = (images >= lower - room) & (images <= upper + room)
    return inside.flatten(1).all(1)

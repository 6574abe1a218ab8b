"""What a linear layer's gradient tells about a batch of pictures.

Each row is a mixture of the pictures that activated its unit: `span` is all that they
have in common, and `isolated_inputs` finds the units that saw one picture only.
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
from precode_lib.basics.validation import check_count, check_finite, check_range
from precode_lib.federated import Observation
from precode_lib.gradients import Outer, Term, dense

_ITERATIONS = 30  # of the subspace iteration; noiseless gradients need one
_UNREADABLE = 1e-3  # rounding in a quotient, from which on strangers meet by chance


@dataclass(frozen=True, repr=False)
class Span:
    """The pictures that the first layer's gradient can be made of.

    Args:
        basis: (V, R, C * H * W), orthonormal, strongest first; zero beyond the rank.
        singular_values: (V, R), of the weight gradient; zero beyond the rank.
    """

    basis: Tensor
    singular_values: Tensor

    def __repr__(self) -> str:
        ranks = f"{int(self.rank.min())} to {int(self.rank.max())}"
        victims, _, numbers = self.basis.shape
        return f"Span({victims} victims, ranks {ranks}, {numbers} numbers)"

    @property
    def rank(self) -> Tensor:
        """How many directions each victim's gradient has: (V,)."""
        return (self.singular_values > 0).sum(1)

    def project(self, images: Tensor) -> Tensor:
        """The nearest images (V, B, C, H, W) within the span."""
        self._check(images)
        flat = images.flatten(2)
        return (flat @ self.basis.mT @ self.basis).view_as(images)

    def distance(self, images: Tensor) -> Tensor:
        """How far images (V, B, C, H, W) lie outside, relative to their norm: (V, B).

        0 within the span, 1 at right angles to it.
        """
        outside = (images - self.project(images)).flatten(2).norm(dim=2)
        norms = images.flatten(2).norm(dim=2)
        return outside / norms.where(norms > 0, 1)

    def _check(self, images: Tensor) -> None:
        num_victims, _, size = self.basis.shape
        if images.dim() < 3 or images[0, 0].numel() != size:
            raise ValueError(
                f"images must be (V, B, C, H, W) with {size} numbers each, or other "
                "examples (V, B, ...) of as many, got "
                f"{tuple(images.shape)}."
            )
        if len(images) != num_victims:
            raise ValueError(f"got {len(images)} victims, the span has {num_victims}.")


@dataclass(frozen=True)
class IsolatedInputs:
    """Pictures of one victim's batch that units saw alone, best supported first.

    Args:
        images: (N, C, H, W), normalised; N may be 0, and is at most the batch size.
            Of a layer that sees no picture, its inputs (N, K).
        num_units: (N,) int64, how many units agree on each.
        certified: (N,) bool, whether the ranks of the gradient prove it: the units
            that a ReLU must keep silent on this input miss one direction, its own,
            of those that the batch has.
    """

    images: Tensor
    num_units: Tensor
    certified: Tensor

    def __len__(self) -> int:
        return len(self.images)


def span(
    observation: Observation, *, layer: str | None = None, parameter: str | None = None
) -> Span:
    """The row space of the first layer's weight gradient, at most B dimensional.

    Every picture that activated a unit lies in it, and no search outside it can find
    them; a batch of B pictures of thousands of pixels is left with B unknowns each.
    Behind noise it is the subspace of the B strongest directions.

    Args:
        layer: see `first_linear`.
        parameter: of any linear layer instead, such as an adapter's "fc.lora_A", whose
            inputs then take the place of the pictures: one for each example, or with
            N tokens or patches N for each.
    """
    return _span_of(_seen(observation, layer, parameter))


def isolated_inputs(
    observation: Observation,
    *,
    layer: str | None = None,
    parameter: str | None = None,
    min_units: int | None = None,
    tolerance: float | None = None,
) -> list[IsolatedInputs]:
    """Each victim's pictures that at least some units of the first layer saw alone.

    Such units (of a ReLU net) all give the same row over bias entry, the picture,
    while those that saw several give mixtures, each another one. Candidates outside
    the box of real pictures are dropped where the normalisation is known. Nothing is
    found where all units are always active (sigmoid, PRECODE's encoder), or behind
    noise. With two classes and one hidden layer mixtures agree, too, and of a layer
    that runs twice multiples of an input: none of these is `certified`.

    Args:
        layer: see `first_linear`.
        parameter: see `span`; the layer needs a bias.
        min_units: how many units have to agree; by default 2, but 3 for two pictures,
            whose mixtures lie on one line, where strangers meet by chance.
        tolerance: how far they may differ, relative to the picture's norm; by default
            as far as rounding moves them: little in a gradient, more in an update,
            which is a small difference of weights.
    """
    seen = _seen(observation, layer, parameter, with_bias=True)
    if min_units is not None:
        check_count(min_units, "min_units", 2)
    bias = dense(observation.shared[seen.bias])
    if tolerance is not None:
        check_range(tolerance, "tolerance", 0, open_low=True)
    room = _room(observation, seen.bias, bias, tolerance)
    found = _span_of(seen)
    coordinates = _coordinates(seen.matrices, found.basis)
    is_silent = _silent_units(observation, seen)
    results = []
    for v, rank in enumerate(found.rank.tolist()):
        least = min_units or (3 if rank == 2 else 2)
        centres, counts = _clusters(coordinates[v], bias[v], room[v], least)
        inputs = centres.to(bias) @ found.basis[v]
        images, kept = seen.as_images(inputs, observation)
        kept = kept[: observation.num_examples]
        proven = torch.zeros(len(kept), dtype=torch.bool, device=bias.device)
        if is_silent is not None and rank == seen.most:
            proven = _misses_one(coordinates[v], is_silent(inputs[kept]), rank)
        counts = counts.to(bias.device)[kept]
        results.append(IsolatedInputs(images[kept], counts, proven))
    return results


@dataclass(frozen=True)
class _Seen:
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
        kept = _in_box(images, observation.normalisation).nonzero().flatten()
        return images, kept


def _seen(
    observation: Observation,
    layer: str | None,
    parameter: str | None,
    with_bias: bool = False,
) -> _Seen:
    if parameter is None:
        return _seen_of_layer(observation, layer, with_bias)
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
    return _Seen(
        parameter,
        bias,
        use.matrices(observation.shared[parameter]),
        use.num_positions * observation.num_examples,
        sight,
        trace.is_alone(use),
        sight.gives == PICTURE,
    )


def _seen_of_layer(
    observation: Observation, layer: str | None, with_bias: bool
) -> _Seen:
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
    return _Seen(weight, bias, term, most, sight, is_alone, is_picture=True)


def _span_of(seen: _Seen) -> Span:
    term = seen.matrices
    for part in (term.left, term.right) if isinstance(term, Outer) else (term,):
        check_finite(part, f"the gradient of {seen.weight!r}")
    left, right = _factors(term, seen.most)
    # left may be badly conditioned (silent pictures): its R factor weighs `right`.
    weighted = torch.linalg.qr(left.mT, mode="r").R @ right
    _, strengths, basis = torch.linalg.svd(weighted, full_matrices=False)
    floor = 64 * torch.finfo(strengths.dtype).eps * strengths[:, :1]
    counts = strengths > floor
    return Span(basis * counts.unsqueeze(2), strengths * counts)


def _silent_units(
    observation: Observation, seen: _Seen
) -> Callable[[Tensor], Tensor] | None:
    """From inputs (N, K) to the units that cannot have fired on them, (N, M).

    If a ReLU follows. None where the layer runs more than once, or its weights moved
    between the steps.
    """
    sight, local = seen.sight, observation.local
    moved = local is not None and local.steps > 1
    if sight is None or not seen.is_alone or moved:
        return None
    parameters = dict(observation.model.named_parameters())
    weight = sight.use.matrices(parameters[seen.weight].detach()[None])[0]
    bias = parameters[seen.bias].detach().flatten()

    def silent(inputs: Tensor) -> Tensor:
        before = inputs @ weight.to(inputs).mT + bias.to(inputs)
        return before < -1e-4 * before.abs().amax(1, keepdim=True)

    return silent


def _misses_one(coordinates: Tensor, silent: Tensor, rank: int) -> Tensor:
    """Whether these units' rows have one direction less than all rows: (N,) bool."""
    rows = coordinates.double()[:, :rank]
    weakest = torch.linalg.svdvals(rows)[-1]
    proven = []
    for units in silent:
        some = rows[units]
        heard = int((some.norm(dim=1) > 1e-6 * rows.norm(dim=1).max()).sum())
        values = torch.linalg.svdvals(some) if len(some) >= rank else weakest[None]
        enough = heard >= rank or rank == 1
        proven.append(bool(enough and values[-1] < 1e-3 * weakest))
    return torch.tensor(proven, dtype=torch.bool, device=coordinates.device)


def _room(
    observation: Observation, name: str, bias: Tensor, tolerance: float | None
) -> Tensor:
    """How far rounding may move each unit's quotient, relative to its norm: (V, M).

    NaN, which agrees with nothing, for a unit that is all rounding.
    """
    eps = torch.finfo(bias.dtype).eps
    room = torch.full_like(bias, 32 * eps if tolerance is None else tolerance / 2)
    if tolerance is not None or observation.local is None:
        return room
    # Weights are rounded to their own size, so the error of a small update is large.
    weights = observation.model.get_parameter(name).detach().to(bias)
    rounding = eps * weights.abs() / bias.abs()
    return room + rounding.where(rounding < _UNREADABLE, torch.nan)


def _factors(term: Term, rank: int) -> tuple[Tensor, Tensor]:
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


def _coordinates(term: Term, basis: Tensor) -> Tensor:
    """Each row in the coordinates of the span: (V, rows, R)."""
    if isinstance(term, Outer):
        return term.left.mT @ (term.right @ basis.mT)
    return term.flatten(2) @ basis.mT


def _clusters(
    rows: Tensor, bias: Tensor, room: Tensor, min_units: int
) -> tuple[Tensor, Tensor]:
    """Points on which several units agree: centres (N, R) and counts (N,), on the CPU.

    The largest cluster first. Float64, for differences of close points cancel.
    """
    rows, bias, room = (each.cpu().double() for each in (rows, bias, room))
    # A unit that hardly fired divides rounding errors by next to nothing.
    loud = bias.abs() > 1e-3 * bias.abs().max()
    rows, bias, room = rows[loud], bias[loud], room[loud]
    points = rows / bias.unsqueeze(1)
    norms = points.norm(dim=1)
    away = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    together = room + room.unsqueeze(1)
    agree = away <= together * torch.minimum(norms, norms.unsqueeze(1))
    centres, counts = [], []
    while len(agree) and int((sizes := agree.sum(1)).max()) >= min_units:
        members = agree[sizes.argmax()].clone()
        weights = bias[members].square()  # the louder the unit, the less rounding
        centres.append((weights @ points[members]) / weights.sum())
        counts.append(int(sizes.max()))
        agree = agree & ~members & ~members.unsqueeze(1)
    centres = torch.stack(centres) if centres else rows.new_empty(0, rows.shape[1])
    return centres, torch.tensor(counts, dtype=torch.int64)


def _in_box(images: Tensor, normalisation: object | None) -> Tensor:
    """Which images could be real pictures, with 1 % of room for rounding: (N,)."""
    if normalisation is None:
        return torch.ones(len(images), dtype=torch.bool, device=images.device)
    lower, upper = (side.to(images) for side in normalisation.box)
    room = 0.01 * (upper - lower)
    inside = (images >= lower - room) & (images <= upper + room)
    return inside.flatten(1).all(1)

"""What a linear layer's gradient tells about a batch of pictures.

Each row is a mixture of the pictures that activated its unit: `span` is all that they
have in common, and `isolated_inputs` finds the units that saw one picture only.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from precode_lib.attacks.mixtures import (
    Mixtures,
    coordinates_in,
    is_of_one_step,
    is_silent,
    missed_directions,
    mixtures_of,
    strongest_factors,
    unit_inputs,
    unmix,
)
from precode_lib.basics.validation import check_count, check_finite, check_range
from precode_lib.federated import Observation
from precode_lib.gradients import Outer, dense

_SAME = 1 - 1e-6  # cosine of two directions found by different units
_EQUAL = 1e-3  # how far a point may be from the input that the shares tell
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
            that a ReLU must keep silent on an input miss one direction, its own, of
            those that the batch has. Mixtures can feign that one by one, so nothing is
            certified unless all inputs of the batch were found so and explain it.
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
    return span_of(mixtures_of(observation, layer, parameter))


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
    seen = mixtures_of(observation, layer, parameter, with_bias=True)
    if min_units is not None:
        check_count(min_units, "min_units", 2)
    bias = dense(observation.shared[seen.bias])
    if tolerance is not None:
        check_range(tolerance, "tolerance", 0, open_low=True)
    room = _room(observation, seen.bias, bias, tolerance)
    found = span_of(seen)
    coordinates = coordinates_in(seen.matrices, found.basis)
    before_relu = unit_inputs(observation, seen)
    can_prove = before_relu is not None and is_of_one_step(observation)
    results = []
    for v, rank in enumerate(found.rank.tolist()):
        least = min_units or (3 if rank == 2 else 2)
        centres, counts = _clusters(coordinates[v], bias[v], room[v], least)
        inputs = centres.to(bias) @ found.basis[v]
        images, kept = seen.as_images(inputs, observation)
        kept = kept[: observation.num_examples]
        proven = torch.zeros(len(inputs), dtype=torch.bool)
        if can_prove and rank == seen.most:
            silent = is_silent(before_relu(inputs)).cpu()
            part = coordinates[v], bias[v], centres
            proven = _are_inputs(*(each.cpu().double() for each in part), silent)
        counts, proven = (each.to(bias.device)[kept] for each in (counts, proven))
        results.append(IsolatedInputs(images[kept], counts, proven))
    return results


def span_of(seen: Mixtures) -> Span:
    """`span`, of a layer that has been found already."""
    term = seen.matrices
    for part in (term.left, term.right) if isinstance(term, Outer) else (term,):
        check_finite(part, f"the gradient of {seen.weight!r}")
    left, right = strongest_factors(term, seen.most)
    # left may be badly conditioned (silent pictures): its R factor weighs `right`.
    weighted = torch.linalg.qr(left.mT, mode="r").R @ right
    _, strengths, basis = torch.linalg.svd(weighted, full_matrices=False)
    floor = 64 * torch.finfo(strengths.dtype).eps * strengths[:, :1]
    counts = strengths > floor
    return Span(basis * counts.unsqueeze(2), strengths * counts)


def _are_inputs(rows: Tensor, bias: Tensor, centres: Tensor, silent: Tensor) -> Tensor:
    """Which of these points are proven to be inputs: (N,) bool.

    Only if the units silent on them give away every input's share; the shares then
    tell the inputs, and these have to be the same.

    Args:
        rows: (M, R), in coordinates.
        bias: (M,).
        centres: (N, R).
        silent: (N, M).
    """
    rows, values, back = torch.linalg.svd(rows, full_matrices=False)
    nobody = torch.zeros(len(centres), dtype=torch.bool)
    each = missed_directions(rows, silent)
    directions: list[Tensor] = []
    for one in each[each.isfinite().all(1)]:
        if not any((one @ known).abs() > _SAME for known in directions):
            directions.append(one)
    if len(directions) != rows.shape[1]:
        return nobody
    basis = torch.stack(directions)
    if torch.linalg.svdvals(basis)[-1] < 1e-6:
        return nobody
    _, inputs = unmix(rows, basis, bias)
    inputs = inputs * values @ back
    away = torch.cdist(centres, inputs) / inputs.norm(dim=1)
    same = away < _EQUAL
    return same.any(1) if same.any(0).all() else nobody


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

"""The input of a first linear layer, read off its gradient without any search.

A unit's weight gradient is its bias gradient times the picture: the row divided by the
bias entry *is* the picture, whatever happens later in the network. Noise in a
bottleneck further on changes only a factor of the unit, which cancels; a bottleneck
right at the picture begins with a linear layer itself and leaks in the same way.
For a batch the rows are mixtures of its pictures: `span` is all that they have in
common, and `isolated_inputs` finds the units that only one picture activated.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from precode_lib.attacks.observed import (
    check_observation,
    layer_names,
    named_layer,
    row,
    shared_term,
    sum_of_columns,
    sum_of_rows,
)
from precode_lib.federated import Observation
from precode_lib.gradients import Gradients, Outer, Term, dense, squared_distance
from precode_lib.sampling import noise_from
from precode_lib.validation import check_count, check_finite, check_range

# From the gradients of the first layer's weight and bias to images (V, C * H * W).
Estimate = Callable[[Term, Tensor], Tensor]

_ITERATIONS = 30  # of the power iterations; noiseless gradients need one


class LayerNames(NamedTuple):
    """The names of a layer's parameters."""

    weight: str
    bias: str


@dataclass(frozen=True)
class ClosedForm:
    """What one division gives, and whether to believe it.

    Args:
        images: (V, C, H, W), normalised; zeros where the bias gradient is zero.
        bias_gradient_norm: (V,).
        exact: (V,) bool, whether this one picture explains the first layer's whole
            gradient to rounding: false for batches, behind noise, and for silence.
    """

    images: Tensor
    bias_gradient_norm: Tensor
    exact: Tensor


@dataclass(frozen=True)
class Span:
    """The pictures that the first layer's gradient can be made of.

    Args:
        basis: (V, R, C * H * W), orthonormal, strongest first; zero beyond the rank.
        singular_values: (V, R), of the weight gradient; zero beyond the rank.
    """

    basis: Tensor
    singular_values: Tensor

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
        if images.dim() != 5 or images[0, 0].numel() != size:
            raise ValueError(
                f"images must be (V, B, C, H, W) with {size} numbers each, got "
                f"{tuple(images.shape)}."
            )
        if len(images) != num_victims:
            raise ValueError(f"got {len(images)} victims, the span has {num_victims}.")


@dataclass(frozen=True)
class IsolatedInputs:
    """Pictures of one victim's batch that units saw alone, best supported first.

    Args:
        images: (N, C, H, W), normalised; N may be 0, and is at most the batch size.
        num_units: (N,) int64, how many units agree on each.
    """

    images: Tensor
    num_units: Tensor

    def __len__(self) -> int:
        return len(self.images)


def first_linear(observation: Observation, layer: str | None = None) -> LayerNames:
    """The parameters of the Linear layer that acts on the flattened picture itself.

    Found by running a copy of the model once on noise. Behind a bottleneck in front
    of the first layer, it is the bottleneck's encoder.

    Args:
        layer: its name, for a layer that is no nn.Linear or sees another picture than
            the model does (normalised or permuted first).
    """
    layer = _first_layer(observation, layer)
    if f"{layer}.bias" not in dict(observation.model.named_parameters()):
        raise ValueError(
            f"the first layer {layer!r} has no bias: its gradient tells a single "
            "picture only up to a factor, which direction_of_input gives."
        )
    names = LayerNames(f"{layer}.weight", f"{layer}.bias")
    for role in LayerNames._fields:
        shared_term(observation, layer, role)
    return names


# --- one picture --------------------------------------------------------------------


def largest_row(weight: Term, bias: Tensor) -> Tensor:
    """The row with the largest bias gradient, over that entry: x = G_i / b_i."""
    index = bias.abs().argmax(1)
    return row(weight, index) / bias.gather(1, index.unsqueeze(1))


def least_squares(weight: Term, bias: Tensor) -> Tensor:
    """All rows at once: x = Gᵀ b / |b|², the x that minimises |G - b xᵀ|².

    Averages small noise over the units. Noise in b itself makes |b|² too large and
    shrinks the picture: at large noise one row is better, and `total_least_squares`
    better than both.
    """
    return sum_of_rows(weight, bias) / bias.square().sum(1, keepdim=True)


def total_least_squares(weight: Term, bias: Tensor) -> Tensor:
    """All rows at once, for noise of one size in G and b: the best rank 1 of [G | b].

    Its leading right singular vector is (x, 1) up to a factor; this is the picture of
    maximum likelihood behind Gaussian noise.
    """
    units = bias
    for _ in range(_ITERATIONS):
        picture = sum_of_rows(weight, units)
        one = (units * bias).sum(1, keepdim=True)
        units = sum_of_columns(weight, picture) + one * bias
        units = units / units.norm(dim=1, keepdim=True)
    return sum_of_rows(weight, units) / (units * bias).sum(1, keepdim=True)


def invert_linear(
    observation: Observation,
    *,
    layer: str | None = None,
    estimate: Estimate = largest_row,
) -> ClosedForm:
    """The picture of each victim, from the gradient of the first Linear layer.

    Exact for one picture per victim, through any number of local steps on it, and
    through PRECODE. For batches it is a mixture of the pictures, and `exact` says so.

    Args:
        layer: see `first_linear`.
        estimate: `largest_row`, or behind noise `total_least_squares`.
    """
    names = first_linear(observation, layer)
    weight, bias = (
        observation.shared[names.weight],
        dense(observation.shared[names.bias]),
    )
    norms = bias.norm(dim=1)
    # A victim whose units are all dead sent zeros: 0 / 0 must not reach the caller.
    speaks = (norms > 0).unsqueeze(1)
    images = estimate(weight, bias.where(speaks, 1)).where(speaks, 0)
    return ClosedForm(
        images=images.view(-1, *observation.image_shape),
        bias_gradient_norm=norms,
        exact=speaks.squeeze(1) & _explains(images, weight, bias),
    )


def direction_of_input(observation: Observation, *, layer: str | None = None) -> Tensor:
    """Each victim's picture up to a factor, which may be negative: (V, C, H, W).

    Of norm 1; zeros where the gradient is zero. Needs no bias: the weight gradient of
    one picture has rank 1, and every row of it is a multiple of the picture. The
    factor is not safe, only not in this layer: a search over one number finds it.
    """
    if observation.num_examples != 1:
        raise ValueError(
            f"each victim has {observation.num_examples} pictures, whose gradient has "
            "no single direction; span gives all of them."
        )
    return span(observation, layer=layer).basis.view(-1, *observation.image_shape)


def _explains(images: Tensor, weight: Term, bias: Tensor) -> Tensor:
    """Whether |G - b xᵀ| is rounding error, victim by victim: (V,) bool."""
    shape = torch.Size((bias.shape[1], images.shape[1]))
    weight = weight if isinstance(weight, Outer) else weight.flatten(2)
    guess = Gradients({"weight": Outer(bias[:, None], images[:, None], shape)})
    seen = Gradients({"weight": weight})
    residual = squared_distance(guess, seen).sqrt()
    # Multiplied-out squares of factored terms cancel down to 1e-8 of the norm.
    tolerance = max(1e-6, 256 * torch.finfo(bias.dtype).eps)
    return residual <= tolerance * seen.squared_norms().sum(1).sqrt()


# --- batches ------------------------------------------------------------------------


def span(observation: Observation, *, layer: str | None = None) -> Span:
    """The row space of the first layer's weight gradient, at most B dimensional.

    Every picture that activated a unit lies in it, and no search outside it can find
    them; a batch of B pictures of thousands of pixels is left with B unknowns each.
    Behind noise it is the subspace of the B strongest directions.
    """
    layer = _first_layer(observation, layer)
    weight = shared_term(observation, layer, "weight")
    for part in (weight.left, weight.right) if isinstance(weight, Outer) else (weight,):
        check_finite(part, f"the gradient of '{layer}.weight'")
    left, right = _factors(weight, observation.num_examples)
    # left may be badly conditioned (silent pictures): its R factor weighs `right`.
    weighted = torch.linalg.qr(left.mT, mode="r").R @ right
    _, strengths, basis = torch.linalg.svd(weighted, full_matrices=False)
    floor = 64 * torch.finfo(strengths.dtype).eps * strengths[:, :1]
    counts = strengths > floor
    return Span(basis * counts.unsqueeze(2), strengths * counts)


def isolated_inputs(
    observation: Observation,
    *,
    layer: str | None = None,
    min_units: int | None = None,
    tolerance: float | None = None,
) -> list[IsolatedInputs]:
    """Each victim's pictures that at least some units of the first layer saw alone.

    Such units (of a ReLU net) all give the same row over bias entry, the picture,
    while those that saw several give mixtures, each another one. Candidates outside
    the box of real pictures are dropped where the normalisation is known. Nothing is
    found where all units are always active (sigmoid, PRECODE's encoder), or behind
    noise. With two classes and one hidden layer mixtures agree, too: do not use it.

    Args:
        layer: see `first_linear`.
        min_units: how many units have to agree; by default 2, but 3 for two pictures,
            whose mixtures lie on one line, where strangers meet by chance.
        tolerance: how far they may differ, relative to the picture's norm; by default
            for rounding errors of the gradient's dtype.
    """
    names = first_linear(observation, layer)
    if min_units is not None:
        check_count(min_units, "min_units", 2)
    bias = dense(observation.shared[names.bias])
    if tolerance is None:
        tolerance = 64 * torch.finfo(bias.dtype).eps
    check_range(tolerance, "tolerance", 0, open_low=True)
    found = span(observation, layer=layer)
    coordinates = _coordinates(observation.shared[names.weight], found.basis)
    results = []
    for v, rank in enumerate(found.rank.tolist()):
        least = min_units or (3 if rank == 2 else 2)
        centres, counts = _clusters(coordinates[v], bias[v], least, tolerance)
        images = (centres.to(bias) @ found.basis[v]).view(-1, *observation.image_shape)
        kept = _in_box(images, observation.normalisation).nonzero().flatten()
        kept = kept[: observation.num_examples]
        results.append(IsolatedInputs(images[kept], counts.to(bias.device)[kept]))
    return results


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
    rows: Tensor, bias: Tensor, min_units: int, tolerance: float
) -> tuple[Tensor, Tensor]:
    """Points on which several units agree: centres (N, R) and counts (N,), on the CPU.

    The largest cluster first. Float64, for differences of close points cancel.
    """
    rows, bias = rows.cpu().double(), bias.cpu().double()
    # A unit that hardly fired divides rounding errors by next to nothing.
    loud = bias.abs() > 1e-3 * bias.abs().max()
    rows, bias = rows[loud], bias[loud]
    points = rows / bias.unsqueeze(1)
    norms = points.norm(dim=1)
    away = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    agree = away <= tolerance * torch.minimum(norms, norms.unsqueeze(1))
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


# --- which layer --------------------------------------------------------------------


def _first_layer(observation: Observation, layer: str | None) -> str:
    check_observation(observation)
    if layer is None:
        return _layer_on_picture(observation)
    size = observation.image_shape.numel()
    parameters = dict(observation.model.named_parameters())
    fitting = [
        name
        for name in layer_names(observation)
        if parameters[f"{name}.weight"].shape[1:].numel() == size
        and parameters[f"{name}.weight"].dim() > 1
    ]
    return named_layer(observation, layer, fitting)


def _layer_on_picture(observation: Observation) -> str:
    """The Linear layer whose input is the picture, found by looking at what goes in."""
    probe = copy.deepcopy(observation.model).eval()
    like = next(probe.parameters())
    generator = torch.Generator().manual_seed(0)  # any picture will do
    picture = torch.randn(1, *observation.image_shape, generator=generator).to(like)
    flat, ran, fitting = picture.flatten(1), [], []
    for name, module in probe.named_modules():

        def note(module, inputs, output, name=name):
            ran.append(f"{name!r}, {type(module).__name__}")
            if isinstance(module, nn.Linear) and torch.equal(
                inputs[0].flatten(1), flat
            ):
                fitting.append(name)

        if module._parameters:
            module.register_forward_hook(note)
    with torch.no_grad(), noise_from(torch.zeros_like):
        probe(picture)
    if fitting:
        return fitting[0]
    raise ValueError(
        "no Linear layer of the model sees the flattened picture itself (the first "
        f"layer that runs: {(*ran, 'none')[0]}), so its gradient is no closed form of "
        "the picture."
    )

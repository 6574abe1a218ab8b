"""Whole batches, taken apart by the zeros that a ReLU leaves.

Dimitrov et al. 2024 (SPEAR). The gradient of a linear layer is a sum over the batch,
G = Δᵀ X: each input (X) times its share in what every unit hears back (Δ). The span of
the rows leaves open how the inputs are mixed. But a ReLU makes about half of Δ zero,
and what has so many zeros is the share of one input and no mixture.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from precode_lib.attacks.batches import Span, span_of
from precode_lib.attacks.mixtures import (
    Mixtures,
    coordinates_in,
    is_of_one_step,
    is_silent,
    missed_directions,
    mixtures_of,
    unit_inputs,
    unmix,
)
from precode_lib.attacks.zeros import Directions, independent, sparse_directions
from precode_lib.basics.validation import check_count, check_generator, check_range
from precode_lib.federated import Observation
from precode_lib.gradients import Outer, Term, dense

_ROUNDING = 64  # in units of the last place
_SWAPS = 200  # of directions that do not fit
_UNLIKELY = 0.1  # of the silent units with a share; of a mixture's it is about half


@dataclass(frozen=True, repr=False)
class Unmixed:
    """One victim's batch: all of it, or nothing.

    Args:
        images: (N, C, H, W), normalised, in no order; N is the rank, or 0. Of a layer
            that sees no picture, its inputs (N, K).
        certified: (N,) bool, whether the layer's own weights confirm it, of all images
            or of none: no unit that a ReLU silences on an image has a share in it, and
            these units leave no other share open; there are as many images as inputs,
            and their shares add up to the layer's gradient, to rounding.
        shares: (N, M), what each image adds to the bias gradient.
        rank: how many directions the gradient has. Equal images are one of them, and
            images on which nothing fires are none.
        num_found: how many of these the zeros gave away.
        num_tries: until the last of them; all tries, if not all were found.
        why: what is missing, in words; empty if nothing is.
    """

    images: Tensor
    certified: Tensor
    shares: Tensor
    rank: int
    num_found: int
    num_tries: int
    why: str = ""

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        found = f"{len(self)} images, {int(self.certified.sum())} certified"
        why = f"; {self.why}" if self.why else ""
        return f"Unmixed({found}, {self.num_tries:,} tries{why})"


def spear(
    observation: Observation,
    *,
    generator: torch.Generator,
    tries: int | None = None,
    layer: str | None = None,
    parameter: str | None = None,
    tolerance: float | None = None,
) -> list[Unmixed]:
    """Each victim's whole batch, from a linear layer with a ReLU behind it.

    Dimitrov et al. 2024. A try draws units, one less than there are inputs, and takes
    the one mixture in which these have no share. If the same input left all of them
    silent, it is this input's. That takes about 2^(B - 1) tries for an input: tenths of
    a second of one core for a dozen, seconds for sixteen, a minute for twenty. Noise
    further on in the network, such as PRECODE's, changes the shares and not their
    zeros. Nothing is found behind a sigmoid or behind noise on the gradient, or with
    hardly more units than inputs. Local steps move the weights: after a few the images
    may come back, none of them certified.

    Args:
        tries: how many at most, for each victim; by default 64 · 2^B, which hardly any
            batch needs, but between 20 thousand and 2 million.
        layer: see `first_linear`.
        parameter: see `span`; the layer needs a bias.
        tolerance: what counts as zero, relative to the unit's other shares; by default
            what rounding leaves. A larger one allows for some noise: what comes back is
            then near the images, and not certified.

    >>> import torch
    >>> from precode_lib.attacks import spear
    >>> from precode_lib.federated import observe
    >>> from precode_lib.models import smlp
    >>> generator = torch.Generator().manual_seed(0)
    >>> images = torch.rand(1, 4, 3, 8, 8, generator=generator)
    >>> model = smlp((3, 8, 8), width=128, generator=generator)
    >>> seen = observe(model, images, torch.tensor([[3, 1, 7, 3]]))
    >>> (found,) = spear(seen, generator=generator)
    >>> len(found), found.certified.all().item()
    (4, True)
    """
    check_generator(generator)
    if tries is not None:
        check_count(tries, "tries")
    if tolerance is not None:
        check_range(tolerance, "tolerance", 0, open_low=True)
    mixtures = mixtures_of(observation, layer, parameter, with_bias=True)
    before_relu = unit_inputs(observation, mixtures)
    stayed = is_of_one_step(observation)
    results = []
    for part in _parts(observation, mixtures, tolerance):
        why = part.refusal(mixtures.most, tolerance is not None)
        most = _enough_tries(part.rank) if tries is None else tries
        batch = _taken_apart(part, 0 if why else most, generator, before_relu)
        exact = part.is_whole and stayed and tolerance is None
        proven = batch.is_proven and exact and part.rank == mixtures.most
        certified = torch.full((len(batch.inputs),), proven)
        why = why or _shortfall(batch, certified, mixtures.most, stayed)
        inputs = batch.inputs.to(part.source)
        images, _ = mixtures.as_images(inputs, observation)
        shares, certified = batch.shares.to(inputs), certified.to(inputs.device)
        counts = part.rank, batch.num_found, batch.num_tries
        results.append(Unmixed(images, certified, shares, *counts, why))
    return results


def _enough_tries(rank: int) -> int:
    return min(max(20_000, 64 * 2**rank), 2_000_000)


@dataclass(frozen=True)
class _Part:
    """One victim's layer, in coordinates of its span, in float64 on the CPU.

    Args:
        rows: (M, R), orthonormal columns; times `basis` the weight gradient.
        basis: (R, K).
        bias: (M,), its gradient.
        room: (M,), what rounding may leave of rows @ q, for q of norm 1.
        is_whole: whether the gradient has no directions beside these.
        source: any tensor of the type and place that it came in.
    """

    rows: Tensor
    basis: Tensor
    bias: Tensor
    room: Tensor
    is_whole: bool
    source: Tensor

    @property
    def rank(self) -> int:
        return self.rows.shape[1]

    @property
    def speaks(self) -> Tensor:
        """Which units have any share: (M,) bool."""
        return self.rows.norm(dim=1) > self.room

    def refusal(self, most: int, allows_noise: bool) -> str:
        """Why no try can succeed; empty if one may."""
        if self.rank == 0:
            return "the layer's gradient is zero"
        if not self.is_whole and not allows_noise:
            return (
                f"the gradient has more directions than {most} inputs give: noise, or "
                "another defense"
            )
        units = int(self.speaks.sum())
        if most > 1 and units <= most:
            return f"{units} units with a gradient are too few for {most} inputs"
        return ""


@dataclass(frozen=True)
class _Batch:
    """Inputs (N, K) and their shares (N, M), N being the rank or 0.

    Args:
        fits: (N,) bool, no unit that is silent on the input has a share.
        is_proven: whether all fit, and each silences units that allow one share only.
        is_likely: whether hardly any has, on all of them.
    """

    inputs: Tensor
    shares: Tensor
    fits: Tensor
    is_proven: bool
    is_likely: bool
    num_found: int
    num_tries: int


def _shortfall(batch: _Batch, certified: Tensor, most: int, stayed: bool) -> str:
    """What is missing, in words."""
    count = len(batch.inputs)
    if not count:
        return (
            f"{batch.num_found} inputs found of {most}, nothing before all are: more "
            "tries, or there is no ReLU behind the layer"
        )
    if not stayed:
        return "the weights moved between the steps: nothing to certify with"
    if count < most:
        return (
            f"{count} directions for {most} inputs: equal ones come once, silent ones "
            "not at all; nor would a mixture show"
        )
    if not batch.fits.all():
        return f"{int((~batch.fits).sum())} of {count} are not confirmed by the layer"
    if not certified.all():
        return "not confirmed: units that rule out mixtures are missing"
    return ""


def _parts(
    observation: Observation, mixtures: Mixtures, tolerance: float | None
) -> Iterator[_Part]:
    """Every victim's."""
    span = span_of(mixtures)
    rows = coordinates_in(mixtures.matrices, span.basis)
    bias = dense(observation.shared[mixtures.bias])
    steady = _steady(observation, mixtures.weight)
    rounding = _rounding(rows, steady)
    for v, rank in enumerate(span.rank.tolist()):
        basis = span.basis[v, :rank].cpu().double()
        left, values, right = torch.linalg.svd(
            rows[v, :, :rank].cpu().double(), full_matrices=False
        )
        room = rounding[v].cpu().double() / (values[-1] if rank else 1)
        if tolerance is not None:
            room = tolerance * left.norm(dim=1)
        yield _Part(
            left,
            values[:, None] * (right @ basis),
            bias[v].cpu().double(),
            room,
            _is_whole(mixtures.matrices, span, v, steady),
            bias,
        )


def _steady(observation: Observation, weight: str) -> float:
    """How large what cancelled was: an update is a small difference of weights."""
    if observation.local is None:
        return 0.0
    before = observation.model.get_parameter(weight).detach()
    return before.square().mean().sqrt().item()


def _rounding(rows: Tensor, steady: float) -> Tensor:
    """How far rounding may move each unit's row, in one coordinate: (V, M)."""
    size = rows.norm(dim=2)
    others = size.square().mean(1, keepdim=True).sqrt()  # for rows near zero
    return _ROUNDING * torch.finfo(rows.dtype).eps * (size + others + steady)


def _is_whole(term: Term, span: Span, victim: int, steady: float) -> bool:
    """Whether nothing but rounding lies outside the span."""
    if isinstance(term, Outer):
        if term.left.shape[1] <= span.basis.shape[1]:
            return True
        term = term.dense()
    matrix, basis = term[victim].flatten(1), span.basis[victim]
    outside = matrix - (matrix @ basis.mT) @ basis
    size = matrix.norm() + steady * matrix.numel() ** 0.5
    return bool(outside.norm() <= _ROUNDING * torch.finfo(matrix.dtype).eps * size)


def _taken_apart(
    part: _Part,
    tries: int,
    generator: torch.Generator,
    before_relu: Callable[[Tensor], Tensor] | None,
) -> _Batch:
    """Try until a whole batch looks right, or the tries are over."""
    nobody = torch.zeros(0, dtype=torch.bool)
    batch = _Batch(part.basis[:0], part.rows.mT[:0], nobody, False, False, 0, 0)
    if not tries:
        return batch
    speaks = part.speaks
    rows, room = part.rows[speaks], part.room[speaks]
    apart = (100 * (room / rows.norm(dim=1)).median()).clamp(1e-6, 1e-2)
    num_known, swaps = 0, _SWAPS
    for found in sparse_directions(rows, room, tries=tries, generator=generator):
        chosen = independent(found, apart)
        if len(chosen) < part.rank:
            counts = {"num_found": len(chosen), "num_tries": found.num_tries}
            batch = replace(batch, **counts)
            continue
        batch = _unmixed(part, found, chosen, before_relu)
        if not batch.is_likely and swaps and len(found.vectors) == num_known:
            batch, swaps = _exchanged(part, found, chosen, batch, before_relu, swaps)
        num_known = len(found.vectors)
        if batch.is_likely:
            break
    return batch


def _exchanged(
    part: _Part,
    found: Directions,
    chosen: Tensor,
    batch: _Batch,
    before_relu: Callable[[Tensor], Tensor],
    swaps: int,
) -> tuple[_Batch, int]:
    """Other directions in the place of those that do not fit, while more then do.

    Where few classes and one layer follow, mixtures have as many zeros as inputs.
    """
    others = [i for i in range(len(found.vectors)) if i not in chosen]
    pairs = [(place, new) for place in (~batch.fits).nonzero() for new in others]
    for place, new in pairs[:swaps]:
        swaps -= 1
        changed = chosen.clone()
        changed[place] = new
        if torch.linalg.svdvals(found.vectors[changed])[-1] < 1e-6:
            continue
        other = _unmixed(part, found, changed, before_relu)
        if other.fits.sum() > batch.fits.sum():
            if other.is_likely:
                return other, swaps
            return _exchanged(part, found, changed, other, before_relu, swaps)
    return batch, swaps


def _unmixed(
    part: _Part,
    found: Directions,
    chosen: Tensor,
    before_relu: Callable[[Tensor], Tensor] | None,
) -> _Batch:
    """Inputs and shares from the directions, one for each input: Q of the paper."""
    vectors, num_tries = found.vectors[chosen], int(found.tries[chosen].max())
    shares, coordinates = unmix(part.rows, vectors, part.bias)
    inputs = coordinates @ part.basis
    fits = torch.zeros(len(vectors), dtype=torch.bool)
    is_proven, is_likely = False, True
    if before_relu is not None:
        scale = shares.norm(dim=0) / (part.rows @ vectors.mT).norm(dim=0)
        loud = (shares.abs() > 10 * part.room[:, None] * scale).mT
        silent = is_silent(before_relu(inputs))
        missing = (shares.sum(1) - part.bias).norm()
        adds_up = missing <= 10 * part.room.norm() * scale.sum()
        fits = adds_up & ~(silent & loud).any(1)
        wrong = (silent & loud).sum(1) / silent.sum(1).clamp(min=1)
        is_likely = bool((wrong < _UNLIKELY).all())
        alone = missed_directions(part.rows, silent)
        is_proven = bool((fits & alone.isfinite().all(1)).all())
    return _Batch(
        inputs, shares.mT, fits, is_proven, is_likely, len(vectors), num_tries
    )

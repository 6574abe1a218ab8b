"""What goes into any linear layer, adapter or bare matrix, read off its gradient.

With one example and one position a weight's gradient is an outer product, slope times
input. Each row is the input up to a factor, which a bias's gradient tells. That holds
for the first layer as for the last; what differs is what the input is.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from precode_lib.attacks.batches import span
from precode_lib.attacks.closed_form import Estimate, explains, largest_row
from precode_lib.attacks.observed import check_observation, sight_of, sum_of_columns
from precode_lib.attacks.sights import FEATURES, PART, PICTURE, Sight, sights_of
from precode_lib.attacks.traces import trace_of
from precode_lib.attacks.uses import Trace
from precode_lib.basics.validation import check_function
from precode_lib.federated import Observation
from precode_lib.gradients import Term, dense


@dataclass(frozen=True, repr=False)
class Leaked:
    """What one closed form reads off V gradients, and how surely.

    Args:
        parameter: whose gradient tells it.
        gives: what the values are: the whole "picture" (or other example), a "part" of
            it, its "patches", or "features" that the layers before made of it.
        values: (V, K), or (V, N, K) of N patches; zeros where nothing was sent.
        certified: (V,) bool, whether it is proven: the gradient has the form that this
            input gives it, to rounding, and could have come from no other. It holds of
            the gradient that was sent: a defense may have changed the picture before,
            or erased columns since.
        is_exact: false for what is known up to a factor only: values of norm 1.
        images: (V, C, H, W), normalised: the examples, where the values tell them. Of
            those known up to a factor the largest multiple within the box of real
            pictures, which is right if the picture has black or white in it; None
            where the box is not known.
        places: where each value stands in the flattened example; None for features.
        normalisation: as the observation's.
    """

    parameter: str
    gives: str
    values: Tensor
    certified: Tensor
    is_exact: bool = True
    images: Tensor | None = None
    places: Tensor | None = None
    normalisation: object | None = None

    @property
    def pixels(self) -> Tensor:
        """The images as pixels in [0, 1]."""
        if self.images is None:
            why = "" if self.is_exact else " up to a factor"
            raise ValueError(f"what was read are no pixels, but {self.gives}{why}.")
        if self.normalisation is None:
            raise ValueError(
                "the observation has no normalisation, so pixels are unknown; give "
                "`observe` one (data.IDENTITY if the model sees pixels)."
            )
        return self.normalisation.denormalise(self.images).clamp(0, 1)

    @property
    def silent(self) -> Tensor:
        """Of which victims nothing was read, since the gradient is zero: (V,) bool."""
        return (self.values == 0).flatten(1).all(1)

    def __repr__(self) -> str:
        factor = "" if self.is_exact else ", up to a factor"
        return (
            f"Leaked({self.parameter!r}: {self.gives} {tuple(self.values.shape)}"
            f"{factor}, {int(self.certified.sum())} of {len(self.certified)} certified)"
        )


def input_of(
    observation: Observation,
    parameter: str | None = None,
    *,
    estimate: Estimate = largest_row,
) -> Leaked:
    """What went into a linear layer, an adapter or a bare matrix, of each victim.

    Exact where a bias was added to the product and its gradient was sent, else up to a
    factor. For one example of one position; of more, `span` gives what they have in
    common, and `isolated_inputs` some of them.

    Args:
        parameter: a matrix that is multiplied with what comes in (`nn.Linear`'s weight,
            `x @ A`, `A @ x`) or a convolution as large as its input; by default the
            one that sees most of the example.
        estimate: see `invert_linear`.

    >>> import torch
    >>> from precode_lib.attacks.readings import input_of
    >>> from precode_lib.federated import observe
    >>> from precode_lib.models import lenet
    >>> images, labels = torch.rand(2, 1, 3, 32, 32), torch.tensor([[3], [7]])
    >>> input_of(observe(lenet(), images, labels), "fc.weight")
    Leaked('fc.weight': features (2, 768), 2 of 2 certified)
    """
    check_observation(observation)
    check_function(estimate, "estimate", "total_least_squares")
    trace = trace_of(observation)
    if parameter is None:
        parameter = _best(observation, trace)
    sight = sight_of(observation, parameter, trace)
    _check_one_input(observation, sight)
    return read_input(observation, sight, trace, estimate)


def features_of(observation: Observation) -> Leaked:
    """What went into the last layer, of each victim: its features, not its picture.

    One division, in any network that ends in a linear layer with a bias. Features tell
    who is alike, and a search for a picture that has them needs no gradient.
    """
    check_observation(observation)
    trace = trace_of(observation)
    sight = last_sight(sights_of(observation, trace))
    if sight is None:
        raise ValueError("nothing was shared of a linear layer that runs once.")
    _check_one_input(observation, sight)
    return read_input(observation, sight, trace)


def last_sight(sights: list[Sight]) -> Sight | None:
    """Of the last product; None if it has more positions than one, or there is none."""
    last = sights[-1] if sights else None
    return last if last is not None and last.use.num_positions == 1 else None


def read_input(
    observation: Observation,
    sight: Sight,
    trace: Trace,
    estimate: Estimate = largest_row,
) -> Leaked:
    """The input of one product, whose parameter has only this one."""
    use = sight.use
    matrices = use.matrices(observation.shared[use.parameter])
    is_exact = use.bias is not None and use.bias in observation.shared
    if is_exact:
        values, explained = _divided(observation, sight, matrices, estimate)
    else:
        values, explained = _direction(observation, sight, matrices)
    local = observation.local
    moves = local is not None and local.steps > 1 and sight.gives == FEATURES
    provable = trace.is_alone(use) and observation.num_examples == 1 and not moves
    return Leaked(
        parameter=use.parameter,
        gives=sight.gives,
        values=values,
        certified=explained if provable else torch.zeros_like(explained),
        is_exact=is_exact,
        images=_images(observation, sight, values, is_exact),
        places=None if sight.places is None else sight.places.flatten(),
        normalisation=observation.normalisation,
    )


def _divided(
    observation: Observation, sight: Sight, matrices: Term, estimate: Estimate
) -> tuple[Tensor, Tensor]:
    bias = dense(observation.shared[sight.use.bias]).flatten(1)
    values = estimate(matrices, bias)
    speaks = values.isfinite().all(1)
    values = values.where(speaks.unsqueeze(1), 0)
    return values, speaks & explains(values, matrices, bias)


def _direction(
    observation: Observation, sight: Sight, matrices: Term
) -> tuple[Tensor, Tensor]:
    found = span(observation, parameter=sight.use.parameter)
    values = found.basis[:, 0]
    slopes = sum_of_columns(matrices, values)
    speaks = found.rank > 0
    return values, speaks & explains(values, matrices, slopes)


def _images(
    observation: Observation, sight: Sight, values: Tensor, is_exact: bool
) -> Tensor | None:
    if sight.gives != PICTURE:
        return None
    shape = observation.image_shape
    if is_exact:
        return sight.examples(values[:, None], shape.numel()).view(-1, *shape)
    if sight.scale is not None or observation.normalisation is None:
        return None  # an unknown multiple cannot be shifted back
    flat = sight.examples(values[:, None], shape.numel())
    return _filling(flat.view(-1, *shape), observation.normalisation)


def _filling(directions: Tensor, normalisation: object) -> Tensor:
    """The multiples that just fit into the box, of the sign that lets them be larger.

    A picture with black and white in it is the largest of its own multiples there.
    """
    lower, upper = (side.to(directions) for side in normalisation.box)

    def room(signed: Tensor) -> Tensor:
        ends = torch.where(signed > 0, upper / signed, lower / signed)
        ends = ends.where(signed != 0, torch.inf)
        return ends.flatten(1).amin(1)

    factors = torch.stack([room(directions), -room(-directions)])
    best = factors.abs().argmax(0, keepdim=True)
    factor = factors.gather(0, best)[0]
    factor = factor.where(factor.isfinite(), 0)
    return directions * factor.view(-1, *[1] * (directions.dim() - 1))


def _best(observation: Observation, trace: Trace) -> str:
    """The parameter whose input is most of the example."""
    sights = sights_of(observation, trace)
    single = [s for s in sights if s.use.num_positions == 1]
    for gives in (PICTURE, PART, FEATURES):
        for sight in single:
            if sight.gives == gives:
                return sight.use.parameter
    raise ValueError(
        "no shared parameter is multiplied with one input of each example: of tokens "
        "or patches see span, patches_of and tokens_of."
    )


def _check_one_input(observation: Observation, sight: Sight) -> None:
    positions, examples = sight.use.num_positions, observation.num_examples
    if positions * examples > 1:
        name = sight.use.parameter
        raise ValueError(
            f"the gradient of {name!r} adds up {examples} examples of {positions} "
            f"inputs each; span(observation, parameter={name!r}) gives what they have "
            "in common."
        )

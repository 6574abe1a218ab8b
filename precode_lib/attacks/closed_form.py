"""The input of a first linear layer, read off its gradient without any search.

A unit's weight gradient is its bias gradient times the picture: the row divided by the
bias entry *is* the picture, whatever happens later in the network. Noise in a
bottleneck further on changes only a factor of the unit, which cancels; a bottleneck
right at the picture begins with a linear layer itself and leaks in the same way.
For a batch the rows are mixtures of its pictures: `span` is all that they have in
common, and `isolated_inputs` finds the units that only one picture activated.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from precode_lib.attacks.batches import IsolatedInputs, Span, isolated_inputs, span
from precode_lib.attacks.observed import (
    LayerNames,
    first_linear,
    row,
    sum_of_columns,
    sum_of_rows,
)
from precode_lib.attacks.reports import Reconstruction
from precode_lib.basics.validation import check_function
from precode_lib.federated import Observation
from precode_lib.gradients import Gradients, Outer, Term, dense, squared_distance

__all__ = [
    "ClosedForm",
    "IsolatedInputs",
    "LayerNames",
    "Span",
    "direction_of_input",
    "first_linear",
    "invert_linear",
    "isolated_inputs",
    "largest_row",
    "least_squares",
    "sign_votes",
    "span",
    "total_least_squares",
]

# From the gradients of the first layer's weight and bias to images (V, C * H * W).
Estimate = Callable[[Term, Tensor], Tensor]

_ITERATIONS = 30  # of the power iterations; noiseless gradients need one


@dataclass(frozen=True, repr=False)
class ClosedForm:
    """What one division gives, and whether to believe it.

    Args:
        images: (V, C, H, W), normalised; zeros where the bias gradient is zero, or
            where the division overflows or meets NaN.
        bias_gradient_norm: (V,).
        exact: (V,) bool, whether this one picture explains the first layer's whole
            gradient to rounding: false for batches, behind noise, and for silence.
    """

    images: Tensor
    bias_gradient_norm: Tensor
    exact: Tensor

    def reconstruction(self, observation: Observation) -> Reconstruction:
        """The same as what a search gives back, for one picture per victim.

        Its objective is 0 where the picture explains the layer, and infinite elsewhere:
        an attacker who has the choice then believes the search.
        """
        if observation.num_examples != 1:
            raise ValueError(
                "one division gives one picture, not the "
                f"{observation.num_examples} of a batch; see isolated_inputs."
            )
        images = self.images.unsqueeze(1)
        doubt = self.bias_gradient_norm.new_tensor(inf)
        objective = torch.where(self.exact, torch.zeros_like(doubt), doubt)
        labels = observation.labels
        nobody = torch.full((len(images), 1), -1)
        return Reconstruction(
            attack="division",
            images=images,
            objective=objective,
            labels=nobody if labels is None else labels,
            last_images=images,
            last_objective=objective,
            iterations=torch.zeros(len(images), dtype=torch.int64),
            outcome=tuple("converged" if e else "exhausted" for e in self.exact),
            normalisation=observation.normalisation,
        )

    def __repr__(self) -> str:
        shape, found = tuple(self.images.shape), int(self.exact.sum())
        return f"ClosedForm(images {shape}, {found} of {len(self.exact)} exact)"


def largest_row(weight: Term, bias: Tensor) -> Tensor:
    """The row with the largest bias gradient, over that entry: x = G_i / b_i."""
    index = bias.abs().argmax(1)
    return row(weight, index) / bias.gather(1, index.unsqueeze(1))


def least_squares(weight: Term, bias: Tensor) -> Tensor:
    """All rows at once: x = Gᵀ b / |b|², the x that minimises |G - b xᵀ|².

    Averages small noise over the units. Noise in b itself makes |b|² too large and
    shrinks the picture: then one row can be better, and `total_least_squares` is
    better than both.
    """
    return sum_of_rows(weight, bias) / bias.square().sum(1, keepdim=True)


def sign_votes(weight: Term, bias: Tensor) -> Tensor:
    """For each pixel the mean vote of all rows on its sign, in [-1, 1].

    Of an update by Adam, whose first step keeps little but signs: there each row's
    entry has the sign of its unit times that of the pixel, brighter or darker than 0,
    and for one picture all rows agree.
    """
    return (dense(weight).flatten(2).sign() * bias.sign()[:, :, None]).mean(1)


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

    >>> import torch
    >>> from precode_lib.attacks.closed_form import invert_linear
    >>> from precode_lib.federated import observe
    >>> from precode_lib.models import smlp
    >>> images, labels = torch.rand(2, 1, 3, 8, 8), torch.tensor([[3], [7]])
    >>> found = invert_linear(observe(smlp((3, 8, 8), width=64), images, labels))
    >>> torch.allclose(found.images, images[:, 0], atol=1e-3)
    True
    """
    check_function(estimate, "estimate", "total_least_squares")
    names = first_linear(observation, layer)
    weight = observation.shared[names.weight]
    bias = dense(observation.shared[names.bias])
    norms = bias.norm(dim=1)
    images = estimate(weight, bias)
    # A victim whose units are all dead sent zeros: 0 / 0 must not reach the caller.
    speaks = images.isfinite().all(1)
    images = images.where(speaks.unsqueeze(1), 0)
    return ClosedForm(
        images=images.view(-1, *observation.image_shape),
        bias_gradient_norm=norms,
        exact=speaks & explains(images, weight, bias),
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


def explains(images: Tensor, weight: Term, bias: Tensor) -> Tensor:
    """Whether |G - b xᵀ| is rounding error, victim by victim: (V,) bool.

    Of images (V, C, H, W) or other inputs of the layer (V, ...).
    """
    images = images.flatten(1)
    shape = torch.Size((bias.shape[1], images.shape[1]))
    if isinstance(weight, Outer):  # of a convolution, its shape is another
        weight = Outer(weight.left, weight.right, shape)
    else:
        weight = weight.flatten(2)
    guess = Gradients({"weight": Outer(bias[:, None], images[:, None], shape)})
    seen = Gradients({"weight": weight})
    residual = squared_distance(guess, seen).sqrt()
    # Multiplied-out squares of factored terms cancel down to 1e-8 of the norm.
    tolerance = max(1e-6, 256 * torch.finfo(bias.dtype).eps)
    return residual <= tolerance * seen.squared_norms().sum(1).sqrt()

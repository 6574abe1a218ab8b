"""A picture out of its patches: what a position embedding gives away.

A transformer embeds patch x_t as h_t = W x_t + b + p_t, with a learned p_t for each
place. Both gradients are sent: that of p_t is the slope s_t of h_t itself, and that of
W is the sum of all s_t x_t^T. With the slopes known the sum is a system of linear
equations for the patches, which has one solution if the slopes are independent. For
that there must be no more patches than entries of h_t.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from precode_lib.attacks.observed import check_observation
from precode_lib.attacks.readings import Leaked
from precode_lib.attacks.sights import (
    PATCHES,
    PICTURE,
    Sight,
    positions_of,
    rows_of,
    sights_of,
)
from precode_lib.attacks.traces import trace_of
from precode_lib.attacks.uses import Addition, Trace, Use
from precode_lib.federated import Observation
from precode_lib.gradients import dense

# How far rounding may move a patch, relative to all of them, where it is certified.
_ROOM = 1e-2


@dataclass(frozen=True, eq=False)
class Embedding:
    """Where patches (or tokens) are embedded and positions added.

    Args:
        use: of the weight, or of the tokens' table.
        addition: of the positions.
        at: (N,), which of the added rows belongs to which patch.
        is_alone: whether these parameters are read nowhere else.
        sight: what the weight sees; None of tokens.
    """

    use: Use
    addition: Addition
    at: Tensor
    is_alone: bool
    sight: Sight | None = None

    def slopes(self, observation: Observation) -> Tensor:
        """The gradient of each embedded patch: (V, N, D)."""
        sent, width = dense(observation.shared[self.addition.parameter]), self.use.width
        if self.addition.rows is not None:
            return sent.reshape(len(sent), -1, width)[:, self.addition.rows[self.at]]
        shape = self.addition.other.shape
        rows = torch.stack([rows_of(g.reshape(shape), width) for g in sent])
        return rows[:, self.at]


def embedding_of(
    use: Use, observation: Observation, trace: Trace, sight: Sight | None = None
) -> Embedding | None:
    """Where shared positions are added to what this use embeds, if they are."""
    pair = positions_of(use, trace)
    if pair is None or pair[0].parameter not in observation.shared:
        return None
    addition, at = pair
    is_alone = trace.is_alone(use) and trace.is_added_once(addition)
    return Embedding(use, addition, at, is_alone, sight)


def patches_of(observation: Observation) -> Leaked:
    """Each victim's picture, patch by patch, from the gradient of learned positions.

    For one picture per victim, as published by Lu et al. 2022. Whatever comes after the
    first layer does not matter. Of a model whose last layer is still zero nothing is
    sent: values are zeros then, and `silent`.

    Of the reading, `values` are the patches (V, N, K), and `certified` says that the
    equations have one solution, that there are more of them than unknowns, and that
    all of them hold to rounding.
    """
    check_observation(observation)
    trace = trace_of(observation)
    found = embeddings(observation, sights_of(observation, trace), trace)
    if not found:
        raise ValueError(
            "no shared parameter is multiplied with patches of the picture to which "
            "another shared one is added, position by position: without the gradient "
            "of learned positions the patches have more unknowns than equations."
        )
    return read_patches(observation, found[0])


def embeddings(
    observation: Observation, sights: list[Sight], trace: Trace
) -> list[Embedding]:
    """All places where patches meet learned positions, both of them shared."""
    found = (
        embedding_of(s.use, observation, trace, s) for s in sights if s.gives == PATCHES
    )
    return [embedding for embedding in found if embedding is not None]


def read_patches(observation: Observation, embedding: Embedding) -> Leaked:
    """The patches and the picture that they make."""
    sight, use = embedding.sight, embedding.use
    slopes = embedding.slopes(observation)
    matrices = dense(use.matrices(observation.shared[use.parameter]))
    values, held = solved(slopes, matrices)
    provable = observation.num_examples == 1 and _is_fixed(observation)
    provable = provable and embedding.is_alone
    shape = observation.image_shape
    return Leaked(
        parameter=use.parameter,
        gives=PICTURE,
        values=values,
        certified=held if provable else torch.zeros_like(held),
        images=sight.examples(values, shape.numel()).view(-1, *shape),
        normalisation=observation.normalisation,
    )


def solved(slopes: Tensor, matrices: Tensor) -> tuple[Tensor, Tensor]:
    """The x_t of sum_t s_t x_t^T = G, and whether that is proven.

    Args:
        slopes: (V, N, D).
        matrices: (V, D, K).

    Returns:
        (V, N, K), of several solutions the smallest; and (V,) bool: there are more
        equations than unknowns, they hold, and rounding hardly moves the solution.
    """
    eps = torch.finfo(matrices.dtype).eps
    left, right = slopes.double(), matrices.double()
    u, strengths, vh = torch.linalg.svd(left.mT, full_matrices=False)
    inverse = torch.where(strengths > 16 * eps * strengths[:, :1], 1 / strengths, 0)
    values = (vh.mT * inverse[:, None]) @ (u.mT @ right)
    error = (left.mT @ values - right).flatten(1).norm(dim=1)
    sizes = right.flatten(1).norm(dim=1)
    tolerance = max(1e-6, 256 * eps)
    moved = 16 * eps * sizes / strengths[:, -1] / values.flatten(1).norm(dim=1)
    held = (error <= tolerance * sizes) & (moved < _ROOM)
    if slopes.shape[1] >= slopes.shape[2]:
        held = torch.zeros_like(held)  # every gradient has such a solution
    return values.to(matrices), held


def _is_fixed(observation: Observation) -> bool:
    """Whether all slopes are of one set of weights."""
    return observation.local is None or observation.local.steps == 1

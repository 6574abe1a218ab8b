"""What a server learns that gets the sum of the messages, and no message."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from precode_lib.gradients import Gradients, mixes_examples

from .observing import Observation


def aggregated(*observations: Observation) -> Observation:
    """The average of all victims' gradients, as one victim with all their examples.

    What secure aggregation leaves to see. Weighted by the numbers of examples, it is
    the gradient of one batch that has everybody's, for a loss that is a mean over
    examples. So any attack on a batch is one on the sum.

    Args:
        observations: of one round: the same model, loss and protocol. Labels, if known
            of all, are known without whose they are.

    >>> import torch
    >>> from precode_lib.federated import aggregated, observe
    >>> from precode_lib.models import smlp
    >>> images, labels = torch.rand(8, 1, 3, 8, 8), torch.arange(8)[:, None]
    >>> each = observe(smlp((3, 8, 8), width=16), images, labels)
    >>> total = aggregated(each)
    >>> total.num_victims, total.num_examples
    (1, 8)
    """
    _check(observations)
    first = observations[0]
    weights = [o.num_examples for o in observations]
    total = sum(w * o.num_victims for w, o in zip(weights, observations, strict=True))
    means = {}
    shared = [o.shared.dense() for o in observations]
    for name in first.shared:
        sums = [w * g[name].sum(0, True) for w, g in zip(weights, shared, strict=True)]
        means[name] = torch.stack(sums).sum(0) / total
    return replace(
        first,
        shared=Gradients(means),
        num_examples=total,
        labels=_labels(observations, total),
    )


def _labels(observations: Sequence[Observation], total: int) -> Tensor | None:
    if any(o.labels is None for o in observations):
        return None
    rows = [o.labels.flatten(0, 1) for o in observations]
    return torch.cat(rows)[None]


def _check(observations: Sequence[Observation]) -> None:
    """Refuse what no sum of one round could be."""
    if not observations:
        raise ValueError("there is nothing to sum: give one Observation at least.")
    for one in observations:
        if not isinstance(one, Observation):
            kind = type(one).__name__
            raise TypeError(f"a sum is of Observations, got {kind}; observe makes one.")
    first = observations[0]
    if any(one.local is not None for one in observations):
        raise ValueError(
            "an average of updates of local training is the update of no batch; sum "
            "gradients (local=None)."
        )
    if first.buffers is not None or mixes_examples(first.model):
        raise ValueError(
            "batch statistics are each client's own: the average is the gradient of no "
            "batch. Freeze them (model.eval())."
        )
    for other in observations[1:]:
        _check_alike(first, other)


def _check_alike(first: Observation, other: Observation) -> None:
    for name in ("image_shape", "loss", "num_classes", "discrete"):
        one, two = getattr(first, name), getattr(other, name)
        if one != two:
            raise ValueError(
                f"a sum is of one round, with one {name}; got {one} and {two}."
            )
    if first.shared.shapes != other.shared.shapes:
        raise ValueError("a sum is of the same parameters, got others from one client.")
    if not _same_weights(first.model, other.model):
        raise ValueError("a sum is of gradients at the same weights, got two models.")


def _same_weights(one: nn.Module, two: nn.Module) -> bool:
    mine, yours = one.state_dict(), two.state_dict()
    return mine.keys() == yours.keys() and all(
        torch.equal(mine[name], yours[name]) for name in mine
    )

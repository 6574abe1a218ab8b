"""Reading an observation: whose layer is whose, and products with terms.

Both layouts of a term are served, and a factored one is never built.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from precode_lib.federated import Observation
from precode_lib.gradients import Outer, Term, dense
from precode_lib.validation import closest


def check_observation(observation: Observation) -> None:
    """Refuse what is not an Observation, bare gradients above all."""
    if not isinstance(observation, Observation):
        raise TypeError(
            f"an attack takes an Observation, got {type(observation).__name__}; "
            "observe(...) makes one, or Observation(shared=..., model=..., ...)."
        )


def layer_names(observation: Observation) -> list[str]:
    """The layers of the model that have a weight, in the model's order."""
    names = [name for name, _ in observation.model.named_parameters()]
    return [n.removesuffix(".weight") for n in names if n.endswith(".weight")]


def named_layer(observation: Observation, layer: str, among: Iterable[str]) -> str:
    """`layer` as it stands, if it is among these; else an error with the closest."""
    among = list(among)
    if layer in among:
        return layer
    inside = [name for name in among if name.startswith(f"{layer}.")]
    hint = f" Did you mean {inside[-1]!r}?" if inside else closest(layer, among)
    raise ValueError(f"no layer {layer!r} fits here; these do: {among}.{hint}")


def shared_term(observation: Observation, layer: str, role: str) -> Term:
    """What the victims shared of a layer's "weight" or "bias"; an error if nothing."""
    name = f"{layer}.{role}"
    if name in observation.shared:
        return observation.shared[name]
    if name in dict(observation.model.named_parameters()):
        raise ValueError(
            f"the victims shared no gradient of {name!r}: it is frozen, or was dropped "
            "from what they send."
        )
    raise ValueError(f"layer {layer!r} has no {role}.")


def shared_bias(observation: Observation, layer: str) -> Tensor:
    """(V, rows)."""
    return dense(shared_term(observation, layer, "bias"))


def sum_of_rows(term: Term, weights: Tensor) -> Tensor:
    """Sum of the rows of each victim's matrix, with weights (V, rows): (V, columns)."""
    if isinstance(term, Outer):
        return _product(term.right.transpose(1, 2), _product(term.left, weights))
    return _product(term.flatten(2).transpose(1, 2), weights)


def sum_of_columns(term: Term, weights: Tensor) -> Tensor:
    """Sum of the columns of each victim's matrix, with weights (V, columns)."""
    if isinstance(term, Outer):
        return _product(term.left.transpose(1, 2), _product(term.right, weights))
    return _product(term.flatten(2), weights)


def row_sums(term: Term) -> Tensor:
    """The sum of each row of each victim's matrix: (V, rows)."""
    if isinstance(term, Outer):
        return _product(term.left.transpose(1, 2), term.right.sum(2))
    return term.flatten(2).sum(2)


def row(term: Term, index: Tensor) -> Tensor:
    """One row of each victim's matrix, by index (V,): (V, columns)."""
    victims = torch.arange(len(index), device=index.device)
    if isinstance(term, Outer):
        return _product(term.right.transpose(1, 2), term.left[victims, :, index])
    return term.flatten(2)[victims, index]


def _product(matrices: Tensor, vectors: Tensor) -> Tensor:
    return (matrices @ vectors.unsqueeze(2)).squeeze(2)

"""Reading an observation: whose layer is whose, and products with terms.

Both layouts of a term are served, and a factored one is never built.
"""

import copy
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from precode_lib.basics.validation import closest
from precode_lib.bottleneck import quiet
from precode_lib.federated import Observation
from precode_lib.gradients import Outer, Term, dense


class LayerNames(NamedTuple):
    """The names of a layer's parameters."""

    weight: str
    bias: str


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


def named_layer(layer: str, among: Iterable[str]) -> str:
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
    if name not in observation.shared:
        raise ValueError(
            f"the victims shared no gradient of {name!r}: it is frozen, or was dropped "
            "from what they send."
        )
    return observation.shared[name]


def shared_bias(observation: Observation, layer: str) -> Tensor:
    """(V, rows)."""
    return dense(shared_term(observation, layer, "bias"))


def first_linear(observation: Observation, layer: str | None = None) -> LayerNames:
    """The parameters of the Linear layer that acts on the flattened picture itself.

    Found by running a copy of the model once on noise. Behind a bottleneck in front
    of the first layer, it is the bottleneck's encoder.

    Args:
        layer: its name, for a layer that is no nn.Linear or sees another picture than
            the model does (normalised or permuted first).
    """
    layer = layer_on_picture(observation, layer)
    if f"{layer}.bias" not in dict(observation.model.named_parameters()):
        raise ValueError(
            f"the first layer {layer!r} has no bias: its gradient tells a single "
            "picture only up to a factor, which direction_of_input gives."
        )
    names = LayerNames(f"{layer}.weight", f"{layer}.bias")
    for role in LayerNames._fields:
        shared_term(observation, layer, role)
    return names


def layer_on_picture(observation: Observation, layer: str | None) -> str:
    """The name of the Linear layer that acts on the flattened picture itself."""
    check_observation(observation)
    if layer is None:
        return _found_by_running(observation)
    size = observation.image_shape.numel()
    parameters = dict(observation.model.named_parameters())
    fitting = [
        name
        for name in layer_names(observation)
        if parameters[f"{name}.weight"].shape[1:].numel() == size
        and parameters[f"{name}.weight"].dim() > 1
    ]
    return named_layer(layer, fitting)


def _found_by_running(observation: Observation) -> str:
    """The Linear layer whose input is the picture, found by looking at what goes in."""
    probe = copy.deepcopy(observation.model).eval()
    like = next(probe.parameters())
    generator = torch.Generator().manual_seed(0)  # any picture will do
    picture = torch.randn(1, *observation.image_shape, generator=generator).to(like)
    flat, ran, fitting = picture.flatten(1), [], []
    for name, module in probe.named_modules():

        def note(module, inputs, output, name=name):
            ran.append(f"{name!r}, {type(module).__name__}")
            if not isinstance(module, nn.Linear):
                return
            if torch.equal(inputs[0].flatten(1), flat):
                fitting.append(name)

        if module._parameters:
            module.register_forward_hook(note)
    with torch.no_grad(), quiet(probe):
        probe(picture)
    if fitting:
        return fitting[0]
    raise ValueError(
        "no Linear layer of the model sees the flattened picture itself (the first "
        f"layer that runs: {(*ran, 'none')[0]}), so its gradient is no closed form of "
        "the picture."
    )


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

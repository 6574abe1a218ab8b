"""Reading an observation: whose layer is whose, and products with terms.

Both layouts of a term are served, and a factored one is never built.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from precode_lib.attacks.sights import Sight, advice, sights_of
from precode_lib.attacks.traces import trace_of
from precode_lib.attacks.uses import LOOKUP, Trace
from precode_lib.basics.validation import closest
from precode_lib.federated import Observation
from precode_lib.gradients import Outer, Term, dense

_ELSE = "What goes into others, input_of tells by their parameters' names."


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
        raise ValueError(_unshared(name))
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
    """The name of the linear layer that acts on the flattened picture itself."""
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
    if layer not in fitting and (name := _whole_name(layer, parameters)):
        raise ValueError(
            f"no layer {layer!r} fits here, where a weight for the whole picture is "
            f"needed; these do: {fitting}. input_of(observation, {name!r}) gives what "
            "goes into it, picture or not."
        )
    return named_layer(layer, fitting)


def _whole_name(layer: str, parameters: Mapping[str, nn.Parameter]) -> str | None:
    """The parameter that somebody means by this name, if there is one."""
    for name in (layer, f"{layer}.weight"):
        if name in parameters and parameters[name].dim() > 1:
            return name
    return None


def _found_by_running(observation: Observation) -> str:
    """The layer whose input is the picture, found by looking at what goes in."""
    trace = trace_of(observation)
    sights = sights_of(observation, trace, shared_only=False)
    fitting = [
        s.use
        for s in sights
        if s.is_plain and s.use.is_whole and s.use.parameter.endswith(".weight")
    ]
    for use in fitting:
        if use.parameter in observation.shared:
            return use.parameter.removesuffix(".weight")
    hints = [*advice(observation, sights, trace)]
    if fitting:
        missing = _unshared(fitting[0].parameter)
        raise ValueError(" ".join([missing, *hints]))
    first = _first(observation.model, trace)
    raise ValueError(
        " ".join(
            [
                "no Linear layer of the model sees the flattened picture itself (the "
                f"first layer that runs: {first}).",
                *(hints or [_ELSE]),
            ]
        )
    )


def sight_of(
    observation: Observation, parameter: str, trace: Trace | None = None
) -> Sight:
    """What the only product of this parameter sees; an error that says why not."""
    check_observation(observation)
    names = [name for name, _ in observation.model.named_parameters()]
    if parameter not in names:
        close = closest(parameter, names)
        raise ValueError(f"the model has no parameter {parameter!r}.{close}")
    if parameter not in observation.shared:
        raise ValueError(_unshared(parameter))
    trace = trace_of(observation) if trace is None else trace
    uses = trace.of(parameter)
    if any(use.kind == LOOKUP for use in uses):
        raise ValueError(
            f"{parameter!r} is a table that rows are looked up in: tokens_of says "
            "which."
        )
    if len(uses) != 1 or trace.others[parameter]:
        raise ValueError(
            f"{parameter!r} is multiplied with {len(uses)} inputs and read in "
            f"{trace.others[parameter]} other ways; its gradient tells what comes in "
            "only where that is one product and nothing else."
        )
    sights = sights_of(observation, trace)
    return next(s for s in sights if s.use is uses[0])


def _unshared(name: str) -> str:
    return (
        f"the victims shared no gradient of {name!r}: it is frozen, or was dropped "
        "from what they send."
    )


def _first(model: nn.Module, trace: Trace) -> str:
    """The first layer with parameters: its name and kind."""
    for parameter in trace.order:
        layer = parameter.rpartition(".")[0]
        return f"{layer!r}, {type(model.get_submodule(layer)).__name__}"
    return "none"


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

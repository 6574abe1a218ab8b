"""How one layer's parameter gradients follow from its input and its output's gradient.

A rule takes a layer, its input x (N, ...), the gradient delta of its output (N, ...)
and the number of victims V (N = V * B, victim by victim); it returns one term per
parameter role, "weight" and "bias". The rules are differentiable in x and delta, so a
search can match them. `rule_for` says which layers have one; `Capture` takes more.
"""

from collections.abc import Callable, Mapping
from functools import wraps

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from precode_lib.basics.validation import check_takes, closest

from .convolutions import patch_factors, weight_gradients
from .terms import Outer, Term, num_victims_of, prefers_factors, shape_of

Rule = Callable[[nn.Module, Tensor, Tensor, int], dict[str, Term]]


def rule_for(
    layer: nn.Module, rules: Mapping[type[nn.Module], Rule] | None = None
) -> Rule | None:
    """The rule of this layer; None for layers that have none, or another forward.

    Args:
        layer: a module of the model.
        rules: for further kinds of layers, or in place of a rule of the library.
    """
    if "forward" in vars(layer):  # put on this one layer, in place of its class's
        return None
    for kind, rule in (*(rules or {}).items(), *_RULES.items()):
        # A subclass with a forward of its own (LoRA, quantised) computes other things.
        if isinstance(layer, kind) and type(layer).forward is kind.forward:
            return rule
    return None


def linear_rule(
    layer: nn.Linear, x: Tensor, delta: Tensor, num_victims: int
) -> dict[str, Term]:
    """dL/dW = sum of delta x^T over a victim's pictures and positions."""
    left = delta.reshape(num_victims, -1, delta.shape[-1])
    right = x.reshape(num_victims, -1, x.shape[-1])
    weight: Term = Outer(left, right, layer.weight.shape)
    if not prefers_factors(left.shape[1], layer.weight.shape):
        weight = weight.dense()
    return {"weight": weight, "bias": left.sum(1)}


def conv2d_rule(
    layer: nn.Conv2d, x: Tensor, delta: Tensor, num_victims: int
) -> dict[str, Term]:
    """dL/dW is the convolution of x with delta, or outer products over patches."""
    padding = layer.padding
    if layer.padding_mode != "zeros" or isinstance(padding, str):
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        x = F.pad(x, layer._reversed_padding_repeated_twice, mode=mode)
        padding = (0, 0)
    geometry = (layer.stride, padding, layer.dilation, layer.groups)
    shape, left = layer.weight.shape, delta.flatten(2)
    positions = len(x) // num_victims * left.shape[2]
    call = (x, delta, num_victims, shape, geometry)
    if layer.groups == 1 and prefers_factors(positions, shape):
        weight: Term = Outer(*patch_factors(*call), shape)
    else:
        weight = weight_gradients(*call)
    bias = left.reshape(num_victims, -1, *left.shape[1:]).sum((1, 3))
    return {"weight": weight, "bias": bias}


def batch_norm_rule(
    layer: _BatchNorm, x: Tensor, delta: Tensor, num_victims: int
) -> dict[str, Term]:
    """The scale sees the normalised input; batch statistics are the batch's own."""
    own = layer.training or layer.running_mean is None
    statistics = (None, None) if own else (layer.running_mean, layer.running_var)
    normal = F.batch_norm(x, *statistics, training=own, eps=layer.eps)
    return _per_channel(normal, delta, num_victims)


def group_norm_rule(
    layer: nn.GroupNorm, x: Tensor, delta: Tensor, num_victims: int
) -> dict[str, Term]:
    """The scale sees the normalised input."""
    normal = F.group_norm(x, layer.num_groups, eps=layer.eps)
    return _per_channel(normal, delta, num_victims)


def layer_norm_rule(
    layer: nn.LayerNorm, x: Tensor, delta: Tensor, num_victims: int
) -> dict[str, Term]:
    """The scale sees the normalised input, position by position."""
    shape = layer.normalized_shape
    normal = F.layer_norm(x, shape, eps=layer.eps)
    weight, bias = (
        part.reshape(num_victims, -1, *shape).sum(1) for part in (normal * delta, delta)
    )
    return {"weight": weight, "bias": bias}


_RULES: dict[type[nn.Module], Rule] = {
    nn.Linear: linear_rule,
    nn.Conv2d: conv2d_rule,
    nn.BatchNorm1d: batch_norm_rule,
    nn.BatchNorm2d: batch_norm_rule,
    nn.GroupNorm: group_norm_rule,
    nn.LayerNorm: layer_norm_rule,
}


def _per_channel(normal: Tensor, delta: Tensor, num_victims: int) -> dict[str, Term]:
    """Sum over a victim's pictures and positions: (N, C, ...) -> (V, C)."""
    shape = (num_victims, -1, delta.shape[1], delta[0, 0].numel())
    weight, bias = (p.reshape(shape).sum((1, 3)) for p in (normal * delta, delta))
    return {"weight": weight, "bias": bias}


def checked_rules(
    rules: Mapping[type[nn.Module], Rule],
) -> dict[type[nn.Module], Rule]:
    """Rules from outside, which say so when their answers do not fit the layer."""
    for kind, rule in rules.items():
        if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
            raise TypeError(f"rules are for classes of layers, got one for {kind!r}.")
        check_takes(rule, "a rule", "linear_rule", "layer", "x", "delta", "num_victims")
    return {kind: _checked(rule) for kind, rule in rules.items()}


def _checked(rule: Rule) -> Rule:
    @wraps(rule)
    def checked(layer, x, delta, num_victims):
        terms = rule(layer, x, delta, num_victims)
        for role, term in terms.items():
            _check_term(layer, role, term, num_victims)
        return terms

    return checked


def _check_term(layer: nn.Module, role: str, term: Term, num_victims: int) -> None:
    kind, parameter = type(layer).__name__, layer._parameters.get(role)
    if role not in layer._parameters:
        raise ValueError(
            f"the rule of {kind} answers for {role!r}, which is no parameter of it."
            + closest(role, layer._parameters)
        )
    if parameter is None:  # a layer without its bias, say
        return
    found, wanted = (
        (num_victims_of(term), *shape_of(term)),
        (num_victims, *parameter.shape),
    )
    if found != wanted:
        raise ValueError(
            f"the rule of {kind} must give {role!r} of {num_victims} victims as "
            f"{wanted}, got {found}; sum over a victim's own pictures only."
        )

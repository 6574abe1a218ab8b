"""Put modules into a model without editing its class.

The named layer is replaced by an `nn.Sequential`; `layer` is what stood there before.
"""

import copy
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from precode_lib.basics.validation import (
    check_count,
    check_examples,
    check_model,
    closest,
)

from .sampling import quiet

Names = str | Sequence[str]
# Images (N, C, H, W) or their shape (C, H, W); or other examples (N, ...).
Example = Tensor | tuple[int, ...]


@dataclass(frozen=True)
class Place:
    """A side of a named layer, and the features that pass there."""

    layer: str
    is_before: bool
    features: Tensor = field(repr=False)  # (N, ...), from the dry run

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Shape of one example's features, such as (1024,) or (C, H, W)."""
        return tuple(self.features.shape[1:])


def places(
    model: nn.Module,
    before: Names | None = None,
    after: Names | None = None,
    *,
    example: Example | None = None,
) -> list[Place]:
    """Find the asked places by one dry run; without names, before the last Linear.

    Changes nothing: a copy of the model runs, in evaluation mode.

    Args:
        before: names of layers, as in model.named_modules().
        after: likewise; these places follow those of `before`.
        example: images (N, C, H, W) or a shape (C, H, W); by default the model's own
            image_shape, or (3, 32, 32).
    """
    check_model(model)
    images = _example_images(model, example)
    calls = _dry_run(model, images)
    if before is None and after is None:
        before = _last_linear(model, calls)
    asked = [(n, True) for n in _listed(before, "before")]
    asked += [(n, False) for n in _listed(after, "after")]
    if len(set(asked)) < len(asked) or not asked:
        raise ValueError(
            f"name each place once, and at least one: got before={before!r}, "
            f"after={after!r}."
        )
    return [_place(model, calls, n, side, len(images)) for n, side in asked]


def inserted(
    model: nn.Module, chosen: Sequence[Place], modules: Sequence[nn.Module]
) -> nn.Module:
    """A copy of the model with one module at each place; the original stays as it is.

    The layer "fc" becomes a Sequential: its parameters are now named "fc.layer...",
    those of the new module "fc.bottleneck...".
    """
    model = copy.deepcopy(model)
    pairs = zip(chosen, modules, strict=True)
    # From the inside out: the name of a layer changes once its parent is replaced.
    for place, module in sorted(pairs, key=lambda p: -p[0].layer.count(".")):
        layer = model.get_submodule(place.layer)
        module = module.to(place.features).train(layer.training)
        new = [("bottleneck", module), ("layer", layer)]
        wrapper = nn.Sequential(OrderedDict(new if place.is_before else new[::-1]))
        _replace(model, layer, wrapper.train(layer.training))
    return model


@dataclass
class _Call:
    """What one layer was given and what it returned."""

    inputs: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any


def _dry_run(model: nn.Module, images: Tensor) -> dict[str, list[_Call]]:
    """Every call of every named layer, in the order in which they returned."""
    calls: dict[str, list[_Call]] = {}
    probe = copy.deepcopy(model).eval()
    for name, layer in probe.named_modules():

        def note(_, inputs, kwargs, output, name=name):
            calls.setdefault(name, []).append(_Call(inputs, kwargs, output))

        layer.register_forward_hook(note, with_kwargs=True)
    try:
        with torch.no_grad(), quiet(probe):
            probe(images)
    except Exception as error:
        raise ValueError(
            f"the dry run with images of shape {tuple(images.shape)} failed ({error}); "
            "give `example`, images or a shape (C, H, W) that the model takes."
        ) from error
    return calls


def _example_images(model: nn.Module, example: Example | None) -> Tensor:
    like = next(model.parameters(), torch.empty(0))
    if isinstance(example, Tensor):
        check_examples(example, "example")
        return example.to(like)
    shape = getattr(model, "image_shape", (3, 32, 32)) if example is None else example
    if not isinstance(shape, tuple | list) or len(shape) == 0:
        came = shape if isinstance(shape, tuple | list | int) else type(shape).__name__
        raise ValueError(
            "example must be images (N, C, H, W) or a shape (C, H, W), or rows (N, F) "
            f"and their shape (F,), and so on; got {came}."
        )
    for size in shape:
        check_count(size, "each entry of example's shape")
    # Two, so that a dimension 0 that does not count examples shows.
    return torch.zeros(2, *shape, device=like.device, dtype=like.dtype)


def _last_linear(model: nn.Module, calls: dict[str, list[_Call]]) -> str:
    names = [n for n in calls if isinstance(model.get_submodule(n), nn.Linear)]
    if not names:
        raise ValueError("the model runs no nn.Linear; name a layer: before=... .")
    return names[-1]


def _place(
    model: nn.Module,
    calls: dict[str, list[_Call]],
    name: str,
    is_before: bool,
    num_examples: int,
) -> Place:
    call = _only_call(model, calls, name)
    if len(call.inputs) != 1 or call.kwargs:
        raise ValueError(
            f"layer {name!r} takes more than one argument; a bottleneck fits only "
            "beside a layer that maps one tensor to one tensor."
        )
    features = call.inputs[0] if is_before else call.output
    if not isinstance(features, Tensor) or not features.is_floating_point():
        kind = getattr(features, "dtype", type(features).__name__)
        raise ValueError(
            f"a bottleneck needs floating point features, but at layer {name!r} "
            f"there is {kind}."
        )
    if features.ndim < 2 or len(features) != num_examples:
        raise ValueError(
            f"at layer {name!r} the features have shape {tuple(features.shape)} for "
            f"{num_examples} images; a bottleneck needs (N, ...)."
        )
    return Place(name, is_before, features)


def _only_call(model: nn.Module, calls: dict[str, list[_Call]], name: str) -> _Call:
    modules = dict(model.named_modules(remove_duplicate=False))
    if name not in modules or not name:
        names = [own for own in modules if own]
        raise ValueError(f"the model has no layer {name!r}.{closest(name, names)}")
    # A layer may have several names; its calls stand under the first.
    first = next(n for n, m in modules.items() if m is modules[name])
    runs = calls.get(first, [])
    if len(runs) != 1:
        raise ValueError(
            f"layer {name!r} is called {len(runs)} times in a forward pass; "
            "a bottleneck fits only beside a layer that is called once."
        )
    return runs[0]


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    modules = list(model.named_modules(remove_duplicate=False))
    for name in [n for n, m in modules if m is old]:
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, new)


def per_place(value: Any, num_places: int, name: str) -> list[Any]:
    """One value per place: a list as it stands, anything else repeated."""
    if not isinstance(value, list | tuple):
        return [value] * num_places
    if len(value) != num_places:
        raise ValueError(
            f"{name} must be one value or {num_places}, one per place, "
            f"got {len(value)}."
        )
    return list(value)


def _listed(names: Names | None, side: str) -> list[str]:
    if names is None:
        return []
    if isinstance(names, str):
        return [names]
    if isinstance(names, list | tuple) and all(isinstance(n, str) for n in names):
        return list(names)
    raise TypeError(
        f"{side} names layers, as in model.named_modules(); got {type(names).__name__}."
    )

"""Soteria: zero the columns of one layer's gradient that tell most on the picture.

Sun et al. 2021. What the layers before it share is untouched: an attack that leaves
the defended layer out of its matching never meets the defense.
"""

from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call

from precode_lib.basics.validation import check_range, closest
from precode_lib.bottleneck import NoiseSource, noise_from, recorded_noise, unheard
from precode_lib.gradients import (
    Capture,
    Gradients,
    Outer,
    check_victims,
    differentiable,
    one_at_a_time,
    victim_by_victim,
)

# Largest activations that one backward pass over several features may hold, in bytes.
FEATURE_BYTES = 256 * 2**20


def soteria_step(
    capture: Capture,
    images: Tensor,
    labels: Tensor,
    *,
    layer: str,
    percentile: float,
    noise: NoiseSource | None = None,
) -> Gradients:
    """What V clients share after pruning the features that enter `layer`.

    A `ClientStep`. Feature f scores s_f = Σ_batch ‖∂r_f/∂x‖ / (|r_f| + 0.1), which is
    the released code's approximation of the paper's bound (there r_f ≥ 0 is taken for
    granted). The columns of the layer's weight gradient whose score is *strictly
    below* the percentile become 0: those of the smallest scores. Nothing else changes,
    and factors stay factors. Costs a backward pass per feature.

    Args:
        capture: of the model.
        images: (V, B, C, H, W).
        labels: (V, B) classes, or (V, B, classes) probabilities.
        layer: the name of the Linear layer behind the representation, such as "fc".
        percentile: in [0, 100], of a victim's scores, interpolated linearly as by
            numpy.percentile; the authors' scripts use 1 and 60. 0 drops nothing.
        noise: where bottlenecks draw from.
    """
    check_victims(images, labels)
    check_range(percentile, "percentile", 0, 100, hint="60 drops 60 % of the features.")
    weight = _weight_name(capture, layer)
    options = {"layer": layer, "percentile": percentile}
    if len(images) > 1 and capture.mixes_examples(images, labels):
        # A batch norm would see all victims at once.
        alone = partial(soteria_step, capture, **options)
        return victim_by_victim(alone, images, labels, noise)
    step = _features_at_once(capture, images, labels)
    passes = capture.random_passes(images, labels)
    scores, drawn = _scores_and_noise(
        capture.model, layer, images, noise, step=step, passes=passes
    )
    gradients = capture(images, labels, noise=drawn)
    limit = torch.quantile(scores, percentile / 100, dim=1, keepdim=True)
    return _without_columns(gradients, weight, scores < limit)


def _features_at_once(capture: Capture, images: Tensor, labels: Tensor) -> int:
    """How many features fit into FEATURE_BYTES when all victims go backward at once."""
    held = capture.activation_bytes(images, labels) * len(images)
    return max(1, FEATURE_BYTES // held)


def _scores_and_noise(
    model: nn.Module,
    layer: str,
    images: Tensor,
    noise: NoiseSource | None,
    *,
    step: int,
    passes: int,
) -> tuple[Tensor, list[Tensor]]:
    """The scores (V, F), and the bottlenecks' noise behind them.

    Dropout drops for them what it will drop in the last of so many next passes.
    """
    if passes == 0:
        with recorded_noise() as drawn:
            return _scores(model, layer, images, noise, step), drawn
    pictures = images.detach().flatten(0, 1)
    # Settled first: bottlenecks may draw from the generator that dropout uses.
    with recorded_noise() as drawn:
        _entering(model, layer, pictures, noise)
    devices = [images.device] if images.is_cuda else []
    with torch.random.fork_rng(devices), unheard():
        for _ in range(passes - 1):
            _entering(model, layer, pictures, drawn)
        return _scores(model, layer, images, drawn, step), drawn


def _scores(
    model: nn.Module, layer: str, images: Tensor, noise: NoiseSource | None, step: int
) -> Tensor:
    """(V, F), from backward passes of `step` features at a time."""
    pictures = images.detach().flatten(0, 1).requires_grad_()
    features = _entering(model, layer, pictures, noise)
    slopes = []
    for axes in torch.eye(features.shape[1]).to(features).split(step):
        # One row of every picture's Jacobian per axis: (axes, N, C, H, W).
        (part,) = torch.autograd.grad(
            features,
            pictures,
            axes.unsqueeze(1).expand(-1, *features.shape),
            retain_graph=True,
            is_grads_batched=True,
        )
        slopes.append(part.flatten(2).norm(dim=2))
    scores = torch.cat(slopes).T / (features.detach().abs() + 0.1)
    return scores.unflatten(0, images.shape[:2]).sum(1)


@one_at_a_time
def _entering(
    model: nn.Module, layer: str, pictures: Tensor, noise: NoiseSource | None
) -> Tensor:
    """The input (N, F) of the layer; leaves the model as it was."""
    seen: list[Tensor] = []
    module = model.get_submodule(layer)
    state = {name: p.detach() for name, p in model.named_parameters()}
    state |= {name: b.clone() for name, b in model.named_buffers()}
    source = nullcontext() if noise is None else noise_from(noise)
    handle = module.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    try:
        with source, differentiable():
            functional_call(model, state, (pictures,))
    finally:
        handle.remove()
    shapes = [tuple(features.shape) for features in seen]
    if len(seen) != 1 or len(shapes[0]) != 2 or shapes[0][0] != len(pictures):
        raise ValueError(
            f"layer {layer!r} must run once, on features (N, F) of the N = "
            f"{len(pictures)} pictures; it ran on {shapes}."
        )
    return seen[0]


def _without_columns(gradients: Gradients, weight: str, dropped: Tensor) -> Gradients:
    """Zero these columns (V, F) of one weight."""
    term = gradients[weight]
    if isinstance(term, Outer):
        right = term.right.masked_fill(dropped.unsqueeze(1), 0)
        term = Outer(term.left, right, term.shape)
    else:
        term = term.masked_fill(dropped.unsqueeze(1), 0)
    return Gradients({**gradients, weight: term})


def _weight_name(capture: Capture, layer: str) -> str:
    """The name of the layer's weight, if it is a Linear that is trained."""
    modules = dict(capture.model.named_modules())
    linear = [name for name, m in modules.items() if isinstance(m, nn.Linear)]
    if layer not in linear:
        raise ValueError(
            f"Soteria defends a Linear layer, and the model has no such {layer!r}; it "
            f"has {linear}.{closest(str(layer), linear)}"
        )
    if f"{layer}.weight" not in capture.names:
        raise ValueError(f"'{layer}.weight' is frozen, so it has no gradient.")
    return f"{layer}.weight"

"""How near what came back is to what was sent, whatever kind of example it is."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from precode_lib.attacks import Leaked
from precode_lib.audit.samples import Sample, leaves
from precode_lib.audit.scenes import Scene
from precode_lib.metrics import (
    CLOSE,
    SUCCESS_SSIM,
    pair,
    relative_error,
    reorder,
    ssim,
)

_MOST_TOLD = 12  # numbers or tokens of an example in words
_SMALLEST = 7  # pixels that SSIM's window needs


@dataclass(frozen=True)
class Judgement:
    """Of each of the V * B examples, in the order of the sample."""

    recovered: list[bool]
    ssim: list[float | None]
    error: list[float | None]
    shown: Tensor | None = None
    told: list[str] = field(default_factory=list)


def judge(scene: Scene, guesses: Tensor) -> Judgement:
    """Compare guesses (V, B, ...), as the model takes them, with the clients' own.

    A picture came back if its SSIM is at least SUCCESS_SSIM, anything else if its
    relative error is below CLOSE. A batch is given in whatever order fits best.
    """
    truths = truth(scene.sample).unflatten(0, guesses.shape[:2])
    if not truths.is_floating_point():  # whole numbers that a layer took as they are
        truths = truths.double()
    found = guesses.detach().cpu().to(truths.dtype)
    found = found.nan_to_num(0.0, 0.0, 0.0)
    flat_truths, flat = truths.flatten(2), found.flatten(2)
    if guesses.shape[1] > 1:
        order = pair(flat_truths[..., None, None], flat[..., None, None])
        flat = reorder(flat[..., None, None], order).flatten(2)
    error = relative_error(flat_truths.flatten(0, 1), flat.flatten(0, 1)).tolist()
    pixels = _pixels(scene.sample, flat.flatten(0, 1))
    if pixels is None or min(pixels.shape[-2:]) < _SMALLEST:
        told = [] if pixels is not None else in_words(flat.flatten(0, 1))
        close = [e < CLOSE for e in error]
        return Judgement(close, [None] * len(error), error, pixels, told)
    alike = ssim(scene.sample.pixels.double(), pixels.double()).tolist()
    return Judgement([s >= SUCCESS_SSIM for s in alike], alike, error, pixels)


def judge_part(scene: Scene, read: Leaked) -> Judgement:
    """Compare a part of each example, (V, K), known exactly or up to a factor.

    Up to a factor, it is right if some multiple of it is.
    """
    whole = truth(scene.sample).flatten(1)
    # Of whole examples there are no places: all of them, in order.
    true = (whole if read.places is None else whole[:, read.places.cpu()]).double()
    found = read.values.detach().cpu().reshape(len(true), -1).double()
    if not read.is_exact:
        squares = found.square().sum(1, keepdim=True)
        factors = (found * true).sum(1, keepdim=True) / squares.where(squares > 0, 1)
        found = found * factors
    error = relative_error(true, found).tolist()
    close, told = [e < CLOSE for e in error], in_words(found)
    return Judgement(close, [None] * len(error), error, told=told)


def in_words(values: Tensor) -> list[str]:
    """The first numbers of each example, (N, ...), as a reader sees them."""
    rows = values.flatten(1)
    more = " ..." if rows.shape[1] > _MOST_TOLD else ""
    form = "{}" if not rows.is_floating_point() else "{:.3g}"
    return [
        " ".join(form.format(v) for v in row[:_MOST_TOLD].tolist()) + more
        for row in rows
    ]


def truth(sample: Sample) -> Tensor:
    """The examples as one tensor (N, ...): those of several inputs side by side."""
    parts = leaves(sample.inputs)
    if len(parts) == 1:
        return parts[0]
    return torch.cat([part.flatten(1).float() for part in parts], 1)


def _pixels(sample: Sample, flat: Tensor) -> Tensor | None:
    """(N, C, H, W) in [0, 1]; None where examples are no pictures."""
    if sample.pixels is None:
        return None
    images = flat.view_as(sample.pixels)
    if sample.normalisation is not None:
        images = sample.normalisation.denormalise(images)
    return images.clamp(0, 1)

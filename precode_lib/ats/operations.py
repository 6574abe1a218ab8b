"""The 50 transformations of ATS, numbered and with the magnitudes as published.

Gao et al. 2021 take their table from AutoAugment's CIFAR-10 policy. Three quirks of it
are kept, for policies are published as numbers: entries repeat (29 of the 50 differ),
28 and 39 change nothing, and 2 always turns the same way. The probabilities that the
reference lists beside its entries are left out, for its code never reads them: an
operation in a policy always fires.

On uint8 levels an operation does what PIL does, up to rounding (the tests say how far).
On floating point pixels in [0, 1] it is the same on a continuous scale and can be
differentiated, as an attacker who knows the policy would; equalize, autocontrast and
posterize pass the derivative straight through.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import ModuleType

import torch
from torch import Tensor
from torch.nn import functional as F

NUM_LEVELS = 10
GREY = 128 / 255  # what rotate fills its corners with; everything else fills black
LARGEST_SHIFT = 150 / 331  # of the side: AutoAugment's 150 pixels of ImageNet's 331

Apply = Callable[[Tensor, float], Tensor]  # (pixels (N, C, H, W), magnitude) -> pixels


@dataclass(frozen=True)
class OperationKind:
    """What an operation does, and how strongly at each of the ten levels.

    Args:
        magnitudes: one per level; None for a kind that has no strength.
        signed: whether its direction is drawn at random for each picture.
        neutral: the magnitude that changes nothing.
    """

    name: str
    apply: Apply
    magnitudes: tuple[float, ...] | None = None
    signed: bool = False
    neutral: float | None = None


@dataclass(frozen=True)
class Operation:
    """One entry of the published table: a kind at a level."""

    index: int
    kind: OperationKind
    level: int

    @property
    def magnitude(self) -> float | None:
        """Its strength in the kind's own unit; None where the level means nothing."""
        magnitudes = self.kind.magnitudes
        return None if magnitudes is None else magnitudes[self.level]

    @property
    def is_identity(self) -> bool:
        """Whether it changes nothing, as 28 and 39 do."""
        return self.magnitude is not None and self.magnitude == self.kind.neutral

    @property
    def is_signed(self) -> bool:
        """Whether its two directions differ."""
        return self.kind.signed and not self.is_identity

    def __call__(self, pixels: Tensor, sign: int = 1) -> Tensor:
        """Transform pixels (N, C, H, W), uint8 or floating point; a new tensor."""
        if self.is_identity:
            return pixels.clone()
        magnitude = 0.0 if self.magnitude is None else self.magnitude
        return self.kind.apply(
            pixels, sign * magnitude if self.is_signed else magnitude
        )

    def __repr__(self) -> str:
        if self.magnitude is None:
            return f"Operation({self.index}: {self.kind.name})"
        sign = "±" if self.kind.signed else ""
        return f"Operation({self.index}: {self.kind.name} {sign}{self.magnitude:.3g})"


@cache
def _v2() -> ModuleType:
    # torchvision takes a second to import, and policies are useful without it.
    from torchvision.transforms.v2 import functional

    return functional


def _translate(pixels: Tensor, right: float, down: float) -> Tensor:
    return _v2().affine(
        pixels, angle=0.0, translate=[right, down], scale=1.0, shear=[0.0, 0.0]
    )


def translate_x(pixels: Tensor, share: float) -> Tensor:
    """Move by a share of the width, to the left if positive; nearest pixel, black."""
    return _translate(pixels, -share * pixels.shape[-1], 0.0)


def translate_y(pixels: Tensor, share: float) -> Tensor:
    """Move by a share of the height, upwards if positive; nearest pixel, black."""
    return _translate(pixels, 0.0, -share * pixels.shape[-2])


def shear_y(pixels: Tensor, slope: float) -> Tensor:
    """Take each column `slope` times its position from further down; bicubic, black.

    Written out, for torchvision knows no bicubic for tensors, and torch's has another
    kernel than PIL's (a = -1).
    """
    height, width = pixels.shape[-2:]
    values = pixels if pixels.is_floating_point() else pixels.float()
    # In float64, as PIL: some sources fall on the border exactly.
    rows, columns = (
        torch.arange(n, dtype=torch.float64) + 0.5 for n in (height, width)
    )
    source = rows[:, None] + slope * columns
    first = (source - 0.5).floor()
    d = (source - 0.5 - first).to(values)
    weights = (
        d * (-1 + d * (2 - d)),
        1 + d * d * (d - 2),
        d * (1 + d * (1 - d)),
        d * d * (d - 1),
    )
    total = torch.zeros_like(values)
    for step, weight in enumerate(weights, start=-1):
        taken = (first + step).long().clamp(0, height - 1).to(values.device)
        total = total + weight * values.gather(-2, taken.expand(values.shape))
    is_inside = ((source >= 0) & (source < height)).to(values.device)
    return _like(total.where(is_inside, 0), pixels)


def rotate(pixels: Tensor, degrees: float) -> Tensor:
    """Turn counter-clockwise about the centre; nearest pixel, grey corners."""
    fill = GREY if pixels.is_floating_point() else 128
    return _v2().rotate(pixels, degrees, fill=[fill] * pixels.shape[-3])


def brightness(pixels: Tensor, change: float) -> Tensor:
    """Multiply by 1 + change."""
    return _v2().adjust_brightness(pixels, 1 + change)


def contrast(pixels: Tensor, change: float) -> Tensor:
    """Stretch the distance from the mean grey by 1 + change."""
    return _v2().adjust_contrast(pixels, 1 + change)


def color(pixels: Tensor, change: float) -> Tensor:
    """Stretch the distance from the own grey by 1 + change; grey pictures stay."""
    return _v2().adjust_saturation(pixels, 1 + change)


def sharpness(pixels: Tensor, change: float) -> Tensor:
    """Stretch the distance from a smoothed picture by 1 + change; borders stay."""
    if not pixels.is_floating_point():
        return _v2().adjust_sharpness(pixels, 1 + change)
    # Written out, for torchvision's way (in place) has no derivative.
    channels = pixels.shape[-3]
    kernel = pixels.new_full((channels, 1, 3, 3), 1 / 13)
    kernel[:, :, 1, 1] = 5 / 13
    detail = pixels[..., 1:-1, 1:-1] - F.conv2d(pixels, kernel, groups=channels)
    return (pixels + change * F.pad(detail, [1] * 4)).clamp(0, 1)


def invert(pixels: Tensor, _: float) -> Tensor:
    """The negative."""
    return _v2().invert(pixels)


def solarize(pixels: Tensor, threshold: float) -> Tensor:
    """The negative of all values from the threshold (in levels of 255) upwards."""
    scale = 255 if pixels.is_floating_point() else 1
    return _v2().solarize(pixels, threshold / scale)


def posterize(pixels: Tensor, bits: float) -> Tensor:
    """Keep the highest bits of every level."""
    return _on_levels(pixels, lambda levels: _v2().posterize(levels, int(bits)))


def autocontrast(pixels: Tensor, _: float) -> Tensor:
    """Stretch every channel to the full range."""
    return _on_levels(pixels, _v2().autocontrast)


def equalize(pixels: Tensor, _: float) -> Tensor:
    """Flatten every channel's histogram."""
    return _on_levels(pixels, _v2().equalize)


def to_levels(pixels: Tensor) -> Tensor:
    """Round pixels in [0, 1] to uint8 levels; uint8 stays as it is."""
    if pixels.dtype == torch.uint8:
        return pixels
    return (pixels.detach() * 255).round().clamp(0, 255).to(torch.uint8)


def _on_levels(pixels: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Work on levels; the derivative, which is zero or wild, is taken to be one."""
    changed = change(to_levels(pixels))
    if not pixels.is_floating_point():
        return changed
    return pixels + (changed.to(pixels) / 255 - pixels).detach()


def _like(values: Tensor, pixels: Tensor) -> Tensor:
    """Values on the scale of `pixels`, brought back into its range and type."""
    if pixels.is_floating_point():
        return values.clamp(0, 1)
    return values.round().clamp(0, 255).to(torch.uint8)


def _up_to(highest: float) -> tuple[float, ...]:
    return tuple(highest * level / (NUM_LEVELS - 1) for level in range(NUM_LEVELS))


def _enhance(name: str, apply: Apply) -> OperationKind:
    return OperationKind(name, apply, _up_to(0.5), signed=True, neutral=0)


OPERATION_KINDS = {
    kind.name: kind
    for kind in (
        OperationKind("shear_y", shear_y, _up_to(0.3), signed=True, neutral=0),
        OperationKind("translate_x", translate_x, _up_to(LARGEST_SHIFT), True, 0),
        OperationKind("translate_y", translate_y, _up_to(LARGEST_SHIFT), True, 0),
        OperationKind("rotate", rotate, _up_to(30.0), neutral=0),
        _enhance("brightness", brightness),
        _enhance("color", color),
        _enhance("contrast", contrast),
        _enhance("sharpness", sharpness),
        OperationKind(
            "posterize", posterize, (8, 8, 7, 7, 6, 6, 5, 5, 4, 4), neutral=8
        ),
        OperationKind(
            "solarize", solarize, tuple(256 - m for m in _up_to(256)), neutral=256
        ),
        OperationKind("autocontrast", autocontrast),
        OperationKind("equalize", equalize),
        OperationKind("invert", invert),
    )
}

# Ten rows of five; the number is the level. Levels of kinds without strength are moot.
_TABLE = """
invert 7       contrast 6      rotate 2      translate_x 9   sharpness 1
sharpness 3    shear_y 2       translate_y 2 autocontrast 5  equalize 2
shear_y 5      posterize 5     color 3       brightness 5    sharpness 9
brightness 9   equalize 5      equalize 1    contrast 7      sharpness 5
color 5        translate_x 5   equalize 7    autocontrast 8  translate_y 3
sharpness 6    brightness 6    color 8       solarize 0      invert 0
equalize 0     autocontrast 0  equalize 8    equalize 4      color 5
equalize 5     autocontrast 4  solarize 4    brightness 3    color 0
solarize 1     autocontrast 0  translate_y 3 translate_y 3   autocontrast 1
solarize 1     equalize 5      invert 0      translate_y 3   autocontrast 1
"""


def _table() -> tuple[Operation, ...]:
    words = _TABLE.split()
    pairs = zip(words[::2], words[1::2], strict=True)
    return tuple(
        Operation(index, OPERATION_KINDS[name], int(level))
        for index, (name, level) in enumerate(pairs)
    )


OPERATIONS = _table()

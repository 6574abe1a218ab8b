"""ATS policies: which operations follow each other, and what is random about them."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Generator, Tensor

from precode_lib.ats.operations import OPERATIONS, to_levels
from precode_lib.basics.validation import (
    check_count,
    check_finite,
    check_generator,
    check_tensor,
)

Transform = Callable[[Tensor, Generator], Tensor]  # pixels (N, C, H, W) -> the same
PADDING = 4  # pixels that CIFAR's usual random crop may move a picture

_ALTERNATIVE = re.compile(r"(-1|\d+)(-(-1|\d+))*")


@dataclass(frozen=True)
class Variant:
    """One outcome of a policy's random choices: a transformation without chance.

    Args:
        steps: (operation, sign) in the order in which they apply.
    """

    steps: tuple[tuple[int, int], ...]

    def __call__(self, pixels: Tensor) -> Tensor:
        """Transform pixels (N, C, H, W), uint8 as PIL does, or float differentiably."""
        pixels = pixels.clone()
        for index, sign in self.steps:
            pixels = OPERATIONS[index](pixels, sign)
        return pixels

    def __str__(self) -> str:
        signed = [
            f"{index}{'+' if sign > 0 else '-'}"
            if OPERATIONS[index].is_signed
            else str(index)
            for index, sign in self.steps
        ]
        return ", ".join(signed) or "unchanged"


@dataclass(frozen=True)
class Policy:
    """Operations by number, one after another; of several alternatives one is drawn.

    Written "3-1-7" as in the paper, a hybrid "3-1-7+43-18-18"; -1 stands for nothing,
    so `Policy.parse("-1")` leaves pictures as they are and "3--1-7" is "3-7". Every
    picture draws its alternative (uniformly) and the sign of each signed operation.

    It moves what a picture shows; it does not hide what a gradient tells about the
    moved picture.
    """

    alternatives: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if isinstance(self.alternatives, str):
            raise TypeError(f"use Policy.parse({self.alternatives!r}) for a string.")
        cleaned = tuple(
            tuple(index for index in map(_checked, alternative) if index >= 0)
            for alternative in self.alternatives
        )
        if not cleaned:
            raise ValueError("a policy needs an alternative; ((),) changes nothing.")
        object.__setattr__(self, "alternatives", cleaned)

    @classmethod
    def parse(cls, text: str) -> "Policy":
        """Read "3-1-7" or "3-1-7+43-18-18"."""
        if not isinstance(text, str):
            raise TypeError(f"a policy is written as a string, got {text!r}.")
        return cls(tuple(map(_parse_alternative, text.split("+"))))

    def __str__(self) -> str:
        return "+".join("-".join(map(str, a)) or "-1" for a in self.alternatives)

    def __add__(self, other: "Policy") -> "Policy":
        """The hybrid of both: all their alternatives, equally likely."""
        if not isinstance(other, Policy):
            return NotImplemented
        return Policy(self.alternatives + other.alternatives)

    def __call__(self, pixels: Tensor, generator: Generator) -> Tensor:
        """Transform each picture by a variant of its own; a new tensor.

        Args:
            pixels: (N, C, H, W), uint8 or floating point in [0, 1]. Floats are rounded
                to the 256 levels on which the operations are defined.
            generator: draws the variants.
        """
        check_pixels(pixels)
        check_generator(generator)
        return apply_each(pixels, self.draw(len(pixels), generator))

    def draw(self, count: int, generator: Generator) -> list[Variant]:
        """Draw a variant for each of `count` pictures."""
        check_count(count, "count")
        longest = max(map(len, self.alternatives))
        device = generator.device
        chosen = torch.randint(
            len(self.alternatives), (count,), generator=generator, device=device
        )
        signs = torch.randint(2, (count, longest), generator=generator, device=device)
        pairs = zip(chosen.tolist(), (2 * signs - 1).tolist(), strict=True)
        return [_variant(self.alternatives[a], row) for a, row in pairs]

    @property
    def variants(self) -> tuple[Variant, ...]:
        """Everything that can happen to a picture, each outcome once."""
        rows = {
            _variant(alternative, signs): None
            for alternative in self.alternatives
            for signs in product((1, -1), repeat=len(alternative))
        }
        return tuple(rows)


def apply_each(pixels: Tensor, variants: Sequence[Variant]) -> Tensor:
    """Transform each picture by its own variant, on 256 levels; a new tensor."""
    if len(variants) != len(pixels):
        raise ValueError(f"got {len(variants)} variants for {len(pixels)} pictures.")
    levels = to_levels(pixels)
    result = torch.empty_like(levels)
    groups: dict[Variant, list[int]] = {}
    for row, variant in enumerate(variants):
        groups.setdefault(variant, []).append(row)
    for variant, rows in groups.items():
        result[rows] = variant(levels[rows])
    return result.to(pixels) / 255 if pixels.is_floating_point() else result


def augment(pixels: Tensor, generator: Generator, *, padding: int = PADDING) -> Tensor:
    """CIFAR's usual augmentation: a random crop of the padded picture, then a flip.

    Every picture of (N, C, H, W) moves by up to `padding` pixels each way, black comes
    in, and half of them are mirrored. A new tensor.
    """
    check_pixels(pixels)
    check_generator(generator)
    check_count(padding, "padding", 0)
    count, _, height, width = pixels.shape
    draws = torch.rand(3, count, generator=generator, device=generator.device)
    down, right = (draws[:2].to(pixels.device) * (2 * padding + 1)).long()
    is_flipped = (draws[2] < 0.5).to(pixels.device)
    rows = torch.arange(height, device=pixels.device) + down[:, None]
    columns = torch.arange(width, device=pixels.device).expand(count, -1)
    columns = torch.where(is_flipped[:, None], columns.flip(1), columns)
    columns = columns + right[:, None]
    padded = torch.nn.functional.pad(pixels, [padding] * 4)
    picture = torch.arange(count, device=pixels.device)[:, None, None]
    # Advanced indices around a slice put the channels last.
    moved = padded[picture, :, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2).contiguous()


def in_turn(*transforms: Transform) -> Transform:
    """Apply transforms from left to right: `in_turn(augment, policy)` as published."""

    def transform(pixels: Tensor, generator: Generator) -> Tensor:
        for each in transforms:
            pixels = each(pixels, generator)
        return pixels

    return transform


def check_pixels(pixels: Tensor) -> None:
    """Refuse anything but pictures (N, C, H, W), uint8 or in [0, 1], grey or RGB."""
    check_tensor(pixels, "pixels")
    if pixels.dim() != 4 or pixels.numel() == 0 or pixels.shape[1] not in (1, 3):
        raise ValueError(
            "pixels must be (N, C, H, W) with 1 or 3 channels and at least one "
            f"picture, got {tuple(pixels.shape)}; for one picture use pixels[None]."
        )
    if pixels.dtype == torch.uint8:
        return
    if not pixels.is_floating_point():
        raise TypeError(f"pixels must be uint8 or floating point, got {pixels.dtype}.")
    check_finite(pixels, "pixels")
    low, high = pixels.min().item(), pixels.max().item()
    if low < -1e-3 or high > 1 + 1e-3:  # a quarter of a level: rounding, nothing else
        raise ValueError(
            f"pixels must lie in [0, 1], got {low:.3g} to {high:.3g}; are these "
            "normalised images? A policy comes before the normalisation."
        )


def _variant(alternative: Sequence[int], signs: Sequence[int]) -> Variant:
    """The signs count only where they matter, so that equal outcomes are equal."""
    pairs = zip(alternative, signs, strict=False)  # signs are as many as the longest
    return Variant(tuple((i, s if OPERATIONS[i].is_signed else 1) for i, s in pairs))


def _checked(index: int) -> int:
    check_count(index, "each operation of a policy", -1)
    if index >= len(OPERATIONS):
        raise ValueError(
            f"there is no operation {index}: they are numbered from 0 to "
            f"{len(OPERATIONS) - 1}, and -1 stands for nothing."
        )
    return int(index)


def _parse_alternative(text: str) -> tuple[int, ...]:
    text = text.strip()
    if not _ALTERNATIVE.fullmatch(text):
        raise ValueError(
            f"cannot read {text!r} as a policy: write numbers from 0 to "
            f"{len(OPERATIONS) - 1} joined by '-', such as '3-1-7', alternatives "
            "joined by '+', and '-1' for nothing."
        )
    return tuple(map(int, re.findall(r"(?:^|-)(-1|\d+)", text)))

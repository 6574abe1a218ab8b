"""Pictures with their labels, and the pair of sets a model is trained and tested on."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from precode_lib.basics.validation import (
    check_count,
    check_finite,
    check_range,
    closest,
)
from precode_lib.data.examples import Examples, check_classes
from precode_lib.data.normalisation import IDENTITY, Normalisation


@dataclass(frozen=True, eq=False, repr=False)
class Pictures(Examples):
    """N labelled pictures, how they were coded, and how a model wants them normalised.

    Indexing with a number, a slice, a list or a tensor gives Pictures again.
    """

    stored: Tensor  # (N, C, H, W), uint8 levels or floating point in [0, 1]
    labels: Tensor  # (N,), int64
    classes: tuple[str, ...]
    name: str
    fidelity: str = "lossless"  # or "JPEG q75": what happened to the pixels on the way
    normalisation: Normalisation = IDENTITY

    @property
    def pixels(self) -> Tensor:
        """A float32 copy (N, C, H, W) in [0, 1]; pick the pictures you need first."""
        if self.stored.dtype == torch.uint8:
            return self.stored.float() / 255
        return self.stored.to(torch.float32, copy=True)

    @property
    def images(self) -> Tensor:
        """The pixels, normalised as the model expects: (N, C, H, W) float32."""
        return self.normalisation.normalise(self.pixels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every picture."""
        channels, height, width = self.stored.shape[1:]
        return channels, height, width

    def of_class(self, name: str) -> "Pictures":
        """Keep the pictures of one class; the labels stay as they are."""
        if name not in self.classes:
            hint = closest(name, self.classes)
            raise ValueError(f"No class {name!r} in {self!r}.{hint}")
        return self[self.labels == self.classes.index(name)]

    def resized(self, size: int) -> "Pictures":
        """Scale to size x size with antialiasing; unchanged if they have that size."""
        check_count(size, "size")
        if self.image_shape[1:] == (size, size):
            return self
        scaled = F.interpolate(
            self.pixels, (size, size), mode="bilinear", antialias=True
        )
        fidelity = f"{self.fidelity}, scaled to {size}x{size}"
        # Rounding can leave a weighted mean of ones a hair above 1.
        return replace(self, stored=scaled.clamp(0, 1), fidelity=fidelity)

    def _check(self) -> None:
        _check_stored(self.stored)
        _check_labels(self.labels, len(self.stored), len(self.classes))


@dataclass(frozen=True)
class Splits:
    """Pictures to train on, and pictures of the same classes to test with.

    Or other examples, twice.
    """

    train: Examples
    test: Examples

    def __post_init__(self) -> None:
        if self.train.classes != self.test.classes:
            raise ValueError(
                f"train and test must name the same classes in the same order, got "
                f"{self.train.num_classes} and {self.test.num_classes} classes."
            )

    def with_changes(self, **changes: object) -> "Splits":
        """Both parts with these fields of Pictures replaced."""
        return Splits(replace(self.train, **changes), replace(self.test, **changes))

    def named(self, name: str) -> "Splits":
        """Both parts under this name, which their own "train" or "test" follows."""
        return Splits(
            replace(self.train, name=f"{name} train"),
            replace(self.test, name=f"{name} test"),
        )


def split(pictures: Examples, *, test_fraction: float = 0.2, seed: int = 0) -> Splits:
    """Part pictures at random, class by class; the same seed gives the same parts.

    Every class with at least two pictures gets one or more on both sides. Examples
    whose labels are no classes are parted as if they were of one.
    """
    check_range(test_fraction, "test_fraction", 0, 1, open_low=True, open_high=True)
    generator = torch.Generator().manual_seed(seed)
    is_test = torch.zeros(len(pictures), dtype=torch.bool)
    for members in _by_class(pictures):
        order = members[torch.randperm(len(members), generator=generator)]
        is_test[order[: _num_test(len(members), test_fraction)]] = True
    if not is_test.any():
        raise ValueError(
            f"{pictures!r} cannot be split: no class has two pictures or more."
        )
    return Splits(train=pictures[~is_test], test=pictures[is_test])


def _by_class(pictures: Examples) -> list[Tensor]:
    if not pictures.is_classified:
        return [torch.arange(len(pictures))]
    labels = range(pictures.num_classes)
    return [torch.where(pictures.labels == label)[0] for label in labels]


def _num_test(count: int, test_fraction: float) -> int:
    if count < 2:
        return 0
    return min(max(round(count * test_fraction), 1), count - 1)


def measure(pictures: Pictures) -> Normalisation:
    """The normalisation with these pictures' own mean and deviation per channel."""
    total, total_square, count = 0.0, 0.0, 0
    for batch in pictures.stored.split(4096):  # a float64 copy of all may not fit
        scale = 255 if batch.dtype == torch.uint8 else 1
        values = batch.double().div(scale).transpose(0, 1).flatten(1)
        total = total + values.sum(dim=1)
        total_square = total_square + values.square().sum(dim=1)
        count += values.shape[1]
    mean = total / count
    variance = (total_square / count - mean.square()).clamp(min=0)
    # A constant channel has no spread; a tenth of a level keeps it finite.
    std = variance.sqrt().clamp(min=0.1 / 255)
    return Normalisation(tuple(mean.tolist()), tuple(std.tolist()))


def _check_stored(stored: Tensor) -> None:
    if stored.dim() != 4 or stored.numel() == 0:
        raise ValueError(
            f"pictures must be (N, C, H, W) with at least one of them, got shape "
            f"{tuple(stored.shape)}; for one picture use picture[None]."
        )
    if stored.dtype == torch.uint8:
        return
    if not stored.is_floating_point():
        raise TypeError(
            f"pictures must be uint8 levels or floats in [0, 1], got {stored.dtype}."
        )
    check_finite(stored, "pictures")
    if stored.min() < 0 or stored.max() > 1:
        raise ValueError(
            f"pixels must lie in [0, 1], got {stored.min():.3g} to "
            f"{stored.max():.3g}; are these normalised images? Denormalise them first."
        )


def _check_labels(labels: Tensor, num_pictures: int, num_classes: int) -> None:
    if labels.dtype != torch.int64:
        raise TypeError(f"labels must be int64, got {labels.dtype}.")
    if labels.shape != (num_pictures,):
        raise ValueError(
            f"{num_pictures} pictures need labels of shape ({num_pictures},), got "
            f"{tuple(labels.shape)}."
        )
    check_classes(labels, num_classes)

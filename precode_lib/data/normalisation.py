"""The way from pixels in [0, 1] to the images a model sees, and exactly back."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor


@dataclass(frozen=True)
class Normalisation:
    """Maps pixels to images = (pixels - mean) / std, channel by channel, and back.

    A single number serves every channel. Nothing is changed in place, and no result
    shares memory with its argument.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", _per_channel(self.mean, "mean"))
        object.__setattr__(self, "std", _per_channel(self.std, "std"))
        if not self.mean or len(self.mean) != len(self.std):
            raise ValueError(
                f"mean and std need one number per channel each, got {len(self.mean)} "
                f"and {len(self.std)}."
            )
        if not all(map(isfinite, self.mean)):
            raise ValueError(f"mean must be finite, got {self.mean}.")
        if not all(isfinite(s) and s > 0 for s in self.std):
            raise ValueError(f"std must be positive and finite, got {self.std}.")

    def normalise(self, pixels: Tensor) -> Tensor:
        """Turn pixels (..., C, H, W) in [0, 1] into normalised images."""
        mean, std = self._columns(pixels, "pixels")
        return (pixels - mean) / std

    def denormalise(self, images: Tensor) -> Tensor:
        """Turn normalised images (..., C, H, W) into pixels, without clipping."""
        mean, std = self._columns(images, "images")
        return images * std + mean

    @property
    def box(self) -> tuple[Tensor, Tensor]:
        """The images of a black and of a white pixel, each (C, 1, 1) float32."""
        black = torch.zeros(len(self.mean), 1, 1)
        return self.normalise(black), self.normalise(torch.ones_like(black))

    def clip(self, images: Tensor) -> Tensor:
        """Bring images (..., C, H, W) into the box, so that they are real pictures."""
        self._columns(images, "images")
        lower, upper = (side.to(images) for side in self.box)
        return images.clamp(min=lower, max=upper)

    def _columns(self, values: Tensor, name: str) -> tuple[Tensor, Tensor]:
        if not values.is_floating_point():
            raise TypeError(
                f"{name} must be floating point, got {values.dtype}; divide 8-bit "
                "values by 255 first (Pictures.pixels does)."
            )
        channels = len(self.mean)
        if values.dim() < 3 or channels not in (1, values.shape[-3]):
            raise ValueError(
                f"{name} must be (..., {channels}, H, W) for this normalisation of "
                f"{channels} channel(s), got shape {tuple(values.shape)}."
            )
        mean, std = values.new_tensor([self.mean, self.std])[:, :, None, None]
        return mean, std


def _per_channel(values: Iterable[float], name: str) -> tuple[float, ...]:
    try:
        return tuple(float(value) for value in values)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{name} needs one number per channel, such as (0.5,), got {values!r}."
        ) from error


IDENTITY = Normalisation((0.0,), (1.0,))

# Statistics of the training pictures. The paper's victim file is normalised with those
# of CIFAR-10: its 8-bit levels come back from it to within 1e-6 of a level.
CIFAR10 = Normalisation(
    (0.4914672, 0.4822617, 0.4467701), (0.2470322, 0.2434851, 0.2615879)
)
CIFAR100 = Normalisation(
    (0.5071598, 0.4866936, 0.4412019), (0.2673343, 0.2564385, 0.2761505)
)
# Of photos(), faces() and medical_mnist() with their defaults.
PHOTOS = Normalisation((0.469, 0.360, 0.324), (0.294, 0.248, 0.248))
FACES = Normalisation((0.366,), (0.263,))
MEDICAL_MNIST = Normalisation((0.358,), (0.282,))

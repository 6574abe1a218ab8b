"""In which space two pictures are compared: three named conventions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from .measures import SUCCESS_SSIM


class Normaliser(Protocol):
    """Whatever turns pixels in [0, 1] into the images a model expects."""

    def normalise(self, pixels: Tensor) -> Tensor:
        """Map pixels (N, C, H, W) to images of the same shape."""


Space = Callable[[Tensor, Normaliser | None], Tensor]


def as_pixels(pixels: Tensor, normalisation: Normaliser | None) -> Tensor:
    """Compare in [0, 1], as the eye does; the normalisation does not matter."""
    return pixels


def as_images(pixels: Tensor, normalisation: Normaliser | None) -> Tensor:
    """Compare what the model sees: normalised images, with a mean of about zero."""
    if normalisation is None:
        raise ValueError(
            "this convention compares normalised images, but normalisation is None; "
            "pass the data set's own, or use convention=UNIT."
        )
    return normalisation.normalise(pixels)


def as_scaled(pixels: Tensor, normalisation: Normaliser | None) -> Tensor:
    """Stretch each normalised image to fill [0, 1]; blind to brightness and contrast.

    A constant image becomes all ones, the limit of the published
    1 - (max - x) / (max - min + 1e-5).
    """
    images = as_images(pixels, normalisation)
    highest = images.amax(dim=(1, 2, 3), keepdim=True)
    spread = highest - images.amin(dim=(1, 2, 3), keepdim=True)
    return 1 - (highest - images) / spread.where(spread > 0, 1)


@dataclass(frozen=True)
class Convention:
    """In which space, and with which constants, each metric is taken."""

    name: str
    mse_space: Space
    psnr_space: Space
    ssim_space: Space
    peak: float = 1.0  # of PSNR
    data_range: float = 1.0  # of SSIM
    clip_ssim: bool = False  # negative similarity counts as none
    success_ssim: float = SUCCESS_SSIM


UNIT = Convention("unit", as_pixels, as_pixels, as_pixels)
# Fitted to the paper's tables: MSE and PSNR reproduce five rows to 0.01 dB; SSIM is
# the best fit, not proof (data_range 2 was scikit-image 0.17's default for floats).
PAPER = Convention(
    "paper", as_images, as_scaled, as_scaled, data_range=2.0, clip_ssim=True
)
# The paper's public notebook computes SSIM only; MSE and PSNR are our addition.
NOTEBOOK = Convention(
    "notebook", as_images, as_pixels, as_images, data_range=2.0, clip_ssim=True
)

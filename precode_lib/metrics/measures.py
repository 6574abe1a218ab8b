"""MSE, PSNR and SSIM of each picture of a batch, in whatever space it comes."""

import numpy as np
import torch
from torch import Tensor

from precode_lib.basics.validation import check_images, check_range

WINDOW = 7  # side of SSIM's uniform window, in pixels: scikit-image's default
SUCCESS_SSIM = 0.6  # Scheliga et al. 2022, section 4: an attack succeeded from here on
_CHUNK = 16  # pictures per SSIM call: more only leave the processor's cache


def mse(originals: Tensor, recovered: Tensor) -> Tensor:
    """Mean squared error of each picture, (N, C, H, W) twice → (N,), in float64."""
    check_alike(originals, recovered)
    return (originals.double() - recovered.double()).square().mean(dim=(1, 2, 3))


def psnr(originals: Tensor, recovered: Tensor, *, peak: float = 1.0) -> Tensor:
    """Peak signal-to-noise ratio of each picture in dB, (N,); inf where exact."""
    check_range(peak, "peak", low=0, open_low=True)
    return 10 * torch.log10(peak**2 / mse(originals, recovered))


def ssim(originals: Tensor, recovered: Tensor, *, data_range: float = 1.0) -> Tensor:
    """Structural similarity of each picture, (N,), as scikit-image's defaults have it.

    That is: 7x7 uniform window, sample covariance, no padding, mean over channels.
    """
    _check_ssim(originals, recovered, data_range)
    chunks = zip(originals.split(_CHUNK), recovered.split(_CHUNK), strict=True)
    return torch.cat([_ssim(x.double(), y.double(), data_range) for x, y in chunks])


def _ssim(x: Tensor, y: Tensor, data_range: float) -> Tensor:
    """Wang et al. 2004, eq. 13, with sample (co)variances; float64 against cancelling.

    Zero-mean pictures make the luminance factor negative, so that two wrongs (a
    negative of the picture) multiply to a right: compare in [0, 1].
    """
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    unbias = WINDOW**2 / (WINDOW**2 - 1)
    moments = torch.stack([x, y, x * x + y * y, x * y])
    mu_x, mu_y, squares, product = _window_means(moments)
    variances = unbias * (squares - mu_x**2 - mu_y**2)
    covariance = unbias * (product - mu_x * mu_y)
    luminance = (2 * mu_x * mu_y + c1) / (mu_x**2 + mu_y**2 + c1)
    return (luminance * (2 * covariance + c2) / (variances + c2)).mean(dim=(1, 2, 3))


def _window_means(maps: Tensor) -> Tensor:
    """Mean over every whole window, (…, H, W) → (…, H - 6, W - 6)."""
    # Two products with band matrices: five times faster than avg_pool2d.
    height, width = maps.shape[-2:]
    return _band(height, maps) @ maps @ _band(width, maps).mT


def _band(size: int, like: Tensor) -> Tensor:
    """Row i averages the window that starts at i."""
    ones = like.new_ones(size - WINDOW + 1, size)
    return ones.triu().tril(WINDOW - 1) / WINDOW


def reference_ssim(
    originals: Tensor, recovered: Tensor, *, data_range: float = 1.0
) -> Tensor:
    """`ssim` as computed by scikit-image, one picture at a time: the slow oracle."""
    _check_ssim(originals, recovered, data_range)
    from skimage.metrics import structural_similarity  # heavy, and only needed here

    pictures = zip(_arrays(originals), _arrays(recovered), strict=True)
    return torch.tensor(
        [
            structural_similarity(x, y, data_range=data_range, channel_axis=0)
            for x, y in pictures
        ],
        dtype=torch.float64,
    )


def relative_error(originals: Tensor, recovered: Tensor) -> Tensor:
    """|guess - original| / |original| of each example, (N, ...) twice -> (N,).

    For what is no picture. An example of zeros has no length: its error counts as it
    is.
    """
    check_same_shape(originals, recovered)
    lengths = originals.flatten(1).norm(dim=1)
    off = (recovered - originals).flatten(1).norm(dim=1)
    return off / lengths.where(lengths > 0, 1)


def is_success(similarity: Tensor, *, threshold: float = SUCCESS_SSIM) -> Tensor:
    """Tell which attacks succeeded: an SSIM equal to the threshold is enough."""
    return similarity >= threshold


def check_alike(originals: Tensor, recovered: Tensor) -> None:
    """Refuse anything but two batches of images of one shape."""
    check_images(originals, "originals")
    check_images(recovered, "recovered")
    check_same_shape(originals, recovered)


def check_same_shape(originals: Tensor, recovered: Tensor) -> None:
    """Refuse pictures that cannot be compared one to one."""
    if originals.shape != recovered.shape:
        raise ValueError(
            f"originals {tuple(originals.shape)} and recovered "
            f"{tuple(recovered.shape)} must have the same shape."
        )


def _arrays(pictures: Tensor) -> np.ndarray:
    return pictures.detach().cpu().double().numpy()


def _check_ssim(originals: Tensor, recovered: Tensor, data_range: float) -> None:
    check_alike(originals, recovered)
    check_range(data_range, "data_range", low=0, open_low=True)
    if min(originals.shape[-2:]) < WINDOW:
        raise ValueError(
            f"SSIM needs pictures of at least {WINDOW}x{WINDOW} pixels, "
            f"got {tuple(originals.shape[-2:])}."
        )

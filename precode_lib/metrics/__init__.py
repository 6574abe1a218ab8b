"""How much of a picture came back: MSE, PSNR, SSIM and attack success, per picture.

A number without its convention is an anecdote: the same pictures score an SSIM of
-0.6 or of 0.9 according to the space they are compared in. A `Convention` names the
space of every metric; `score` takes pixels in [0, 1] and does the rest.
"""

from precode_lib.basics.thresholds import CLOSE

from .conventions import (
    NOTEBOOK,
    PAPER,
    UNIT,
    Convention,
    Normaliser,
    as_images,
    as_pixels,
    as_scaled,
)
from .intervals import exact_interval
from .measures import (
    SUCCESS_SSIM,
    is_success,
    mse,
    psnr,
    reference_ssim,
    relative_error,
    ssim,
)
from .pairing import pair, reorder
from .scores import PSNR_CAP, Scores, Summary, score

__all__ = [
    "CLOSE",
    "NOTEBOOK",
    "PAPER",
    "PSNR_CAP",
    "SUCCESS_SSIM",
    "UNIT",
    "Convention",
    "Normaliser",
    "Scores",
    "Summary",
    "as_images",
    "as_pixels",
    "as_scaled",
    "exact_interval",
    "is_success",
    "mse",
    "pair",
    "psnr",
    "reference_ssim",
    "relative_error",
    "reorder",
    "score",
    "ssim",
]

"""All metrics of a batch in one convention, per picture and summarised."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite, nan
from typing import NamedTuple

from torch import Tensor

from precode_lib.basics.validation import check_finite

from .conventions import UNIT, Convention, Normaliser, Space
from .measures import check_alike, is_success, mse, psnr, ssim

PSNR_CAP = 100.0  # dB (MSE 1e-10); rounding to 8 bits alone costs all above 58.9 dB
PIXEL_TOLERANCE = 1e-3  # a quarter of an 8-bit level: forgives float32, nothing else


class Summary(NamedTuple):
    """One number per metric, over all pictures."""

    mse: float
    psnr: float  # dB, after PSNR_CAP
    ssim: float


@dataclass(frozen=True, eq=False)
class Scores:
    """The metrics of N pictures, each (N,), in one convention, on the CPU.

    `psnr` is inf for an exactly recovered picture. `mean` and `std` count every
    PSNR above PSNR_CAP as PSNR_CAP, and `num_capped` says how many that were: an
    infinite mean would hide all other pictures, leaving the exact ones out would
    make a better attack look worse.
    """

    convention: Convention
    mse: Tensor
    psnr: Tensor
    ssim: Tensor
    success: Tensor

    def __len__(self) -> int:
        return len(self.mse)

    @property
    def asr(self) -> float:
        """Attack success rate: the share of successes, in [0, 1]."""
        return self.success.double().mean().item()

    @property
    def num_capped(self) -> int:
        """How many pictures' PSNR enter `mean` and `std` as PSNR_CAP."""
        return int((self.psnr > PSNR_CAP).sum())

    @property
    def mean(self) -> Summary:
        """Mean over the pictures."""
        return Summary(*(values.mean().item() for values in self._summable()))

    @property
    def std(self) -> Summary:
        """Sample standard deviation over the pictures; NaN for a single one."""
        if len(self) == 1:
            return Summary(nan, nan, nan)
        return Summary(*(values.std().item() for values in self._summable()))

    def to_dict(self) -> dict[str, object]:
        """Everything as JSON knows it: None for an infinite PSNR and an absent std."""
        return {
            "convention": self.convention.name,
            "asr": self.asr,
            "mean": self.mean._asdict(),
            "std": dict(zip(Summary._fields, _finite(self.std), strict=True)),
            "psnr_cap": PSNR_CAP,
            "num_capped": self.num_capped,
            "mse": self.mse.tolist(),
            "psnr": _finite(self.psnr.tolist()),
            "ssim": self.ssim.tolist(),
            "success": self.success.tolist(),
        }

    def __repr__(self) -> str:
        mean, std = self.mean, self.std
        capped = f" ({self.num_capped} capped)" if self.num_capped else ""
        return (
            f"Scores({self.convention.name}, N={len(self)}: "
            f"MSE {mean.mse:.3g} ± {std.mse:.2g}, "
            f"PSNR {mean.psnr:.2f} ± {std.psnr:.2f} dB{capped}, "
            f"SSIM {mean.ssim:.3f} ± {std.ssim:.3f}, ASR {self.asr:.1%})"
        )

    def _summable(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.mse, self.psnr.clamp(max=PSNR_CAP), self.ssim


def score(
    originals: Tensor,
    recovered: Tensor,
    *,
    convention: Convention = UNIT,
    normalisation: Normaliser | None = None,
) -> Scores:
    """Score each recovered picture against its original; both are pixels in [0, 1].

    Only conventions that look at normalised images use the normalisation. Clamp what
    an attack without a box left outside [0, 1] before you show or score it.

    >>> import torch
    >>> from precode_lib.metrics import score
    >>> black, dark = torch.zeros(2, 3, 16, 16), torch.full((2, 3, 16, 16), 0.1)
    >>> score(black, dark).psnr.round(decimals=3)
    tensor([20., 20.], dtype=torch.float64)
    >>> score(dark, dark).asr
    1.0
    """
    check_alike(originals, recovered)
    if not isinstance(convention, Convention):
        kind = type(convention).__name__
        raise TypeError(f"convention must be one such as PAPER, got {kind}.")
    _check_unit_range(originals, "originals")
    _check_unit_range(recovered, "recovered")
    # On the CPU: some accelerators have no float64, and N pictures are little work.
    pixels = [picture.detach().cpu().double() for picture in (originals, recovered)]

    def seen_in(space: Space) -> list[Tensor]:
        return [space(p, normalisation) for p in pixels]

    similarity = ssim(*seen_in(convention.ssim_space), data_range=convention.data_range)
    if convention.clip_ssim:
        similarity = similarity.clamp(min=0)
    return Scores(
        convention,
        mse=mse(*seen_in(convention.mse_space)),
        psnr=psnr(*seen_in(convention.psnr_space), peak=convention.peak),
        ssim=similarity,
        success=is_success(similarity, threshold=convention.success_ssim),
    )


def _finite(values: Iterable[float]) -> list[float | None]:
    return [value if isfinite(value) else None for value in values]


def _check_unit_range(pixels: Tensor, name: str) -> None:
    # NaN would count as a picture that was not found.
    check_finite(pixels, name)
    low, high = pixels.min().item(), pixels.max().item()
    if low < -PIXEL_TOLERANCE or high > 1 + PIXEL_TOLERANCE:
        raise ValueError(
            f"{name} must be pixels in [0, 1], got [{low:.3g}, {high:.3g}]: probably "
            "normalised images; denormalise first (and clamp an unboxed attack's), or "
            "divide 8-bit levels by 255."
        )

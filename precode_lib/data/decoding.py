"""From the bytes of a picture file to an array, and what the file did to the pixels."""

from collections.abc import Iterable
from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm")
_GREY_MODES = ("1", "L", "LA")
_COLOUR_MODES = ("P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
_LOSSLESS_FORMATS = ("PNG", "BMP", "GIF", "TIFF", "PPM")

# The first entries of the luminance table in the JPEG standard, annex K (quality 50).
_JPEG_LUMINANCE = np.array([16, 11, 10, 16, 24, 40, 51, 61])


def decode(content: bytes, name: str, *, size: int | None) -> tuple[np.ndarray, str]:
    """Decode to uint8 (H, W) if grey, else (H, W, 3); and say how it was coded.

    With a size, the middle square is scaled to size x size.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    unreadable = (UnidentifiedImageError, OSError, SyntaxError, ValueError)
    try:
        with Image.open(BytesIO(content)) as image:
            coding = _coding(image)
            if "exif" in image.info:  # phones store the upright direction there
                ImageOps.exif_transpose(image, in_place=True)
            plain = image.convert(_target_mode(image, name))
    except (*unreadable, Image.DecompressionBombError) as problem:
        raise ValueError(f"{name} is not a picture we can read: {problem}") from problem
    if size is not None:
        plain = plain.crop(_middle_square(*plain.size))
        plain = scaled(plain, size)
    return np.asarray(plain), coding


def scaled(square: "Image.Image", size: int) -> "Image.Image":
    """Scale a square PIL image to size x size, antialiased."""
    from PIL import Image

    return square.resize((size, size), Image.Resampling.BICUBIC)


def fidelity_of(codings: Iterable[str]) -> str:
    """One label for all pictures of a set: "lossless", or the lossy codings in it."""
    return ", ".join(sorted(set(codings) - {"lossless"})) or "lossless"


def _target_mode(image: "Image.Image", name: str) -> str:
    if image.mode in _GREY_MODES:
        return "L"
    if image.mode in _COLOUR_MODES:
        return "RGB"
    raise ValueError(f"{image.mode} pixels are not 8-bit; save {name} as 8-bit PNG.")


def _middle_square(width: int, height: int) -> tuple[int, int, int, int]:
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def _coding(image: "Image.Image") -> str:
    if image.format in _LOSSLESS_FORMATS:
        return "lossless"
    if image.format != "JPEG":
        return str(image.format)
    quality = _jpeg_quality(tuple(image.quantization.get(0, ())[:8]))
    return "JPEG" if quality is None else f"JPEG q{quality}"


@cache  # thousands of files share a table
def _jpeg_quality(table: tuple[int, ...]) -> int | None:
    """The libjpeg quality whose luminance table begins like this, if one does."""
    for quality in range(100, 0, -1):
        scale = 5000 // quality if quality < 50 else 200 - 2 * quality
        made = ((_JPEG_LUMINANCE * scale + 50) // 100).clip(1, 255)
        if tuple(made) == table:
            return quality
    return None

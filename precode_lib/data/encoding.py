"""Pixels as a file of a picture, for pages and results that carry their own."""

import base64
import io

from torch import Tensor


def png_base64(pixels: Tensor) -> str:
    """(C, H, W) in [0, 1], C 1 or 3, as a PNG in base64, as small as it gets."""
    from PIL import Image  # heavy, and most who use pictures write none

    levels = (pixels * 255).round().byte().permute(1, 2, 0).squeeze(-1).cpu().numpy()
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, format="PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()

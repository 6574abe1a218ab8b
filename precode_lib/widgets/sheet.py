"""All pictures of a figure in one image, each stored once."""

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from PIL import Image

from precode_lib.plots import Panel, data_uri, pixelated, to_image

GUTTER = 1  # pixels around a tile, so that scaling mixes no neighbour in
_LARGEST_SHEET = 16383  # pixels along a side; WebP allows no more
_EXACT_BYTES = 32_000  # sheets up to here keep every level
_LEVELS = 32  # per channel in larger sheets: off by at most 4 of 255


@dataclass(frozen=True)
class Sheet:
    """Rows and columns of tiles, and which of them each panel of a frame shows."""

    uri: str
    tiles: list[list[int]]  # for each frame, the tile of each panel
    columns: int
    rows: int
    width: int
    height: int

    @classmethod
    def of(cls, frames: Sequence[Sequence[Panel]]) -> "Sheet":
        """The sheet of all different pictures, in the order of their appearance."""
        pictures: dict[bytes, Image.Image] = {}
        keys = []
        for frame in frames:
            images = [to_image(panel.pixels) for panel in frame]
            keys.append([image.tobytes() for image in images])
            pictures.update(zip(keys[-1], images, strict=True))
        place = {key: index for index, key in enumerate(pictures)}
        tiles = [[place[key] for key in row] for row in keys]
        columns = math.ceil(math.sqrt(len(pictures)))
        sheet = _paste(list(pictures.values()), columns)
        width, height = next(iter(pictures.values())).size
        rows = math.ceil(len(pictures) / columns)
        coarse = bool(pixelated(frames[0][0]))  # every pixel will be seen
        return cls(_encode(sheet, exact=coarse), tiles, columns, rows, width, height)

    @property
    def name(self) -> str:
        """An identifier that two different figures do not share."""
        return f"precode-{zlib.crc32(self.uri.encode()):08x}"

    @property
    def layout(self) -> dict:
        """What slider.js needs to find a tile."""
        names = ("columns", "rows", "width", "height", "tiles")
        return {**{name: getattr(self, name) for name in names}, "gutter": GUTTER}

    def picture_html(self, panel: Panel, tile: int) -> str:
        """An element that shows one tile."""
        row, column = divmod(tile, self.columns)
        x = _share(column, self.width, self.columns)
        y = _share(row, self.height, self.rows)
        wide = 100 * self.columns * (self.width + 2 * GUTTER) / self.width
        high = 100 * self.rows * (self.height + 2 * GUTTER) / self.height
        return (
            f'<div class="precode-picture{pixelated(panel)}" role="img" '
            f'aria-label="{escape(panel.label)}" style="background-image:var(--sheet);'
            f"aspect-ratio:{self.width}/{self.height};"
            f"background-size:{wide:.4f}% {high:.4f}%;"
            f'background-position:{x:.4f}% {y:.4f}%"></div>'
        )


def _share(index: int, size: int, count: int) -> float:
    """Where a tile starts, in the percentage that CSS background-position wants."""
    stride = size + 2 * GUTTER
    return 100 * (index * stride + GUTTER) / (count * stride - size)


def _paste(images: Sequence[Image.Image], columns: int) -> Image.Image:
    width, height = (side + 2 * GUTTER for side in images[0].size)
    rows = math.ceil(len(images) / columns)
    if max(columns * width, rows * height) > _LARGEST_SHEET:
        raise ValueError(
            f"{len(images)} pictures of {images[0].size} do not fit into one sheet; "
            "use fewer values or smaller pictures."
        )
    sheet = Image.new("RGB", (columns * width, rows * height))
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        # Stretching first fills the gutter with the picture's own edge.
        sheet.paste(image.resize((width, height)), (column * width, row * height))
        corner = (column * width + GUTTER, row * height + GUTTER)
        sheet.paste(image, corner)
    return sheet


def _encode(sheet: Image.Image, *, exact: bool) -> str:
    large = sheet.width * sheet.height > 2**20
    if large and not exact:  # lossless would take seconds and megabytes
        return data_uri(sheet, format="WEBP", quality=80, method=4)
    method = 2 if large else 6
    unchanged = data_uri(sheet, format="WEBP", lossless=True, method=method)
    if len(unchanged) * 3 / 4 <= _EXACT_BYTES:
        return unchanged
    # Not lossy WebP: it halves the colours' resolution, which ruins small noisy
    # pictures (PSNR 13 dB). Rounding the levels keeps every pixel and is bounded.
    step = 255 / (_LEVELS - 1)
    table = [round(round(level / step) * step) for level in range(256)]
    rounded = sheet.point(table * 3)
    return data_uri(rounded, format="WEBP", lossless=True, method=method)

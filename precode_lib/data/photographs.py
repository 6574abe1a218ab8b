"""The embedded default: photographs that ship inside scikit-image. No network."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from precode_lib.basics.validation import check_count
from precode_lib.data import normalisation
from precode_lib.data.crops import CROPS
from precode_lib.data.decoding import scaled
from precode_lib.data.pictures import Pictures, Splits, split

if TYPE_CHECKING:
    from PIL import Image

# Class -> file in the scikit-image wheel; coins and cameraman are grey.
FILES = {
    "astronaut": "astronaut.png",
    "cat": "chelsea.png",
    "coffee": "coffee.png",
    "rocket": "rocket.jpg",
    "motorcycle": "motorcycle_left.png",
    "cameraman": "camera.png",
    "retina": "retina.jpg",
    "histology": "ihc.png",
    "hubble": "hubble_deep_field.jpg",
    "coins": "coins.png",
}
CLASSES = tuple(FILES)
_GRID = 3  # cells per row and column of a photograph
_FIDELITY = "scaled down from scikit-image's photographs"


def photos(
    size: int = 32, *, num_train: int = 4000, num_test: int = 1000, seed: int = 0
) -> Splits:
    """Cut random squares out of ten photographs; the class is the photograph.

    Each photograph is divided into 3x3 cells; squares for testing come from three of
    them (one per row and column) and never share a pixel with those for training.
    """
    _check_sizes(size, num_train, num_test)
    generator = torch.Generator().manual_seed(seed)
    return Splits(
        train=_random_crops("train", num_train, size, generator),
        test=_random_crops("test", num_test, size, generator),
    )


def placed_crops(size: int = 32) -> Pictures:
    """All hand-placed crops, scaled to size x size, the classes taking turns."""
    check_count(size, "size")
    crops = [(c.label, (c.left, c.top, c.side)) for c in CROPS]
    return _cut(crops, size, "photos")


def faces(size: int = 32, *, test_fraction: float = 0.2, seed: int = 0) -> Splits:
    """Load 100 faces and 100 backgrounds of LFW, 1x25x25 scaled to 1 x size x size."""
    check_count(size, "size")
    raw = np.load(_file("lfw_subset.npy"), allow_pickle=False)
    pixels = torch.from_numpy(raw).float()[:, None]
    pixels = F.interpolate(pixels, (size, size), mode="bilinear", align_corners=False)
    everything = Pictures(
        stored=pixels.clamp(0, 1),
        labels=torch.arange(2).repeat_interleave(100),  # the file's own order
        classes=("face", "background"),
        name="LFW crops",
        fidelity=f"25x25 scaled to {size}x{size}",
        normalisation=normalisation.FACES,
    )
    splits = split(everything, test_fraction=test_fraction, seed=seed)
    return splits.named(everything.name)


def crop_boxes(
    width: int, height: int, part: str, count: int, generator: torch.Generator
) -> Tensor:
    """Draw squares (left, top, side) inside the cells of one part: (count, 3) int64.

    Part is "train" or "test". Sides are between half and all of a cell's shorter side.
    """
    cells = [
        (row, column)
        for row in range(_GRID)
        for column in range(_GRID)
        if ((row + 1) % _GRID == column) == (part == "test")
    ]
    chosen = torch.randint(len(cells), (count,), generator=generator)
    row, column = torch.tensor(cells)[chosen].T
    uniform = torch.rand(3, count, generator=generator)
    cell_width, cell_height = width // _GRID, height // _GRID
    shorter = min(cell_width, cell_height)
    side = (shorter * (0.5 + 0.5 * uniform[0])).long().clamp(1, shorter)
    left = column * cell_width + (uniform[1] * (cell_width - side + 1)).long()
    top = row * cell_height + (uniform[2] * (cell_height - side + 1)).long()
    return torch.stack([left, top, side], dim=1)


def _random_crops(
    part: str, count: int, size: int, generator: torch.Generator
) -> Pictures:
    boxes = {}
    for label in CLASSES:
        per_class = -(-count // len(CLASSES))
        size_of = photograph(label).size
        boxes[label] = crop_boxes(*size_of, part, per_class, generator).tolist()
    labels = [CLASSES[i % len(CLASSES)] for i in range(count)]
    crops = [(c, tuple(boxes[c][i // len(CLASSES)])) for i, c in enumerate(labels)]
    return _cut(crops, size, f"photos {part}")


def _cut(
    crops: list[tuple[str, tuple[int, int, int]]], size: int, name: str
) -> Pictures:
    stored = np.empty((len(crops), size, size, 3), np.uint8)
    for row, (label, (left, top, side)) in zip(stored, crops, strict=True):
        # Cropped before it is scaled: PIL's own box argument looks beyond its border.
        square = photograph(label).crop((left, top, left + side, top + side))
        row[:] = np.asarray(scaled(square, size))
    return Pictures(
        stored=torch.from_numpy(stored).permute(0, 3, 1, 2).contiguous(),
        labels=torch.tensor([CLASSES.index(label) for label, _ in crops]),
        classes=CLASSES,
        name=name,
        fidelity=_FIDELITY,
        normalisation=normalisation.PHOTOS,
    )


@cache
def photograph(label: str) -> "Image.Image":
    """The whole photograph of a class, as an RGB PIL image; treat it as read-only."""
    from PIL import Image

    with Image.open(_file(FILES[label])) as image:
        return image.convert("RGB")


def _file(name: str) -> Path:
    spec = find_spec("skimage")  # finds the folder without importing the package
    folders = spec.submodule_search_locations if spec else ()
    for folder in folders:
        file = Path(folder, "data", name)
        if file.is_file():
            return file
    raise FileNotFoundError(
        f"scikit-image's own picture {name} is not installed; some Linux packages "
        "leave the pictures out. `pip install scikit-image` brings them."
    )


def _check_sizes(size: int, num_train: int, num_test: int) -> None:
    check_count(size, "size")
    check_count(num_train, "num_train", len(CLASSES))  # at least one per photograph
    check_count(num_test, "num_test", len(CLASSES))

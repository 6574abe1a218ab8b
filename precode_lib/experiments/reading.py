"""The former address of `shelf`, which the chapters go on to use."""

from precode_lib.experiments.shelf import (
    ATTACKS,
    DEFENSES,
    METRICS,
    MODELS,
    Ends,
    Shelf,
    nearest,
    originals,
    pictures_of,
    side_by_side,
)

__all__ = [
    "ATTACKS",
    "DEFENSES",
    "METRICS",
    "MODELS",
    "Ends",
    "Shelf",
    "nearest",
    "originals",
    "pictures_of",
    "side_by_side",
]

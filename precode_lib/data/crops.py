"""Forty recognisable squares, placed by hand in ten photographs."""

from typing import NamedTuple


class Crop(NamedTuple):
    """A square of `side` pixels in the photograph of a class."""

    label: str
    title: str
    left: int
    top: int
    side: int


# In rounds through the ten classes, the most telling squares first. No side is below
# 64, so that a 64x64 picture invents no pixels.
CROPS = (
    Crop("astronaut", "her face", 150, 14, 160),
    Crop("cat", "its face", 60, 0, 300),
    Crop("coffee", "cup and saucer", 60, 0, 400),
    Crop("rocket", "on its pad", 200, 150, 277),
    Crop("motorcycle", "almost all of it", 130, 0, 500),
    Crop("cameraman", "at work", 130, 40, 220),
    Crop("retina", "all of it", 0, 0, 1411),
    Crop("histology", "a gland", 236, 295, 160),
    Crop("hubble", "a star", 715, 540, 76),
    Crop("coins", "a standing figure", 300, 8, 72),
    Crop("astronaut", "model shuttle", 290, 60, 222),
    Crop("cat", "both eyes", 120, 60, 240),
    Crop("coffee", "from above", 165, 10, 240),
    Crop("rocket", "floodlights", 100, 340, 87),
    Crop("motorcycle", "rear wheel", 110, 220, 200),
    Crop("cameraman", "his head", 150, 55, 130),
    Crop("retina", "optic disc", 50, 450, 400),
    Crop("histology", "a curved border", 0, 230, 180),
    Crop("hubble", "a spiral galaxy", 90, 365, 70),
    Crop("coins", "a helmet", 240, 161, 66),
    Crop("astronaut", "portrait", 90, 0, 300),
    Crop("cat", "left eye", 120, 70, 110),
    Crop("coffee", "the spoon", 310, 210, 110),
    Crop("rocket", "nose cone", 285, 115, 80),
    Crop("motorcycle", "front wheel", 490, 250, 210),
    Crop("cameraman", "the tripod", 215, 280, 230),
    Crop("retina", "vessels", 350, 80, 420),
    Crop("histology", "a cleft", 250, 0, 210),
    Crop("hubble", "an orange galaxy", 670, 420, 110),
    Crop("coins", "a face", 179, 161, 66),
    Crop("astronaut", "mission patch", 124, 338, 96),
    Crop("cat", "its nose", 200, 180, 120),
    Crop("coffee", "the handle", 180, 200, 120),
    Crop("rocket", "most of it", 250, 110, 150),
    Crop("motorcycle", "fuel tank", 320, 140, 170),
    Crop("cameraman", "a tower", 380, 100, 100),
    Crop("retina", "the fovea", 480, 480, 440),
    Crop("histology", "cells", 258, 320, 120),
    Crop("hubble", "three galaxies", 265, 275, 100),
    Crop("coins", "a profile", 312, 152, 72),
)

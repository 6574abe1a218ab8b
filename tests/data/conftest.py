"""Pictures made on the spot, an empty cache for every test, and no network but ours."""

from pathlib import Path

import pytest
from picture_files import write_picture


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache folder that no other test sees."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("PRECODE_DATA", str(folder))
    return folder


@pytest.fixture
def tree(tmp_path) -> Path:
    """A folder of 2 classes, 5 colour PNGs of 8x8 in each, not divided in parts."""
    folder = tmp_path / "tree"
    for label in ("cat", "dog"):
        for i in range(5):
            write_picture(folder / label / f"{i}.png", seed=10 * (label == "cat") + i)
    return folder

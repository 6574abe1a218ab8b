"""A laboratory over the embedded photographs, which are cut once for all tests."""

from dataclasses import replace
from pathlib import Path

import pytest

from precode_lib.experiments import Lab, Store


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache folder: no test finds a data set that happens to be here."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("PRECODE_DATA", str(folder))
    return folder


@pytest.fixture(scope="session")
def loaded() -> Lab:
    return Lab(work=Path("never-used"))


@pytest.fixture
def lab(loaded, tmp_path) -> Lab:
    """A fresh folder for unfinished work; pictures are shared with other tests."""
    return replace(loaded, work=tmp_path / "work")


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "results")

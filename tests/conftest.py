"""What every test may use: a seeded generator, and one thread for tiny tensors."""

import os
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# The clock of a busy machine says nothing about the code.
settings.register_profile("book", settings(), deadline=None)
settings.load_profile("book")
# Tiny tensors lose more to starting threads than they win, and sums stay repeatable.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the kernels of the chapters, too


@pytest.fixture
def generator() -> torch.Generator:
    """A fresh generator, seeded alike for every test."""
    return torch.Generator().manual_seed(0)


@pytest.fixture
def script_at(monkeypatch):
    """From a file that is no part of a package to its module, loaded for this test."""
    root = Path(__file__).resolve().parents[1]

    def load(place: str):
        file = root / place
        monkeypatch.syspath_prepend(str(file.parent))  # neighbours import each other
        spec = spec_from_file_location(file.stem, file)
        module = module_from_spec(spec)
        monkeypatch.setitem(sys.modules, file.stem, module)  # dataclasses look there
        spec.loader.exec_module(module)
        return module

    return load

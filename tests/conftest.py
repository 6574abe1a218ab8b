"""What every test may use: a seeded generator, and one thread for tiny tensors."""

import os

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

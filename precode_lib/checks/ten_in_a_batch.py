"""Markers for the exercises on batches that come apart."""

from functools import cache

import torch
from torch import Tensor

from precode_lib.attacks import isolated_inputs, spear
from precode_lib.data import Pictures
from precode_lib.federated import Observation, observe
from precode_lib.marking import exercise, expect, expect_close, expect_number
from precode_lib.models import smlp

NOTEBOOKS_USE = ["WIDTHS", "apart", "single"]
WIDTHS = [12, 16, 24, 32, 64, 128, 256, 512, 1024, 2048]


@exercise
def by_hand(zeros, pictures, generator):
    """Multiply the shares out that the matrices of the text were made of."""
    images = torch.tensor([[1.0, 2.0], [3.0, 1.0]])
    shares = torch.tensor([[2.0, 1, 0, 0, -1], [0, 1, -1, 3, 0]])
    G = shares.T @ images
    right = []
    for row in G[:3]:
        q = torch.stack([row[1], -row[0]])  # at right angles
        right.append(int(((G @ q).abs() < 1e-6).sum()))
    counts = torch.tensor(right).float()
    expect_close(
        zeros,
        counts,
        what="zeros",
        secret=True,
        hint="the direction of unit 1 is (1, -1/2); count the zeros of G q, the unit's "
        "own among them.",
        mistakes={
            "count the zero of the drawn unit, too.": counts - 1,
            "these are the entries that are not zero.": 5 - counts,
        },
    )
    found = expect_close(
        torch.as_tensor(pictures).float().sort(0).values
        if isinstance(pictures, list)
        else pictures,
        images.sort(0).values,
        what="pictures",
        secret=True,
        hint="",
    )

"""Attack a cell's victims, and say which of many pictures each guess is nearest to."""

from dataclasses import replace

import torch
from torch import Tensor

from precode_lib.data import Pictures
from precode_lib.experiments.bench import Bench
from precode_lib.experiments.cells import Run
from precode_lib.experiments.runs.attack import attacked
from precode_lib.experiments.runs.judging import judged, last_guesses, storable


def run(cell, bench: Bench) -> Run:
    """Attack, judge, and rank each victim's picture among the others."""
    victims, others = bench.pictures
    found = yield from attacked(cell, bench)
    truths, guesses = last_guesses(found, victims)
    among = others.pixels if isinstance(others, Pictures) else others.images
    notes = {**found.notes, "rank": ranks(guesses, truths, among).tolist()}
    return judged(replace(found, notes=notes), victims, storable(victims, cell))


def ranks(guesses: Tensor, truths: Tensor, others: Tensor) -> Tensor:
    """The place of each true picture among the others, nearest to the guess first.

    By mean squared error, (N, ...) each; 1 is the nearest, and who ties with others
    comes after them. A victim that is among the others counts once.
    """
    flat, true = guesses.flatten(1).double(), truths.flatten(1).double()
    there = others.flatten(1).double()
    own = (flat - true).square().sum(1, keepdim=True)
    # Differences, not products: a guess may be exact, and then nothing may cancel.
    exactly = "donot_use_mm_for_euclid_dist"
    distances = torch.cdist(flat, there, compute_mode=exactly).square()
    is_itself = torch.cdist(true, there, compute_mode=exactly) == 0
    return 1 + ((distances <= own) & ~is_itself).sum(1)

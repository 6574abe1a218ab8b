"""Attack a cell's victims, and say which of many pictures each guess is nearest to."""

from dataclasses import replace

import torch
from torch import Tensor

from precode_lib.experiments.bench import Bench, Found
from precode_lib.experiments.cells import Run
from precode_lib.experiments.runs import attack


def run(cell, bench: Bench) -> Run:
    """Attack, judge, and rank each victim's picture among the others."""
    victims, others = bench.pictures
    found = yield from attack.attacked(cell, bench)
    ranked = replace(
        found, notes={**found.notes, "rank": _ranks(found, victims, others)}
    )
    return attack.judged(ranked, victims, attack.storable(victims, cell))


def _ranks(found: Found, victims, others) -> list[int]:
    pixels = victims.normalisation.denormalise(found.last.cpu().float()).clamp(0, 1)
    guesses = attack.paired(victims.pixels, pixels)
    return ranks(guesses, victims.pixels, others.pixels).tolist()


def ranks(guesses: Tensor, truths: Tensor, others: Tensor) -> Tensor:
    """The place of each true picture among the others, nearest to the guess first.

    By mean squared error of pixels, (N, C, H, W) each; 1 is the nearest, and who ties
    with others comes after them. A victim that is among the others counts once.
    """
    flat = guesses.flatten(1).double()
    own = (flat - truths.flatten(1).double()).square().sum(1)
    there = others.flatten(1).double()
    distances = torch.cdist(flat, there, compute_mode="donot_use_mm_for_euclid_dist")
    is_itself = (truths.flatten(1)[:, None] == others.flatten(1)).all(2)
    nearer = (distances.square() <= own[:, None]) & ~is_itself
    return 1 + nearer.sum(1)

"""Compare the gradients of the same pictures under one draw of noise and the next."""

import torch

from precode_lib.experiments.bench import Bench
from precode_lib.experiments.cells import Progress, Run
from precode_lib.experiments.runs.attack import observed
from precode_lib.gradients import cosine_similarity


def run(cell, bench: Bench) -> Run:
    """The cosine of each picture's gradient to the one drawn before, on average."""
    model, noise = bench.model().eval(), bench.generator("noise")
    last = None
    cosines = []
    for draw in range(cell.draws):
        yield Progress(draw, cell.draws)
        shared = observed(bench, model, noise, noise, batch_size=1).shared
        if last is not None:
            cosines.append(cosine_similarity(last, shared).double().cpu())
        last = shared
    return {"cosine": torch.stack(cosines).mean(0).tolist()}

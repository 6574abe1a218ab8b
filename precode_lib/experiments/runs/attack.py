"""Attack the gradients of a cell's victims, and judge what came back."""

import base64
import io
import time
from collections.abc import Generator, Sequence
from dataclasses import replace
from functools import partial
from math import isfinite
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from precode_lib.attacks import Recipe, Search, given
from precode_lib.basics.files import atomic_file
from precode_lib.bottleneck import recorded_noise
from precode_lib.data import Normalisation, Pictures
from precode_lib.experiments.bench import Bench, Found
from precode_lib.experiments.cells import Progress, Run
from precode_lib.experiments.names.attacks import ATTACKS
from precode_lib.experiments.names.datasets import DATASETS
from precode_lib.experiments.names.defenses import DEFENSES
from precode_lib.federated import Observation, observe
from precode_lib.metrics import (
    NOTEBOOK,
    PAPER,
    UNIT,
    Convention,
    Scores,
    pair,
    reorder,
    score,
)
from precode_lib.training import read_checkpoint

MOST_SHOWN = 6  # reconstructions of one cell that are kept as pictures


Attacking = Generator[Progress, None, Found]


def run(cell, bench: Bench) -> Run:
    """Let the cell's attacker hear what its victims send, and judge what it finds."""
    found = yield from attacked(cell, bench)
    (pictures,) = bench.pictures
    return judged(found, pictures, storable(pictures, cell))


def attacked(cell, bench: Bench) -> Attacking:
    """What the cell's attacker finds in what its victims send."""
    attack, noise = ATTACKS.named(cell.attack), bench.generator("noise")
    with recorded_noise() as drawn:
        seen = observed(bench, in_mode(bench, cell), noise, noise, cell.batch_size)
    heard = drawn if attack.knows_noise else ()
    attacking = partial(search, heard=heard) if attack.run is None else attack.run
    return (yield from attacking(seen, cell, bench))


def in_mode(bench: Bench, cell) -> nn.Module:
    """The cell's model as its clients run it: in training mode only to drop."""
    return bench.model().train(DEFENSES.named(cell.setup.defense).drops)


def observed(
    bench: Bench,
    model: nn.Module,
    source,
    generator: torch.Generator,
    batch_size: int,
) -> Observation:
    """What the victims send.

    Args:
        source: of the noise that bottlenecks draw.
        generator: of the noise that a defense adds.
    """
    pictures, *_ = bench.pictures
    return observe(
        model,
        _grouped(pictures.images, batch_size).to(bench.device),
        _grouped(pictures.labels, batch_size).to(bench.device),
        normalisation=pictures.normalisation,
        defense=bench.defense(generator),
        client_step=None if bench.step is None else bench.step(),
        noise=source,
    )


def search(
    observation: Observation, cell, bench: Bench, *, heard: Sequence[Tensor] = ()
) -> Attacking:
    """Search by the attack's recipe, with a checkpoint now and then.

    Args:
        heard: the noise that the clients drew, for an attacker who is told it.
    """
    made = recipe(cell)
    if heard:
        made = replace(made, hidden=given(heard, num_examples=cell.batch_size))
    steps = Search(observation, made, generator=bench.generator("attack"))
    yield from _searched(steps, bench)
    found = steps.result
    notes = {
        "objective": found.last_objective.double().cpu().tolist(),
        "iterations": found.iterations.cpu().tolist(),
        "outcomes": list(found.outcome),
    }
    return Found(found.last_images, found.images, notes)


def recipe(cell) -> Recipe:
    """The recipe of a cell's attack, with the cell's settings."""
    attack = ATTACKS.named(cell.attack)
    made = replace(attack.recipe(), iterations=cell.iterations)
    if "lr" not in attack.unused:
        made = replace(made, optimizer=partial(made.optimizer, lr=cell.lr))
    if "patience" not in attack.unused:
        made = replace(made, patience=cell.patience)
    return made


def _searched(steps: Search, bench: Bench) -> Generator[Progress, None, None]:
    """Make the search's steps, with a checkpoint now and then."""
    file = bench.checkpoint
    if file.exists():
        steps.load_state_dict(read_checkpoint(file, bench.device))
    saved = time.monotonic()
    total = steps.recipe.iterations
    for step in steps:
        if time.monotonic() - saved >= bench.every:
            with atomic_file(file) as partial_file:
                torch.save(steps.state_dict(), partial_file)
            saved = time.monotonic()
        if step.iteration % 10 == 0:
            yield Progress(step.iteration + 1, total, f"{step.num_active} searching")


def judged(found: Found, pictures: Pictures, shown: list[int]) -> dict[str, Any]:
    """All that a table or a figure needs to know of an attack."""
    originals, normalisation = pictures.pixels, pictures.normalisation
    guesses = {
        name: paired(originals, _pixels(images, normalisation))
        for name, images in {"last": found.last, "best": found.best}.items()
    }

    def judge(end: str, convention: Convention) -> Scores:
        pixels = guesses[end]
        options = {"convention": convention, "normalisation": normalisation}
        return score(originals, pixels, **options)

    judged_by = {
        end: {c.name: judge(end, c) for c in (PAPER, UNIT, NOTEBOOK)} for end in guesses
    }
    table = {
        end: {name: {**s.mean._asdict(), "asr": s.asr} for name, s in scores.items()}
        for end, scores in judged_by.items()
    }
    result = {**table, **_of_each(judged_by["last"][PAPER.name]), **found.notes}
    if shown:
        result["shown"] = shown
        result["pictures"] = [_png(guesses["last"][i]) for i in shown]
    return result


def _of_each(scores: Scores) -> dict[str, list[float | None]]:
    """Each victim's metrics; None for the infinite PSNR of an exact copy."""
    psnr = [value if isfinite(value) else None for value in scores.psnr.tolist()]
    return {"mse": scores.mse.tolist(), "psnr": psnr, "ssim": scores.ssim.tolist()}


def storable(pictures: Pictures, cell) -> list[int]:
    """Which victims' reconstructions may be kept as pictures in this repository."""
    dataset = DATASETS.named(cell.setup.dataset)
    if not (getattr(cell, "shows", False) and dataset.is_free):
        return []
    names = [pictures.classes[label] for label in pictures.labels]
    allowed = [i for i, name in enumerate(names) if name not in dataset.but_not]
    return allowed[:MOST_SHOWN]


def paired(originals: Tensor, guesses: Tensor) -> Tensor:
    """Guesses (V, B, C, H, W) as (N, C, H, W), each batch in its originals' order."""
    batches = originals.unflatten(0, guesses.shape[:2])
    return reorder(guesses, pair(batches, guesses)).flatten(0, 1)


def _grouped(values: Tensor, batch_size: int) -> Tensor:
    """(N, ...) → (N / B, B, ...)."""
    return values.unflatten(0, (-1, batch_size))


def _pixels(images: Tensor, normalisation: Normalisation) -> Tensor:
    """(V, B, C, H, W) normalised → the same in [0, 1], on the CPU."""
    return normalisation.denormalise(images.cpu().float()).clamp(0, 1)


def _png(pixels: Tensor) -> str:
    levels = (pixels * 255).round().byte().permute(1, 2, 0).squeeze(-1).numpy()
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, format="PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()

"""Attack the gradients of a cell's victims, and judge what came back."""

import copy
import time
from collections.abc import Generator, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from precode_lib.attacks import Recipe, Search, given
from precode_lib.basics.files import atomic_file
from precode_lib.bottleneck import recorded_noise
from precode_lib.experiments.bench import Bench, Found
from precode_lib.experiments.cells import Progress, Run
from precode_lib.experiments.names.attacks import ATTACKS
from precode_lib.experiments.names.defenses import DEFENSES
from precode_lib.experiments.names.models import MODELS
from precode_lib.experiments.runs.judging import judged, storable
from precode_lib.federated import Observation, observe
from precode_lib.training import read_checkpoint

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
    if DEFENSES.named(cell.setup.defense).keeps_statistics:
        seen = replace(seen, model=without_statistics(seen.model))
    heard = drawn if attack.knows_noise else ()
    attacking = partial(search, heard=heard) if attack.run is None else attack.run
    return (yield from attacking(seen, cell, bench))


def in_mode(bench: Bench, cell) -> nn.Module:
    """The cell's model as its clients run it: in training mode only where it says so.

    To drop features, or to norm them by their own batch.
    """
    setup = cell.setup
    drops, norms = DEFENSES.named(setup.defense).drops, MODELS.named(setup.model)
    return bench.model().train(drops or norms.in_training)


def without_statistics(model: nn.Module) -> nn.Module:
    """A copy whose batch norms remember what those of a new network do: nothing."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.reset_running_stats()
    return model


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
        loss=bench.loss,
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


def _grouped(values: Tensor, batch_size: int) -> Tensor:
    """(N, ...) → (N / B, B, ...)."""
    return values.unflatten(0, (-1, batch_size))

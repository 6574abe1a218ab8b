"""Run one cell, from its checkpoint if there is one, to its result.

A run is an iterator of `Progress` whose return value is the result: whoever loops over
it owns the bar and the stop button. Results hold no times and no dates, so a run that
was killed and resumed ends, on a CPU, with the same result to the last digit.
"""

import base64
import io
import time
from collections.abc import Collection, Generator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from precode_lib.ats import Policy
from precode_lib.ats_evaluation import IGA_ATS, adaptive, evaluate, plain
from precode_lib.attacks import Reconstruction, Search
from precode_lib.data import Normalisation, Pictures
from precode_lib.data.cache import atomic_file
from precode_lib.experiments.cells import (
    AtsCell,
    AttackCell,
    Cell,
    NoiseCell,
    TrainingCell,
    key_of,
)
from precode_lib.experiments.lab import Lab, recipe, storable
from precode_lib.experiments.store import rounded
from precode_lib.federated import Observation, observe
from precode_lib.gradients import cosine_similarity
from precode_lib.metrics import NOTEBOOK, PAPER, UNIT, Convention, pair, reorder, score
from precode_lib.protocols import PAPER as PAPER_TRAINING
from precode_lib.protocols import Randomness
from precode_lib.training import Training, fit, read_checkpoint

_EVERY_STEPS = 250  # of a training's epoch, between two checkpoints


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a cell is.

    Args:
        done: steps made, in this run or an earlier one.
        total: steps in all, at most.
        note: for people.
    """

    done: int
    total: int
    note: str = ""


Run = Generator[Progress, None, dict[str, Any]]


def run(cell: Cell, lab: Lab, key: str, *, marks: Collection[int] = ()) -> Run:
    """Run a cell to its end; the generator's return value is its result.

    Args:
        key: names its checkpoint.
        marks: of a training: epochs after which the weights are kept, for attacks.

    All is float32: on a GPU this switches cuDNN's TF32 off, for the whole process.
    """
    if lab.device.type == "cuda":
        # It is on by default, and keeps 10 bits of what a convolution is given.
        torch.backends.cudnn.allow_tf32 = False
    if isinstance(cell, TrainingCell):
        result = yield from _train(cell, lab, key, marks)
    elif isinstance(cell, AttackCell):
        result = yield from _attack(cell, lab, key)
    elif isinstance(cell, NoiseCell):
        result = yield from _noise(cell, lab)
    else:
        result = yield from _ats(cell, lab)
    return rounded(result)


def forget(lab: Lab, key: str) -> None:
    """Delete the checkpoint of a cell whose result is safe."""
    _checkpoint(lab, key).unlink(missing_ok=True)


# --- training -------------------------------------------------------------------------


def _train(cell: TrainingCell, lab: Lab, key: str, marks: Collection[int]) -> Run:
    weights = {mark: weights_file(cell, lab, mark) for mark in marks}
    training = _training(cell, lab, key)
    if any(
        _has_passed(training, m) for m, file in weights.items() if not file.exists()
    ):
        # It was begun for other tables, which did not ask for these weights.
        forget(lab, key)
        training = _training(cell, lab, key)
    # Killed after an epoch's checkpoint, it may not have kept this epoch's weights.
    _keep_weights(training.model, weights.get(len(training.history)))
    for epoch in training:
        _keep_weights(training.model, weights.get(epoch.epoch))
        note = f"test accuracy {epoch.test_accuracy:.1%}"
        yield Progress(epoch.epoch, cell.epochs, note)
    names = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
    history = [asdict(epoch) for epoch in training.history]
    return {name: [epoch[name] for epoch in history] for name in names}


def _training(cell: TrainingCell, lab: Lab, key: str) -> Training:
    """The training where its checkpoint left it, or at its beginning."""
    setup = cell.setup
    splits = lab.splits(cell)
    random = Randomness.seeded(setup.seed, lab.device)
    return fit(
        lab.model(setup, splits.train),
        splits,
        replace(PAPER_TRAINING, epochs=cell.epochs),
        defense=lab.perturbation(setup, random.defense),
        random=random,
        checkpoint=_checkpoint(lab, key),
        every=_EVERY_STEPS,
    )


def _has_passed(training: Training, epoch: int) -> bool:
    """Whether the weights are no longer those after this epoch."""
    is_within_one = training.state_dict()["running"] is not None
    return len(training.history) + is_within_one > epoch


def weights_file(cell: TrainingCell, lab: Lab, epoch: int) -> Path:
    """Where the weights after an epoch of a training are kept."""
    return lab.work / f"{key_of(cell, lab.digest(cell))}-epoch{epoch}.pt"


def _keep_weights(model: nn.Module, file: Path | None) -> None:
    if file is not None and not file.exists():
        with atomic_file(file) as partial:
            torch.save(model.state_dict(), partial)


# --- attacks --------------------------------------------------------------------------


def _attack(cell: AttackCell, lab: Lab, key: str) -> Run:
    pictures = lab.victims(cell)
    noise = lab.generator(cell.setup, "noise")
    observation = _observed(cell, lab, _model(cell, lab), noise, cell.batch_size)
    generator = lab.generator(cell.setup, "attack")
    search = Search(observation, recipe(cell), generator=generator)
    yield from _searched(search, lab, key)
    return _judged(search.result, pictures, storable(pictures, cell))


def _model(cell: AttackCell | NoiseCell, lab: Lab) -> nn.Module:
    """The cell's model, fresh or as its training left it."""
    model = lab.model(cell.setup, lab.victims(cell)).eval()
    if cell.training is not None:
        file = weights_file(cell.training, lab, cell.epoch)
        model.load_state_dict(read_checkpoint(file, lab.device))
    return model


def _observed(
    cell: AttackCell | NoiseCell,
    lab: Lab,
    model: nn.Module,
    noise: torch.Generator,
    batch_size: int,
) -> Observation:
    """What the victims send; all that is random in it is drawn from `noise`."""
    pictures = lab.victims(cell)
    return observe(
        model,
        _grouped(pictures.images, batch_size).to(lab.device),
        _grouped(pictures.labels, batch_size).to(lab.device),
        normalisation=pictures.normalisation,
        defense=lab.perturbation(cell.setup, noise),
        noise=noise,
    )


def _searched(search: Search, lab: Lab, key: str) -> Generator[Progress, None, None]:
    """Make the search's steps, with a checkpoint now and then."""
    file = _checkpoint(lab, key)
    if file.exists():
        search.load_state_dict(read_checkpoint(file, lab.device))
    saved = time.monotonic()
    total = search.recipe.iterations
    for step in search:
        if time.monotonic() - saved >= lab.every:
            with atomic_file(file) as partial:
                torch.save(search.state_dict(), partial)
            saved = time.monotonic()
        if step.iteration % 10 == 0:
            yield Progress(step.iteration + 1, total, f"{step.num_active} searching")


def _judged(
    found: Reconstruction, pictures: Pictures, shown: list[int]
) -> dict[str, Any]:
    """All that a table or a figure needs to know of an attack."""
    originals, normalisation = pictures.pixels, pictures.normalisation
    ends = {"last": found.last_images, "best": found.images}
    guesses = {
        name: _paired(originals, _pixels(images, normalisation))
        for name, images in ends.items()
    }

    def judge(end: str, convention: Convention):
        pixels = guesses[end]
        options = {"convention": convention, "normalisation": normalisation}
        return score(originals, pixels, **options)

    table = {
        end: {
            c.name: {**judge(end, c).mean._asdict(), "asr": judge(end, c).asr}
            for c in (PAPER, UNIT, NOTEBOOK)
        }
        for end in ends
    }
    result = {
        **table,
        "ssim": judge("last", PAPER).ssim.tolist(),
        "objective": found.last_objective.double().cpu().tolist(),
        "iterations": found.iterations.cpu().tolist(),
        "outcomes": list(found.outcome),
    }
    if shown:
        result["shown"] = shown
        result["pictures"] = [_png(guesses["last"][i]) for i in shown]
    return result


def _grouped(values: Tensor, batch_size: int) -> Tensor:
    """(N, ...) → (N / B, B, ...)."""
    return values.unflatten(0, (-1, batch_size))


def _pixels(images: Tensor, normalisation: Normalisation) -> Tensor:
    """(V, B, C, H, W) normalised → the same in [0, 1], on the CPU."""
    return normalisation.denormalise(images.cpu().float()).clamp(0, 1)


def _paired(originals: Tensor, guesses: Tensor) -> Tensor:
    """Guesses (V, B, C, H, W) as (N, C, H, W), each batch in its originals' order."""
    batches = originals.unflatten(0, guesses.shape[:2])
    return reorder(guesses, pair(batches, guesses)).flatten(0, 1)


def _png(pixels: Tensor) -> str:
    levels = (pixels * 255).round().byte().permute(1, 2, 0).squeeze(-1).numpy()
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, format="PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


# --- noise ----------------------------------------------------------------------------


def _noise(cell: NoiseCell, lab: Lab) -> Run:
    model, noise = _model(cell, lab), lab.generator(cell.setup, "noise")
    last = None
    cosines = []
    for draw in range(cell.draws):
        yield Progress(draw, cell.draws)
        shared = _observed(cell, lab, model, noise, batch_size=1).shared
        if last is not None:
            cosines.append(cosine_similarity(last, shared).double().cpu())
        last = shared
    return {"cosine": torch.stack(cosines).mean(0).tolist()}


# --- transformations ------------------------------------------------------------------


def _ats(cell: AtsCell, lab: Lab) -> Run:
    # No checkpoint: a cell of this kind is minutes, and adaptive searches are many.
    setup = cell.setup
    if lab.perturbation(setup, lab.generator(setup, "noise")) is not None:
        raise ValueError(f"ats cells share gradients as they are, not {setup.defense}.")
    pictures = lab.victims(cell)
    model = lab.model(setup, pictures).eval()
    policy = Policy.parse(cell.policy)
    attack_recipe = replace(IGA_ATS, iterations=cell.iterations)
    yield Progress(0, 1, str(policy))

    def attack(observation, generator):
        if not cell.adaptive:
            return plain(observation, generator, recipe=attack_recipe)
        options = {"transforms": policy.variants, "recipe": attack_recipe}
        return adaptive(observation, generator, **options)

    generator = lab.generator(setup, "attack")
    found = evaluate(model, pictures, policy, generator=generator, attack=attack)
    yield Progress(1, 1, str(policy))
    views = {
        "original": found.against_original,
        "transformed": found.against_transformed,
    }
    return {
        name: {**scores.mean._asdict(), "asr": scores.asr, "psnr_std": scores.std.psnr}
        for name, scores in views.items()
    }


def _checkpoint(lab: Lab, key: str) -> Path:
    lab.work.mkdir(parents=True, exist_ok=True)
    return lab.work / f"{key}.pt"

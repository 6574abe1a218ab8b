"""What an attack came to: pictures by their metrics, other examples by their error."""

from math import isfinite
from typing import Any

from torch import Tensor

from precode_lib.data import Examples, Normalisation, Pictures, png_base64
from precode_lib.experiments.bench import Found
from precode_lib.experiments.names.datasets import DATASETS
from precode_lib.metrics import (
    CLOSE,
    NOTEBOOK,
    PAPER,
    UNIT,
    Convention,
    Scores,
    pair,
    relative_error,
    reorder,
    score,
)

MOST_SHOWN = 6  # reconstructions of one cell that are kept as pictures


def judged(found: Found, examples: Examples, shown: list[int]) -> dict[str, Any]:
    """All that a table or a figure needs to know of an attack.

    Args:
        shown: which reconstructions are kept as pictures.
    """
    if isinstance(examples, Pictures):
        return _judged_pictures(found, examples, shown)
    return _judged_examples(found, examples)


def storable(examples: Examples, cell) -> list[int]:
    """Which victims' reconstructions may be kept as pictures in this repository."""
    dataset = DATASETS.named(cell.setup.dataset)
    is_allowed = dataset.is_free and isinstance(examples, Pictures)
    if not (getattr(cell, "shows", False) and is_allowed):
        return []
    names = [examples.classes[label] for label in examples.labels]
    allowed = [i for i, name in enumerate(names) if name not in dataset.but_not]
    return allowed[:MOST_SHOWN]


def last_guesses(found: Found, examples: Examples) -> tuple[Tensor, Tensor]:
    """The true examples and the last guesses at them, (N, ...) each, in their order.

    Pictures as pixels in [0, 1], others as the model sees them.
    """
    if isinstance(examples, Pictures):
        guesses = _pixels(found.last, examples.normalisation)
        return examples.pixels, paired(examples.pixels, guesses)
    return examples.images, _in_order(examples.images, found.last.cpu())


def paired(originals: Tensor, guesses: Tensor) -> Tensor:
    """Guesses (V, B, C, H, W) as (N, C, H, W), each batch in its originals' order."""
    batches = originals.unflatten(0, guesses.shape[:2])
    return reorder(guesses, pair(batches, guesses)).flatten(0, 1)


def _judged_pictures(
    found: Found, pictures: Pictures, shown: list[int]
) -> dict[str, Any]:
    """By each convention, and each victim by the paper's."""
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
        result["pictures"] = [png_base64(guesses["last"][i]) for i in shown]
    return result


def _judged_examples(found: Found, examples: Examples) -> dict[str, Any]:
    """By how far each is from the true one; a success is an error below `CLOSE`."""
    originals = examples.images.double()
    errors, means = {}, {}
    for end, guesses in {"last": found.last, "best": found.best}.items():
        ordered = _in_order(originals, guesses.cpu().double())
        errors[end] = relative_error(originals, ordered)
        means[end] = {
            "mse": (ordered - originals).square().mean().item(),
            "relative_error": errors[end].mean().item(),
            "asr": (errors[end] < CLOSE).double().mean().item(),
        }
    each = {"relative_error": errors["last"].tolist()}
    return {"examples": means, **each, **found.notes}


def _in_order(originals: Tensor, guesses: Tensor) -> Tensor:
    """Guesses (V, B, ...) as (N, ...), each batch in its originals' order."""
    # `pair` looks at pictures: of one row, whatever the shape.
    flat, rows = guesses.flatten(2), originals.flatten(1)
    ordered = paired(rows[:, None, None], flat[:, :, None, None])
    return ordered.view_as(originals)


def _of_each(scores: Scores) -> dict[str, list[float | None]]:
    """Each victim's metrics; None for the infinite PSNR of an exact copy."""
    psnr = [value if isfinite(value) else None for value in scores.psnr.tolist()]
    return {"mse": scores.mse.tolist(), "psnr": psnr, "ssim": scores.ssim.tolist()}


def _pixels(images: Tensor, normalisation: Normalisation) -> Tensor:
    """(V, B, C, H, W) normalised → the same in [0, 1], on the CPU."""
    return normalisation.denormalise(images.cpu().float()).clamp(0, 1)

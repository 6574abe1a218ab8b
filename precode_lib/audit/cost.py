"""What a defense costs in accuracy: the same short training with it and without."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from precode_lib.audit.findings import TROUBLE, first_line
from precode_lib.audit.protections import NONE, Protection
from precode_lib.audit.samples import Sample
from precode_lib.bottleneck import Loss
from precode_lib.data import Examples, Splits
from precode_lib.metrics import exact_interval
from precode_lib.training import PAPER, Randomness, fit

_FEWEST = 60  # labelled examples: below, accuracies differ by chance alone
_MOST = 600
_STEPS = 200  # of training, about
_BATCH = 16


def cost(
    model: nn.Module,
    clients_have: Sample,
    protections: tuple[Protection, ...],
    *,
    loss: Loss,
    seed: int,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """Accuracies after a few epochs, by defense; or why there are none.

    Two thirds of the examples train, one third tests. So short a training says which
    way a defense pulls, and not how far.
    """
    asked = [each for each in protections if each is not NONE]
    if not asked:
        return {}
    why = _why_not(clients_have)
    if why is not None:
        return {"measured": False, "why": why}
    splits = _splits(clients_have)
    found = {}
    for each in (NONE, *asked):
        tell(f"accuracy of a short training: {each.name}")
        try:
            accuracy = _trained(model, each, splits, loss, seed)
        except TROUBLE as problem:
            return {"measured": False, "why": f"{each.name}: {first_line(problem)}"}
        hits = round(accuracy * len(splits.test))
        found[each.name] = {
            "accuracy": accuracy,
            "interval": list(exact_interval(hits, len(splits.test))),
        }
    return {
        "measured": True,
        "epochs": _epochs(splits),
        "train": len(splits.train),
        "test": len(splits.test),
        "accuracies": found,
    }


def _why_not(clients_have: Sample) -> str | None:
    if not clients_have.has_classes or not isinstance(clients_have.inputs, Tensor):
        return "accuracy is for examples of one input, with a class each"
    if not clients_have.inputs.is_floating_point():
        return "accuracy is measured on pictures and rows only"
    if not clients_have.is_labelled:
        return "the labels were drawn at random: there is nothing to learn"
    if len(clients_have) < _FEWEST:
        return f"it takes {_FEWEST} labelled examples, there are {len(clients_have)}"
    return None


def _splits(clients_have: Sample) -> Splits:
    order = torch.randperm(
        len(clients_have), generator=torch.Generator().manual_seed(0)
    )[:_MOST]
    classes = tuple(map(str, range(int(clients_have.labels.max()) + 1)))
    mixed = Examples(
        clients_have.inputs[order], clients_have.labels[order], classes, "clients"
    )
    third = len(mixed) // 3
    return Splits(mixed[third:], mixed[:third])


def _epochs(splits: Splits) -> int:
    return max(1, round(_STEPS * _BATCH / len(splits.train)))


def _trained(
    model: nn.Module, asked: Protection, splits: Splits, loss: Loss, seed: int
) -> float:
    """The test accuracy at the end."""
    random = Randomness.seeded(seed)
    network = copy.deepcopy(model)
    if asked.insert is not None:
        network = asked.insert(network, splits.train.images[:1], random.defense)
    options = {
        "defense": asked.change and asked.change(random.defense),
        "client_step": asked.step and asked.step(random.defense),
    }
    short = replace(PAPER, epochs=_epochs(splits), batch_size=_BATCH)
    *_, last = fit(network, splits, short, loss=loss, random=random, **options)
    return last.test_accuracy

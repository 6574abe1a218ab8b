"""The pictures an attack is tried on: few, of every class, and always the same."""

from collections.abc import Callable

import torch
from torch import Tensor

from precode_lib.basics.validation import check_count, closest
from precode_lib.data.datasets import cifar10, cifar100, medical_mnist, paper_victims
from precode_lib.data.examples import Examples
from precode_lib.data.photographs import faces, placed_crops
from precode_lib.data.pictures import Pictures, Splits

COLLECTIONS: dict[str, Callable[[], Pictures | Splits]] = {
    "photos": placed_crops,
    "faces": faces,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "medical_mnist": medical_mnist,
    "paper": paper_victims,
}


def victims(
    source: str | Splits | Pictures,
    n: int,
    *,
    size: int | None = None,
    seed: int | None = None,
) -> Pictures:
    """Choose n pictures so that the classes are as evenly represented as they can be.

    Without a seed each class gives its first pictures, with one it gives random ones.
    They keep the order of the collection. Of Splits the test part is used: pictures
    that a model trained on the other part has never seen.

    Args:
        source: a name ("photos", "faces", "cifar10", "cifar100", "medical_mnist",
            "paper") or pictures you have loaded.
        size: scale to size x size; None leaves them as they are ("photos": 32x32).
    """
    pictures = _collection(source, size)
    chosen = pictures[victim_indices(pictures, n, seed=seed)]
    return chosen if size is None else chosen.resized(size)


def victim_indices(pictures: Examples, n: int, *, seed: int | None = None) -> list[int]:
    """Which n of the pictures `victims` chooses, counted from 0.

    Of examples whose labels are no classes the first, or with a seed random ones.
    """
    check_count(n, "n")
    if n > len(pictures):
        raise ValueError(
            f"n must be at most {len(pictures)}, the number of pictures in "
            f"{pictures.name}, got {n}."
        )
    classes = pictures.labels
    if not pictures.is_classified:
        classes = torch.zeros(len(pictures))
    return _evenly(classes, n, seed).tolist()


def _collection(source: str | Splits | Pictures, size: int | None) -> Pictures:
    if source == "photos":
        return placed_crops(
            32 if size is None else size
        )  # cut anew: 64x64 has detail that 32x32 lost
    if isinstance(source, str):
        if source not in COLLECTIONS:
            known = ", ".join(COLLECTIONS)
            hint = closest(source, COLLECTIONS)
            raise ValueError(f"No collection {source!r}; there are {known}.{hint}")
        source = COLLECTIONS[source]()
    if isinstance(source, Splits):
        source = source.test
    if not isinstance(source, Pictures):
        raise TypeError(
            f"source must be a name, Splits or Pictures, got {type(source).__name__}."
        )
    return source


def _evenly(labels: Tensor, n: int, seed: int | None) -> Tensor:
    """Indices of n pictures, sorted: one of each class, then a second of each, ..."""
    order = torch.arange(len(labels))
    if seed is not None:
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(labels), generator=generator)
    seen: dict[int, int] = {}
    rounds = []
    for label in labels[order].tolist():
        seen[label] = seen.get(label, -1) + 1
        rounds.append(seen[label])
    by_round = torch.tensor(rounds).argsort(stable=True)
    return order[by_round[:n]].sort().values

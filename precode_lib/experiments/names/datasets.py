"""The data sets that a cell may name: where they come from, and whom to attack."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from precode_lib.experiments.names.registry import Registry

if TYPE_CHECKING:
    from precode_lib.bottleneck import Loss
    from precode_lib.data import Pictures, Splits


@dataclass(frozen=True)
class Published:
    """Victims that were published by themselves.

    Args:
        name: by which a path to them can be given.
        load: from a path (or None: the cache folder) to the pictures.
        files: patterns of the files to look for in a data folder.
    """

    name: str
    load: "Callable[[Path | None], Pictures]"
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """What the name of a data set in a cell stands for.

    Args:
        title: for people.
        load: from a path (or None: the cache folder) to train and test parts, which
            bring classes and normalisation: of `Pictures`, or of other `Examples`.
        size: how many pictures its training part has when it is complete.
        files: patterns of the files or folders to look for in a data folder.
        victims: the pictures to attack; without them, or where their file is missing,
            pictures of the training part are.
        is_free: whether its pictures may be stored in this repository.
        but_not: classes of which even then none is stored.
        slows: times as long LeNet trains on one of its pictures as on one of 32 pixels.
        loss: of each example, (model, examples, labels) -> (N,), where labels are no
            classes; trainer, victim and attacker share it. None is `per_example_loss`,
            which also weighs what bottlenecks lose: one of your own has to do so too.
    """

    title: str
    load: "Callable[[Path | None], Splits]"
    size: int = 1
    files: tuple[str, ...] = ()
    victims: Published | None = None
    is_free: bool = False
    but_not: frozenset[str] = frozenset()
    slows: float = 1.0
    loss: "Loss | None" = None


def files_of(name: str) -> tuple[str, ...]:
    """The patterns of a data set's files, or of published victims'."""
    published = {d.victims.name: d.victims for d in DATASETS.values() if d.victims}
    return published[name].files if name in published else DATASETS.named(name).files


def _loaded(name: str):
    """One of the library's loaders; torch is imported when it is wanted."""

    def load(path: Path | None):
        from precode_lib import data

        return getattr(data, name)(path)

    return load


def _photos(path: Path | None) -> "Splits":
    from precode_lib import data

    return data.photos()


DATASETS: Registry[Dataset] = Registry(
    "data set",
    Dataset,
    {
        "photos": Dataset(
            "embedded photographs",
            _photos,
            is_free=True,
            # Without a stated licence: attacked, never stored.
            but_not=frozenset({"motorcycle"}),
        ),
        "cifar10": Dataset(
            "CIFAR-10",
            _loaded("cifar10"),
            50_000,
            (
                "cifar-10-python.tar.gz",
                "cifar-10-batches-py",
                "cifar10",
                "cifar10[!0]*",
            ),
            victims=Published(
                "paper", _loaded("paper_victims"), ("128CIF_RECDATA.dict",)
            ),
        ),
        "cifar100": Dataset(
            "CIFAR-100",
            _loaded("cifar100"),
            50_000,
            ("cifar-100-python.tar.gz", "cifar-100-python", "cifar100*"),
        ),
        "medical_mnist": Dataset(
            "Medical MNIST",
            _loaded("medical_mnist"),
            47_163,
            ("Medical-MNIST*", "medical_mnist*"),
            slows=2.5,
        ),
    },
)

"""The models that a cell may name: how each is built, and how long it takes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from precode_lib.experiments.names.registry import Registry

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Pace:
    """What a model costs, in seconds of one laptop-sized processor core.

    Args:
        step: of a search, whatever it searches for.
        victim_step: for each victim, on top of that.
        dense_step: the same behind a defense whose gradients stay dense: they are met
            entry by entry.
        trained: pictures trained per second, tests included.
        width: at which this holds, where it grows with the width.
        ends_early: whether most searches end on their plateau.
        hides_defense: whether a defense costs next to nothing beside its training.
    """

    step: float = 0.01
    victim_step: float = 0.05
    dense_step: float = 0.05
    trained: float = 300.0
    width: int | None = None
    ends_early: bool = True
    hides_defense: bool = False


@dataclass(frozen=True)
class Architecture:
    """What the name of a model in a cell stands for.

    Args:
        title: in tables.
        make: (image shape, number of classes, *, width, generator, and init where it
            isn't the published one) -> a fresh model.
        width: the usual one.
        has_widths: whether it can be built in others.
        in_training: whether clients run it in training mode, with the statistics of
            their own batch where it has batch norms.
        trained_as: another model whose training is this one's too.
        pace: what it costs; the usual one is a guess.
    """

    title: str
    make: "Callable[..., nn.Module]"
    width: int = 1024
    has_widths: bool = True
    in_training: bool = False
    trained_as: str | None = None
    pace: Pace = Pace()


def _built(name: str, **usual) -> "Callable[..., nn.Module]":
    """One of the library's models; torch is imported when it is wanted."""

    def make(*shape, **options):
        from precode_lib import models

        return getattr(models, name)(*shape, **usual, **options)

    return make


def _lenet(*shape, width: int, **options) -> "nn.Module":
    from precode_lib import models

    return models.lenet(*shape, **options)


def _lenet_with_norms(*shape, **options) -> "nn.Module":
    from torch import nn

    return _lenet(*shape, norm=nn.BatchNorm2d, **options)


_LENET = Pace(
    0.004, 4.5e-4, 6e-4, trained=8_500.0, ends_early=False, hides_defense=True
)
# Batch norms in training mode keep victims apart: each is searched for alone.
_ALONE = replace(_LENET, step=0.0, victim_step=4.5e-3, dense_step=4.5e-3)
_NORMED = partial(Architecture, make=_lenet_with_norms, width=12, has_widths=False)

MODELS: Registry[Architecture] = Registry(
    "model",
    Architecture,
    {
        "smlp": Architecture(
            "SMLP",
            _built("smlp"),
            pace=Pace(0.004, 3e-4, 2.5e-3, trained=2_400.0, width=1024),
        ),
        "dmlp": Architecture(
            "DMLP",
            _built("dmlp"),
            pace=Pace(0.007, 5e-4, 4.0e-3, trained=1_150.0, width=1024),
        ),
        "lenet": Architecture(
            "LeNet",
            _lenet,
            width=12,
            has_widths=False,
            pace=_LENET,
        ),
        "lenet-bn": _NORMED("LeNet with batch norms", pace=_LENET),
        "lenet-bn-train": _NORMED(
            "LeNet with batch norms, in training mode",
            in_training=True,
            trained_as="lenet-bn",
            pace=_ALONE,
        ),
        "resnet": Architecture("ResNet", _built("resnet", blocks_per_stage=1)),
        "resnet20": Architecture("ResNet-20", _built("resnet", blocks_per_stage=3)),
    },
)

"""The defenses that a cell may name, and what the paper may have meant by each."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from precode_lib.experiments.names.registry import Registry

if TYPE_CHECKING:
    import torch
    from torch import nn

    from precode_lib.defenses import ClientStep, Defense

Maker = Callable[["torch.Generator"], "Defense | None"]
# Times as long as the same training of an MLP without a defense.
_BLURRED, _PRUNED = 1.5, 2.7


def unchanged(generator: "torch.Generator") -> None:
    """The gradient is sent as it is."""


@dataclass(frozen=True)
class Defended:
    """What the name of a defense in a cell stands for.

    Args:
        title: in tables.
        make: from a generator to the function that changes a gradient, or to None.
        insert: (model, setup, generator) -> the model with what protects it in there.
        step: makes what clients compute instead of their plain gradient.
        drops: whether clients run the model in training mode, for its dropout.
        keeps_statistics: whether what batch norms remember of its training is the
            clients' own, and the server only has what a new network has.
        options: the fields of a `Setup` that it listens to; tables name them.
        meant: the paper's defense of which this is another reading.
        is_dense: whether what it sends is met entry by entry, which takes a search
            several times as long.
        slows: times as long as without it an MLP trains.
        same_as: another name of the very same defense, by which results count; this
            one is told beside it.
    """

    title: str
    make: Maker = unchanged
    insert: "Callable[[nn.Module, Any, torch.Generator], nn.Module] | None" = None
    step: "Callable[[], ClientStep] | None" = None
    drops: bool = False
    keeps_statistics: bool = False
    options: tuple[str, ...] = ()
    meant: str | None = None
    is_dense: bool = False
    slows: float = 1.0
    same_as: str | None = None


def meant(name: str) -> str:
    """The paper's defense of which this one is another reading, or the same name."""
    return (DEFENSES[name].meant if name in DEFENSES else None) or name


def _bound(function: str, generator: "torch.Generator | None" = None, **options):
    """One of the library's defenses; torch is imported when it is wanted."""
    from precode_lib import defenses

    source = {} if generator is None else {"generator": generator}
    return partial(getattr(defenses, function), **options, **source)


def _noise(std: float) -> Maker:
    return lambda generator: _bound("add_noise", generator, std=std)


def _pruning(ratio: float, function: str = "prune") -> Maker:
    return lambda generator: _bound(function, ratio=ratio)


def _with_precode(model, setup, generator):
    """PRECODE where the setup says so, its KL weighed in bits."""
    from precode_lib.bottleneck import NATS_PER_BIT, with_precode

    sides: dict[str, list[str]] = {"before": [], "after": []}
    for place in setup.places:
        side, layer = place.split(" ", 1)
        sides[side].append(layer)
    return with_precode(
        model,
        **{side: layers or None for side, layers in sides.items()},
        k=setup.k,
        beta=setup.beta / NATS_PER_BIT,
        generator=generator,
    )


def _with_cvb(kind: str):
    """A convolutional bottleneck behind the first layer, as its authors place it."""

    def insert(model, setup, generator):
        from precode_lib import bottleneck

        return bottleneck.with_cvb(
            model,
            after="features.activation1",
            kind=getattr(bottleneck, kind),
            generator=generator,
        )

    return insert


def _with_dropout(model, setup, generator):
    from precode_lib.bottleneck import with_dropout

    return with_dropout(model, 0.5, before="fc")


def _before_precode(generator):
    """PPP: noise on what lies before a bottleneck in front of the last layer."""
    from precode_lib.defenses import only

    return only(_bound("add_noise", generator, std=1e-2), "features.*")


def _soteria() -> "ClientStep":
    return _bound("soteria_step", layer="fc", percentile=60)


_NOISY = partial(Defended, is_dense=True, slows=_BLURRED)
_PRUNED_MORE = partial(Defended, is_dense=True, slows=_PRUNED, meant="gc")
DEFENSES: Registry[Defended] = Registry(
    "defense",
    Defended,
    {
        "none": Defended("none"),
        "ng-2": _NOISY("noise 10⁻²", _noise(1e-2)),
        "ng-3": _NOISY("noise 10⁻³", _noise(1e-3)),
        "gc": Defended("pruning 10 %", _pruning(0.1), slows=_PRUNED),
        # What the paper may have meant, or done: see the table "why".
        "ng-2-x10": _NOISY("noise 10⁻¹ for 10⁻²", _noise(1e-1), meant="ng-2"),
        "ng-3-x10": _NOISY(
            "noise 10⁻² for 10⁻³", _noise(1e-2), meant="ng-3", same_as="ng-2"
        ),
        "gc-90": _PRUNED_MORE("pruning 90 %", _pruning(0.9)),
        "gc-99": _PRUNED_MORE("pruning 99 %", _pruning(0.99)),
        "gc-90-global": _PRUNED_MORE(
            "pruning 90 %, all in one", _pruning(0.9, "prune_globally")
        ),
        "precode": Defended(
            "PRECODE", insert=_with_precode, options=("k", "beta", "places")
        ),
        # What came after: see the table "adapt".
        "cvb": Defended("CVB", insert=_with_cvb("ConvolutionalBottleneck")),
        "cvb-published": Defended(
            "CVB, KL as published",
            insert=_with_cvb("PublishedConvolutionalBottleneck"),
        ),
        "ppp": Defended(
            "PPP, noise 10⁻²",
            _before_precode,
            insert=_with_precode,
            options=("k", "beta"),
            is_dense=True,
            slows=_BLURRED,
        ),
        "soteria": Defended("Soteria, 60 %", step=_soteria),
        "dropout": Defended("dropout ½, secret", insert=_with_dropout, drops=True),
        "own-statistics": Defended("statistics kept", keeps_statistics=True),
    },
)

"""The table "adapt" as questions, each with the cells that answer it.

The order is that of the page: every question after those that it builds on.
"""

from dataclasses import replace

from precode_lib.experiments.cells import Cell
from precode_lib.experiments.protocol import Scale

_ALL_FOUR = ("strong", "strong-early", "joint", "strong-told")
_FRESH, _TWO = ("strong",), ("joint", "strong-told")
_TOLD = (*_FRESH, *_TWO)
_BOTTLENECKS = ("precode", "cvb", "cvb-published")


def questions(scale: Scale) -> dict[str, list[Cell]]:
    """What attackers who know a defense find behind it: question -> cells, seed 0."""
    first, last = scale.moments[:-1], scale.moments[-1:]

    def lenet(defense, attacks, **changes):
        return _cells(scale, "lenet", defense, attacks, **changes)

    def later(defense, attacks, epochs, whose="unseen", model="lenet"):
        return [
            cell
            for epoch in epochs
            for cell in _cells(scale, model, defense, attacks, epoch=epoch, whose=whose)
        ]

    def each(attacks, *when):
        return [c for d in _BOTTLENECKS for c in later(d, attacks, *when)]

    smlp = ("strong-early", "joint", "strong-told", "divide")
    return {
        "Does noise in a convolutional network protect it before it is trained?": [
            *lenet("none", _FRESH),
            *lenet("precode", _ALL_FOUR),
            *lenet("cvb", _ALL_FOUR),
        ],
        "And once it is trained, for pictures that it has not seen?": [
            *later("none", _FRESH, scale.moments),
            *each(_TWO, scale.moments),
        ],
        "Does CVB's KL as published change that?": lenet("cvb-published", _ALL_FOUR),
        "Do attackers need to know of the noise by then?": each(_FRESH, last),
        "Are pictures that it has learnt better hidden than new ones?": [
            *later("none", _FRESH, last, "seen"),
            *each(("joint",), last, "seen"),
        ],
        "Do PyTorch's weights make a difference?": [
            *lenet("none", _FRESH, init="pytorch"),
            *lenet("precode", _ALL_FOUR, init="pytorch"),
            *lenet("cvb", _TOLD, init="pytorch"),
        ],
        "And without convolutions, where one division is enough?": [
            *_cells(scale, "smlp", "none", ("strong", "divide")),
            *_cells(scale, "smlp", "precode", (*_ALL_FOUR, "divide")),
            *later("none", ("strong", "divide"), first, model="smlp"),
            *later("precode", smlp, first, model="smlp"),
        ],
        "Is PRECODE better placed behind the first layer?": lenet(
            "precode", _ALL_FOUR, places=("after features.activation1",)
        ),
        "What of other defenses, against what is known to break them?": [
            *lenet("dropout", ("strong-still", *_TOLD)),
            *lenet("soteria", ("strong", "strong-rest")),
            *lenet("gc-90", ("strong", "strong-kept")),
            *lenet("ppp", _ALL_FOUR),
            *lenet("ng-2", _FRESH),
            *_cells(scale, "smlp", "ng-2", ("divide", "divide-all")),
        ],
        "Does averaging over draws help, and until when?": lenet(
            "precode", ("strong-mean-4", "strong-mean-16")
        ),
        "And eight pictures in one gradient?": [
            *lenet("none", _FRESH, batch_size=scale.batch),
            *lenet("precode", _TWO, batch_size=scale.batch),
            *lenet("cvb", _TWO, batch_size=scale.batch),
        ],
    }


def _cells(scale, model, defense, attacks, *, init=None, places=None, **changes):
    asked = {"init": init, "places": places}
    asked = {name: value for name, value in asked.items() if value is not None}
    setup = replace(scale.setup("cifar10", model, defense), **asked)
    return [scale.adaptive(setup, attack, **changes) for attack in attacks]

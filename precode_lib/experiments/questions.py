"""The table "adapt" as questions, each with the cells that answer it.

The order is that of the page: every question after those that it builds on.
"""

from dataclasses import replace

from precode_lib.experiments.cells import Cell
from precode_lib.experiments.protocol import Scale

_FRESH, _TWO = ("strong",), ("joint", "strong-told")
_LEFT_OUT = ("strong-early", "strong-early-still")
_ALL = (*_FRESH, *_LEFT_OUT, *_TWO)
_TOLD = (*_FRESH, *_TWO)
_BY_LAYERS = ("iga-fast-early",)
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

    def usual(defense, *more, **changes):
        # 20 evaluations to a step of L-BFGS, one to a step of Adam.
        steps = 20 * scale.strong_iterations
        return lenet(defense, ("iga-fast", *more), iterations=steps, **changes)

    def each(attacks, *when):
        return [c for d in _BOTTLENECKS for c in later(d, attacks, *when)]

    def normed(defense, attacks, *, model="lenet-bn", ages=(0, scale.epochs)):
        # From the shorter training: it says enough at a fifth of the cost.
        training = scale.training(scale.setup("cifar10", model, defense))
        trained = {"training": training, "whose": "unseen"}
        whens = [{"epoch": epoch, **(trained if epoch else {})} for epoch in ages]
        return [
            c for when in whens for c in _cells(scale, model, defense, attacks, **when)
        ]

    smlp = ("strong-early", "joint", "strong-told", "divide")
    return {
        "Does noise in a convolutional network protect it before it is trained?": [
            *lenet("none", _FRESH),
            *lenet("precode", _ALL),
            *lenet("cvb", _ALL),
        ],
        "Would the usual search do better, in as many evaluations?": [
            *usual("none"),
            *(c for d in ("precode", "cvb") for c in usual(d, *_BY_LAYERS)),
            *usual("none", epoch=last[0], whose="unseen"),
            *(
                c
                for d in ("precode", "cvb")
                for c in usual(d, *_BY_LAYERS, epoch=last[0], whose="unseen")
            ),
        ],
        "And once it is trained, for pictures that it has not seen?": [
            *later("none", _FRESH, scale.moments),
            *each(_TWO, scale.moments),
        ],
        "Does CVB's KL as published change that?": lenet("cvb-published", _ALL),
        "Do attackers need to know of the noise by then?": each(_FRESH, last),
        "Are pictures that it has learnt better hidden than new ones?": [
            *later("none", _FRESH, last, "seen"),
            *each(("joint",), last, "seen"),
        ],
        "Do PyTorch's weights make a difference?": [
            *lenet("none", _FRESH, init="pytorch"),
            *lenet("precode", _ALL, init="pytorch"),
            *lenet("cvb", _TOLD, init="pytorch"),
        ],
        "And without convolutions, where one division is enough?": [
            *_cells(scale, "smlp", "none", ("strong", "divide")),
            *_cells(scale, "smlp", "precode", (*_ALL, "divide")),
            *later("none", ("strong", "divide"), first, model="smlp"),
            *later("precode", smlp, first, model="smlp"),
        ],
        "Do batch norms protect, in evaluation mode or in training mode?": [
            cell
            for model in ("lenet-bn", "lenet-bn-train")
            for defense, attacks in (("none", _FRESH), ("precode", _TOLD))
            for cell in normed(defense, attacks, model=model)
        ],
        "And if clients keep what their batch norms remember?": normed(
            "own-statistics", ("strong", "joint-statistics"), ages=(scale.epochs,)
        ),
        "Is PRECODE better placed behind the first layer?": lenet(
            "precode", _ALL, places=("after features.activation1",)
        ),
        "What of other defenses, against what is known to break them?": [
            *lenet("dropout", ("strong-still", *_TOLD)),
            *lenet("soteria", ("strong", "strong-rest")),
            *lenet("gc-90", ("strong", "strong-kept")),
            *lenet("ppp", _ALL),
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

"""An attack as a film: `watch`."""

from collections.abc import Sequence
from copy import deepcopy

from torch import Tensor

from precode_lib.attacks import Search

from .axis import Axis, is_static
from .figure import SliderFigure
from .film import Film


def watch(
    search,
    originals: Tensor,
    *,
    question: str,
    caption: str,
    frames: int = 24,
    labels: Sequence[str] | None = None,
    static: bool | None = None,
):
    """Run an attack: each guess beside its original, with the objective's curve.

    Live, a copy of the search runs in the background: the film can be looked through
    while it grows, Stop ends it, and calling `watch` with the same question again stops
    the earlier one. Give what follows in the notebook a search of its own.

    Args:
        search: an `attacks.Search`, or what iterates over AttackSteps and has an
            `observation` and a `recipe`. The page uses it up.
        originals: pixels (V, C, H, W) or (V, B, C, H, W) in [0, 1] of its victims; the
            first four are shown. Guesses of a batch are paired with them as `metrics.
            pair` does for the newest step, which favours the attacker.
        question: the one question the film answers.
        caption: what there is to see.
        frames: how many steps the page shows; they lie log-spaced.
        labels: a name for each picture shown, such as its class.
        static: force the page's figure or the live one; by default PRECODE_STATIC=1
            means the page's.
    """
    film = Film(search, originals, frames=frames, labels=labels)
    if not is_static(static):
        # Here, so that a page without live sliders needs no ipywidgets.
        from .projector import Projector

        if isinstance(search, Search):
            # It runs beside the notebook, which may draw from the same generator.
            search = deepcopy(search)
        return Projector(search, film, question=question, caption=caption).show()
    for step in search:
        film.add(step)
    chosen = film.chosen()
    return SliderFigure(
        [film.panels(iteration) for iteration in chosen],
        [Axis("iteration", chosen, "Iteration", text=str, play=True)],
        question=question,
        caption=caption,
        curve=film.curve(chosen),
    )

"""Pictures that follow sliders: `explore`, and what its `render` may return."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from precode_lib.plots import Panel

from .axis import Axis, is_static
from .figure import Frame, SliderFigure, frames_of


def explore(
    render: Callable[..., Frame | Iterator[Frame]],
    axes: Sequence[Axis],
    *,
    question: str,
    caption: str,
    static: bool | None = None,
):
    """Sliders over what `render` draws: ipywidgets live, a `SliderFigure` in the book.

    Live, the first setting is drawn at once. Every other is drawn in the background
    when a slider comes to rest on it, and only once; moving on drops what is under way.

    Args:
        render: takes one keyword per axis and returns the panels of that frame, or is
            a generator that yields better and better ones: live all are shown, and a
            button stops them; on the page the last one counts. All frames have the
            same labels, roles, value names and picture size. Live, a cell that runs at
            the same time must not use the same observation or model.
        axes: the sliders, outermost first.
        question: the one question the sliders answer.
        caption: what there is to see.
        static: force one of the two; by default PRECODE_STATIC=1 means static.

    >>> import torch
    >>> from precode_lib.plots import Panel
    >>> from precode_lib.widgets import Axis, explore
    >>> def render(level):
    ...     return [Panel("grey", torch.full((1, 8, 8), level))]
    >>> words = {"question": "How bright is a half?", "caption": "A grey square."}
    >>> explore(render, [Axis("level", (0.0, 0.5, 1.0))], **words, static=True)
    <sliders: level (3); 3 frames>
    """
    if not axes:
        raise ValueError("explore needs at least one axis, got none.")
    if not is_static(static):
        # Here, so that a page without live sliders needs no ipywidgets.
        from .live import Explorer

        return Explorer(render, axes, question=question, caption=caption).show()
    settings = itertools.product(*(axis.values for axis in axes))
    names = [axis.name for axis in axes]
    frames = [_last(render(**dict(zip(names, s, strict=True)))) for s in settings]
    return SliderFigure(frames, axes, question=question, caption=caption)


def _last(drawn: Any) -> list[Panel]:
    panels: list[Panel] = []
    for panels in frames_of(drawn):  # noqa: B007
        pass
    if not panels:
        raise ValueError("render drew no panels; it must return or yield at least one.")
    return panels

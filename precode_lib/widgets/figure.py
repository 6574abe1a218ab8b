"""A figure with sliders that a page moves by itself, without kernel or network."""

import itertools
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from html import escape
from inspect import isgenerator
from typing import Any

from precode_lib.plots import ASSETS, Panel, describe, figure_html, panel_html

from .axis import Axis
from .curves import Curve
from .sheet import Sheet

HEAVIEST = 1_500_000  # bytes of a figure; a page is read on a phone, too

Frame = Sequence[Panel]


class SliderFigure:
    """A figure with sliders that needs neither kernel nor network.

    Pictures that recur are stored once. Without scripts it shows its first setting and
    a table of all values. It refuses to weigh more than 1.5 MB.

    Args:
        frames: one list of panels per setting; the last axis varies fastest.
        axes, question, caption: as for `explore`.
        curve: lines to draw beside the pictures, with one mark per frame.
    """

    def __init__(
        self,
        frames: Sequence[Frame],
        axes: Sequence[Axis],
        *,
        question: str,
        caption: str,
        curve: Curve | None = None,
    ):
        sizes = [len(axis.values) for axis in axes]
        if len(frames) != math.prod(sizes):
            raise ValueError(
                f"axes of {sizes} values need {math.prod(sizes)} frames, "
                f"got {len(frames)}."
            )
        _check_alike(frames)
        if curve is not None and len(curve.marks) != len(frames):
            raise ValueError(
                f"the curve has {len(curve.marks)} marks for {len(frames)} frames; "
                "give one place for each."
            )
        self.frames, self.axes, self.curve = frames, axes, curve
        self.question, self.caption = question, caption
        # Now, not when it is shown: Jupyter only prints what goes wrong there.
        self._html = self._draw()
        _check_weight(self._html, frames)

    def __repr__(self) -> str:
        axes = ", ".join(f"{axis.title} ({len(axis.values)})" for axis in self.axes)
        return f"<sliders: {axes}; {len(self.frames)} frames>"

    def _repr_html_(self) -> str:
        return self._html

    def _draw(self) -> str:
        sheet = Sheet.of(self.frames)
        settings = list(itertools.product(*(axis.texts() for axis in self.axes)))
        config = {
            **sheet.layout,
            "axes": [{"texts": axis.texts()} for axis in self.axes],
            "values": [_values(frame) for frame in self.frames],
            "sentences": list(map(self._sentence, settings, self.frames)),
        }
        first = 0
        for axis in self.axes:
            first = first * len(axis.values) + axis.start
        stage = panels_html(self.frames[first], sheet.picture_html, sheet.tiles[first])
        if self.curve is not None:
            config["marks"] = self.curve.positions()
            stage = beside(stage, self.curve.html(first))
        script = (ASSETS / "slider.js").read_text(encoding="utf-8")
        body = (
            f'<p class="precode-question">{escape(self.question)}</p>'
            f"{self._controls_html(sheet.name)}{stage}"
            '<p class="precode-hidden" role="status"></p>'
            "<noscript><p>To move the sliders, turn on JavaScript.</p></noscript>"
            f"{self._table_html(settings)}"
        )
        attributes = (
            f' data-config="{escape(json.dumps(config, ensure_ascii=False))}"'
            f' style="--sheet:url({sheet.uri})"'
        )
        figure = figure_html(
            body,
            caption=self.caption,
            classes="precode-slider",
            attributes=attributes,
        )
        return f"{figure}<script>{script}</script>"

    def _sentence(self, setting: Sequence[str], frame: Frame) -> str:
        titles = (axis.title for axis in self.axes)
        chosen = ", ".join(f"{t} {v}" for t, v in zip(titles, setting, strict=True))
        return f"{chosen}. {'; '.join(describe(panel) for panel in frame)}."

    def _controls_html(self, name: str) -> str:
        return "".join(
            control_html(axis, f"{name}-{index}")
            for index, axis in enumerate(self.axes)
        )

    def _table_html(self, settings: Sequence[Sequence[str]]) -> str:
        heads = [f"{p.label}: {name}" for p in self.frames[0] for name in p.values]
        if not heads:
            return ""
        heads = [axis.title for axis in self.axes] + heads
        rows = [
            [*setting, *_values(frame)]
            for setting, frame in zip(settings, self.frames, strict=True)
        ]
        head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
        body = "".join(
            f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in row)}</tr>"
            for row in rows
        )
        return (
            "<details><summary>All values as a table</summary>"
            '<div class="precode-scroll" tabindex="0" role="region" '
            'aria-label="All values"><table>'
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></details>"
        )


def frames_of(drawn: Any) -> Iterator[list[Panel]]:
    """The frames that a call of `render` gave: one, or all that its generator yields.

    Closing this iterator closes the generator.
    """
    if not isgenerator(drawn):
        yield list(drawn)
        return
    with closing(drawn):
        for panels in drawn:
            if isinstance(panels, Panel):
                raise ValueError(
                    "a render that yields must yield lists of panels, got one panel; "
                    "return a list instead if there is only one frame."
                )
            yield list(panels)


def panels_html(frame: Frame, picture_html, pictures: Sequence) -> str:
    """The panels of a frame; `picture_html` turns a panel and its picture into HTML."""
    shown = "".join(
        panel_html(panel, picture_html(panel, picture))
        for panel, picture in zip(frame, pictures, strict=True)
    )
    pairs = " precode-pairs" if _are_pairs(frame) else ""
    return f'<div class="precode-panels{pairs}">{shown}</div>'


def beside(panels: str, curve: str) -> str:
    """Panels with a curve beside or below them, as the page's width allows."""
    return f'<div class="precode-stage">{panels}{curve}</div>'


def _are_pairs(frame: Frame) -> bool:
    """Whether originals and what came of them alternate, so that they stay together."""
    originals = [panel.role == "original" for panel in frame]
    return len(frame) >= 4 and originals == [True, False] * (len(frame) // 2)


def control_html(axis: Axis, name: str) -> str:
    """An axis as a slider or a menu with its label; a script enables it."""
    draw = _choice_html if axis.choice else _slider_html
    texts = [escape(text) for text in axis.texts()]
    label = f'<label for="{name}">{escape(axis.title)}</label>'
    return f'<div class="precode-control">{label}{draw(axis, name, texts)}</div>'


def _choice_html(axis: Axis, name: str, texts: Sequence[str]) -> str:
    options = "".join(
        f'<option value="{i}"{" selected" if i == axis.start else ""}>{text}</option>'
        for i, text in enumerate(texts)
    )
    return f'<select id="{name}" autocomplete="off" disabled>{options}</select>'


def _slider_html(axis: Axis, name: str, texts: Sequence[str]) -> str:
    title = escape(axis.title)
    button = (
        f'<button type="button" class="precode-play" data-title="{title}" '
        f'aria-label="Play: {title}" disabled>Play</button>'
    )
    # JupyterLab takes the arrow keys from an input that does not carry this mark.
    mark = 'data-lm-suppress-shortcuts="true"'
    return (
        f'<output for="{name}" aria-live="off">{texts[axis.start]}</output>'
        f'<div class="precode-track">{button if axis.play else ""}'
        f'<input id="{name}" type="range" min="0" max="{len(texts) - 1}" step="1" '
        f'value="{axis.start}" aria-valuetext="{texts[axis.start]}" {mark} '
        'autocomplete="off" disabled></div>'
        f'<div class="precode-ends" aria-hidden="true"><span>{texts[0]}</span>'
        f"<span>{texts[-1]}</span></div>"
    )


def _values(frame: Frame) -> list[str]:
    return [value for panel in frame for value in panel.values.values()]


def _check_weight(page: str, frames: Sequence[Frame]) -> None:
    weight = len(page.encode())
    if weight > HEAVIEST:
        shape = tuple(frames[0][0].pixels.shape)
        raise ValueError(
            f"{len(frames)} frames of {len(frames[0])} pictures {shape} weigh "
            f"{weight / 1e6:.1f} MB; a figure may weigh {HEAVIEST / 1e6:.1f}: "
            "use fewer values, smaller pictures or less noise."
        )


def _check_alike(frames: Sequence[Frame]) -> None:
    def form(frame: Frame) -> list[tuple]:
        return [(panel.label, panel.role, tuple(panel.values)) for panel in frame]

    def sizes(frame: Frame) -> set[tuple]:
        return {tuple(panel.pixels.shape[1:]) for panel in frame}

    for index, frame in enumerate(frames):
        if form(frame) != form(frames[0]):
            raise ValueError(
                "all frames need the same labels, roles and value names: frame "
                f"{index} has {form(frame)}, frame 0 has {form(frames[0])}."
            )
        if len(sizes(frame)) != 1 or sizes(frame) != sizes(frames[0]):
            raise ValueError(
                f"all pictures need one size: frame {index} has {sizes(frame)}, "
                f"frame 0 has {sizes(frames[0])}."
            )

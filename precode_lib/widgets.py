"""Sliders that work twice: live in a running notebook, and on a page without a kernel.

`explore` is the one call a chapter makes. While the book is built (PRECODE_STATIC=1) it
draws every frame once and returns a `SliderFigure`; elsewhere it returns ipywidgets.
"""

import itertools
import json
import math
import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from typing import Any

from PIL import Image

from precode_lib.plots import (
    ASSETS,
    Panel,
    data_uri,
    describe,
    figure_html,
    panel_html,
    pixelated,
    show_pictures,
    to_image,
)

_GUTTER = 1  # pixels around a tile, so that scaling mixes no neighbour in
_LARGEST_SHEET = 16383  # pixels along a side; WebP allows no more

Frame = Sequence[Panel]


@dataclass(frozen=True)
class Axis:
    """One slider: the values it offers and what the reader sees of them.

    Args:
        name: the keyword under which `render` receives the value.
        values: what the slider steps through, from left to right.
        label: the slider's name on the page; `name` if empty.
        unit: written behind the value.
        text: turns a value into its text; a format string or a function.
        start: index of the value shown first.
        play: offer a button that runs through the values, for iterations.
        choice: the values have no order: offer a menu, not a slider.
    """

    name: str
    values: Sequence[Any]
    label: str = ""
    unit: str = ""
    text: str | Callable[[Any], str] = "{:g}"
    start: int = 0
    play: bool = False
    choice: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.start < len(self.values):
            raise ValueError(
                f"axis {self.name!r}: start must be an index into its "
                f"{len(self.values)} values, got {self.start}."
            )

    @property
    def title(self) -> str:
        """The slider's name as the reader sees it."""
        return self.label or self.name

    def texts(self) -> list[str]:
        """The values as the reader sees them, with their unit."""
        write = self.text.format if isinstance(self.text, str) else self.text
        return [f"{write(value)} {self.unit}".rstrip() for value in self.values]


def explore(
    render: Callable[..., Frame],
    axes: Sequence[Axis],
    *,
    question: str,
    caption: str,
    static: bool | None = None,
):
    """Sliders over what `render` draws: ipywidgets live, a `SliderFigure` in the book.

    Args:
        render: takes one keyword per axis and returns the panels of that frame. All
            frames have the same labels, roles, value names and picture size.
        axes: the sliders, outermost first.
        question: the one question the sliders answer.
        caption: what there is to see.
        static: force one of the two; by default PRECODE_STATIC=1 means static.
    """
    if not axes:
        raise ValueError("explore needs at least one axis, got none.")
    if static is None:
        static = os.environ.get("PRECODE_STATIC") == "1"
    if not static:
        return _live(render, axes, question=question, caption=caption)
    settings = itertools.product(*(axis.values for axis in axes))
    names = [axis.name for axis in axes]
    frames = [list(render(**dict(zip(names, s, strict=True)))) for s in settings]
    return SliderFigure(frames, axes, question=question, caption=caption)


def _live(
    render: Callable[..., Frame], axes: Sequence[Axis], *, question: str, caption: str
):
    # Here, so that a page without live sliders needs no ipywidgets.
    import ipywidgets

    render = cache(render)  # moving back must not attack again
    view = ipywidgets.HTML()
    sliders = [
        (ipywidgets.Dropdown if axis.choice else ipywidgets.SelectionSlider)(
            options=list(zip(axis.texts(), range(len(axis.values)), strict=True)),
            value=axis.start,
            description=axis.title,
            style={"description_width": "initial"},
            layout=ipywidgets.Layout(width="28em", max_width="100%"),
        )
        for axis in axes
    ]

    def draw(_change=None) -> None:
        pairs = zip(axes, sliders, strict=True)
        chosen = {axis.name: axis.values[slider.value] for axis, slider in pairs}
        view.value = show_pictures(list(render(**chosen)), caption=caption).html

    for slider in sliders:
        slider.observe(draw, "value")
    draw()
    title = ipywidgets.HTML(f"<strong>{escape(question)}</strong>")
    return ipywidgets.VBox([title, *sliders, view])


class SliderFigure:
    """A figure with sliders that needs neither kernel nor network.

    Pictures that recur are stored once. Without scripts it shows its first setting and
    a table of all values.

    Args:
        frames: one list of panels per setting; the last axis varies fastest.
        axes, question, caption: as for `explore`.
    """

    def __init__(
        self,
        frames: Sequence[Frame],
        axes: Sequence[Axis],
        *,
        question: str,
        caption: str,
    ):
        sizes = [len(axis.values) for axis in axes]
        if len(frames) != math.prod(sizes):
            raise ValueError(
                f"axes of {sizes} values need {math.prod(sizes)} frames, "
                f"got {len(frames)}."
            )
        _check_alike(frames)
        self.frames, self.axes = frames, axes
        self.question, self.caption = question, caption

    def __repr__(self) -> str:
        axes = ", ".join(f"{axis.title} ({len(axis.values)})" for axis in self.axes)
        return f"<sliders: {axes}; {len(self.frames)} frames>"

    def _repr_html_(self) -> str:
        sheet = _Sheet.of(self.frames)
        settings = list(itertools.product(*(axis.texts() for axis in self.axes)))
        config = {
            "columns": sheet.columns,
            "rows": sheet.rows,
            "width": sheet.width,
            "height": sheet.height,
            "gutter": _GUTTER,
            "tiles": sheet.tiles,
            "axes": [{"texts": axis.texts()} for axis in self.axes],
            "values": [_values(frame) for frame in self.frames],
            "sentences": list(map(self._sentence, settings, self.frames)),
        }
        first = 0
        for axis in self.axes:
            first = first * len(axis.values) + axis.start
        script = (ASSETS / "slider.js").read_text(encoding="utf-8")
        body = (
            f'<p class="precode-question">{escape(self.question)}</p>'
            f"{self._controls_html(sheet.name)}"
            f'<div class="precode-panels">{self._panels_html(sheet, first)}</div>'
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
            _control_html(axis, f"{name}-{index}")
            for index, axis in enumerate(self.axes)
        )

    def _panels_html(self, sheet: "_Sheet", frame: int) -> str:
        return "".join(
            panel_html(panel, sheet.picture_html(panel, tile))
            for panel, tile in zip(self.frames[frame], sheet.tiles[frame], strict=True)
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


def _control_html(axis: Axis, name: str) -> str:
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
    button = '<button type="button" class="precode-play" disabled>Play</button>'
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


@dataclass(frozen=True)
class _Sheet:
    """All different pictures of a figure in one image, as rows and columns of tiles."""

    uri: str
    tiles: list[list[int]]  # for each frame, the tile of each panel
    columns: int
    rows: int
    width: int
    height: int

    @classmethod
    def of(cls, frames: Sequence[Frame]) -> "_Sheet":
        pictures: dict[bytes, Image.Image] = {}
        keys = []
        for frame in frames:
            images = [to_image(panel.pixels) for panel in frame]
            keys.append([image.tobytes() for image in images])
            pictures.update(zip(keys[-1], images, strict=True))
        place = {key: index for index, key in enumerate(pictures)}
        tiles = [[place[key] for key in row] for row in keys]
        columns = math.ceil(math.sqrt(len(pictures)))
        sheet = _paste(list(pictures.values()), columns)
        width, height = next(iter(pictures.values())).size
        rows = math.ceil(len(pictures) / columns)
        return cls(_encode(sheet), tiles, columns, rows, width, height)

    @property
    def name(self) -> str:
        """An identifier that two different figures do not share."""
        return f"precode-{zlib.crc32(self.uri.encode()):08x}"

    def picture_html(self, panel: Panel, tile: int) -> str:
        row, column = divmod(tile, self.columns)
        x = _share(column, self.width, self.columns)
        y = _share(row, self.height, self.rows)
        wide = 100 * self.columns * (self.width + 2 * _GUTTER) / self.width
        high = 100 * self.rows * (self.height + 2 * _GUTTER) / self.height
        return (
            f'<div class="precode-picture{pixelated(panel)}" role="img" '
            f'aria-label="{escape(panel.label)}" style="background-image:var(--sheet);'
            f"aspect-ratio:{self.width}/{self.height};"
            f"background-size:{wide:.4f}% {high:.4f}%;"
            f'background-position:{x:.4f}% {y:.4f}%"></div>'
        )


def _share(index: int, size: int, count: int) -> float:
    """Where a tile starts, in the percentage that CSS background-position wants."""
    stride = size + 2 * _GUTTER
    return 100 * (index * stride + _GUTTER) / (count * stride - size)


def _paste(images: Sequence[Image.Image], columns: int) -> Image.Image:
    width, height = (side + 2 * _GUTTER for side in images[0].size)
    rows = math.ceil(len(images) / columns)
    if max(columns * width, rows * height) > _LARGEST_SHEET:
        raise ValueError(
            f"{len(images)} pictures of {images[0].size} do not fit into one sheet; "
            "use fewer values or smaller pictures."
        )
    sheet = Image.new("RGB", (columns * width, rows * height))
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        # Stretching first fills the gutter with the picture's own edge.
        sheet.paste(image.resize((width, height)), (column * width, row * height))
        corner = (column * width + _GUTTER, row * height + _GUTTER)
        sheet.paste(image, corner)
    return sheet


def _encode(sheet: Image.Image) -> str:
    # Lossless keeps small pictures exact, and takes seconds only from a few megapixels.
    if sheet.width * sheet.height <= 2**20:
        return data_uri(sheet, format="WEBP", lossless=True, method=6)
    return data_uri(sheet, format="WEBP", quality=80, method=4)

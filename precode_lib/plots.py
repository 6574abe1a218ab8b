"""How things look: pictures side by side and matplotlib's curves, as one HTML figure.

Nothing here computes more than pixels and text. Every figure has a caption and a text
alternative, fits a phone and follows the page into dark mode.
"""

import base64
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from html import escape
from io import BytesIO, StringIO
from math import isfinite
from pathlib import Path

import matplotlib.style
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

ASSETS = Path(__file__).with_name("assets")
STYLE = ASSETS / "style.mplstyle"

# role: (on light, on dark). Blue, vermilion and green stay apart for colour-blind
# readers, and each has at least 4.5:1 contrast as text on the book's backgrounds.
COLOURS = {
    "original": ("#0067a5", "#6db9f0"),
    "leaked": ("#b84a00", "#f5a05a"),
    "defended": ("#00765a", "#4fc9a4"),
    "neutral": ("#5c6570", "#a3adb8"),
}
_INK = "#222222"  # of style.mplstyle; stands in for the page's text colour


def colour(role: str) -> str:
    """The colour of a role on light paper: original, leaked, defended or neutral."""
    _check_role(role)
    return COLOURS[role][0]


def colour_css() -> str:
    """The roles' colours as CSS variables, for light and for dark pages."""
    light, dark = (
        "".join(f"--precode-{role}:{pair[i]};" for role, pair in COLOURS.items())
        for i in (0, 1)
    )
    return (
        f":root{{{light}}}\n"
        f'html[data-theme="dark"],[data-jp-theme-light="false"]{{{dark}}}\n'
    )


@dataclass(frozen=True)
class Panel:
    """One picture with its label, its role's colour and the numbers written below it.

    Args:
        label: one or two words, such as "original".
        pixels: (C, H, W) in [0, 1], with C 1 or 3; values outside are clamped.
        role: original, leaked, defended or neutral; it decides the colour.
        values: names and formatted numbers, such as {"SSIM": "0.97"}.
    """

    label: str
    pixels: Tensor
    role: str = "neutral"
    values: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_role(self.role)
        if self.pixels.dim() != 3 or self.pixels.shape[0] not in (1, 3):
            raise ValueError(
                f"panel {self.label!r}: pixels must be (C, H, W) with C 1 or 3, got "
                f"{tuple(self.pixels.shape)}; take one picture out of a batch."
            )


@dataclass(frozen=True, repr=False)
class HtmlFigure:
    """A figure that shows itself in a notebook and on a page; `text` is its summary."""

    html: str
    text: str

    def __repr__(self) -> str:
        return f"<figure: {self.text}>"

    def _repr_html_(self) -> str:
        return self.html


def show_pictures(
    panels: Sequence[Panel], *, caption: str, width: float = 11
) -> HtmlFigure:
    """Show pictures side by side on one scale, each `width` rem wide where it fits.

    The caption states the finding. Each picture's text alternative is its label with
    its values.
    """
    if not panels:
        raise ValueError("show_pictures needs at least one panel, got none.")
    shown = "".join(panel_html(panel, img_html(panel)) for panel in panels)
    body = f'<div class="precode-panels" style="--size:{width:g}rem">{shown}</div>'
    labels = ", ".join(describe(panel) for panel in panels)
    return HtmlFigure(figure_html(body, caption=caption), labels)


def describe(panel: Panel) -> str:
    """The panel in words: its label, then its values."""
    values = ", ".join(f"{name} {value}" for name, value in panel.values.items())
    return f"{panel.label}: {values}" if values else panel.label


def to_image(pixels: Tensor) -> Image.Image:
    """(C, H, W) in [0, 1] → an 8-bit RGB image; values outside are clamped."""
    levels = (pixels.detach().cpu().clamp(0, 1) * 255).round().byte()
    return Image.fromarray(levels.expand(3, -1, -1).permute(1, 2, 0).numpy())


def data_uri(image: Image.Image, **options) -> str:
    """Encode an image as a data URI; `options` are Pillow's, PNG unless they say so."""
    options = {"format": "PNG", **options}
    buffer = BytesIO()
    image.save(buffer, **options)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return f"data:image/{options['format'].lower()};base64,{encoded}"


def figure_html(
    body: str, *, caption: str, classes: str = "", attributes: str = ""
) -> str:
    """Wrap a figure's body with the shared style and the caption."""
    return (
        f'<figure class="precode-figure {classes}"{attributes}>{style_html()}'
        f"{body}<figcaption>{escape(caption)}</figcaption></figure>"
    )


def style_html() -> str:
    """The style of everything in a `precode-figure`, colours included."""
    css = colour_css() + (ASSETS / "figure.css").read_text(encoding="utf-8")
    return f"<style>{css}</style>"


def panel_html(panel: Panel, picture: str) -> str:
    """A picture's element with the panel's label and values below it."""
    values = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>"
        for name, value in panel.values.items()
    )
    return (
        f'<div class="precode-panel precode-{panel.role}">{picture}'
        f'<p class="precode-label">{escape(panel.label)}</p>'
        f"{f'<dl>{values}</dl>' if values else ''}</div>"
    )


def img_html(panel: Panel) -> str:
    """A panel's picture as an element of its own."""
    return (
        f'<img class="precode-picture{pixelated(panel)}" '
        f'alt="{escape(panel.label)}" src="{data_uri(to_image(panel.pixels))}">'
    )


def pixelated(panel: Panel) -> str:
    """The class that keeps small pictures' pixels square, or nothing for large ones."""
    return " precode-pixelated" if panel.pixels.shape[-1] < 128 else ""


def _check_role(role: str) -> None:
    if role not in COLOURS:
        raise ValueError(f"role must be one of {', '.join(COLOURS)}; got {role!r}.")


def _styled(function: Callable) -> Callable:
    """Run a function under the book's style, leaving matplotlib's settings alone."""

    @wraps(function)
    def styled(*args, **kwargs):
        with rc_context(), matplotlib.style.context(STYLE):
            return function(*args, **kwargs)

    return styled


@_styled
def new_axes(*, width: float = 5.2, height: float = 3) -> Axes:
    """Empty axes in the book's style, on a figure of their own; sizes in inches."""
    # Not pyplot: its figures live for ever and show themselves a second time.
    return Figure(figsize=(width, height)).add_subplot()


@_styled
def plot_bars(
    heights: Tensor, *, names: Sequence[str], highlight: int, ax: Axes | None = None
) -> Axes:
    """One named bar per entry, the highlighted one in the leak's colour."""
    if len(heights) != len(names):
        raise ValueError(f"got {len(heights)} heights but {len(names)} names.")
    ax = ax or new_axes()
    colours = [colour("neutral")] * len(names)
    colours[highlight] = colour("leaked")
    ax.bar(range(len(names)), heights.detach().tolist(), color=colours)
    ax.axhline(0, color=_INK, linewidth=0.8)
    ax.set_xticks(range(len(names)), names, rotation=45, ha="right")
    ax.tick_params(axis="x", length=0)
    return ax


@_styled
def plot_dots(
    values: Mapping[str, tuple[str, Sequence[float]]],
    *,
    names: Sequence[str],
    ax: Axes | None = None,
) -> Axes:
    """One line per name, from the top, with a dot for each value in [0, 1].

    Args:
        values: what is measured -> the role whose colour it has, and one number for
            each name.
        names: of the lines.
    """
    for label, (_, numbers) in values.items():
        if len(numbers) != len(names):
            raise ValueError(
                f"got {len(numbers)} values of {label!r} but {len(names)} names."
            )
    ax = ax or new_axes(width=6.4, height=0.9 + 0.3 * len(names))
    markers = zip(values.items(), "osD^v", strict=False)
    for (label, (role, numbers)), marker in markers:
        ax.plot(numbers, range(len(names)), marker, color=colour(role), label=label)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlim(-0.02, 1.02)
    ax.grid(axis="both", alpha=0.4)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=len(values))
    ax.figure.set_layout_engine("constrained")
    return ax


# A line's dashes within its role; the labels do the rest.
_DASHES = [
    "-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)),
    (0, (9, 3)), (0, (3, 1, 1, 1, 1, 1)), (0, (1, 4)), (0, (2, 4)),
]  # fmt: skip
_FEW_POINTS = 12  # up to here every point gets a dot


@_styled
def plot_curves(
    curves: Mapping[str, tuple[str, Sequence[float]]],
    *,
    x: Sequence[float] | None = None,
    xlabel: str = "",
    ylabel: str = "",
    log: tuple[bool, bool] = (False, False),
    spread: Mapping[str, tuple[Sequence[float], Sequence[float]]] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Up to eight lines, each named at its end; lines of one role differ in dashes.

    Values that are not finite leave a gap, and so do those <= 0 on a logarithmic axis.

    Args:
        curves: name of a line -> its role and its heights.
        x: one place per height; without it the places are 0, 1, 2, ..., and lines may
            differ in length.
        log: whether the horizontal and the vertical axis are logarithmic.
        spread: name of a line -> the lower and upper edge of a band around it.
    """
    if not 1 <= len(curves) <= len(_DASHES):
        raise ValueError(
            f"plot_curves draws 1 to {len(_DASHES)} lines, got {len(curves)}; "
            "more cannot be told apart, so draw two plots."
        )
    lines = {label: _line(label, *curve, x) for label, curve in curves.items()}
    bands = _bands(spread or {}, lines)
    ax = ax or new_axes(width=6.4, height=3.4)
    ax.set_xscale("log" if log[0] else "linear")
    ax.set_yscale("log" if log[1] else "linear")
    drawn = dict.fromkeys(COLOURS, 0)
    for label, (role, places, heights) in lines.items():
        shade = colour(role)
        dot = "o" if len(heights) <= _FEW_POINTS else None
        dashes = _DASHES[drawn[role]]
        ax.plot(places, heights, color=shade, linestyle=dashes, marker=dot, ms=4)
        drawn[role] += 1
        if label in bands:
            ax.fill_between(places, *bands[label], color=shade, alpha=0.18, lw=0)
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ends = {
        label: (role, _end(label, places, heights, log))
        for label, (role, places, heights) in lines.items()
    }
    _name_ends(ax, ends)
    return ax


def _line(
    label: str, role: str, values: Sequence[float], x: Sequence[float] | None
) -> tuple[str, list[float], list[float]]:
    """Role, places and heights of a line, as plain numbers."""
    _check_role(role)
    heights = _numbers(values)
    places = list(map(float, range(len(heights)))) if x is None else _numbers(x)
    if len(heights) != len(places) or not heights:
        raise ValueError(
            f"got {len(heights)} values of {label!r} for {len(places)} places on the "
            "horizontal axis; give at least one, and one for each."
        )
    return role, places, heights


def _numbers(values: Sequence[float]) -> list[float]:
    return [float(value) for value in values]


def _bands(spread: Mapping, lines: Mapping) -> dict[str, list[list[float]]]:
    bands = {label: [_numbers(edge) for edge in pair] for label, pair in spread.items()}
    for label, edges in bands.items():
        if label not in lines:
            raise ValueError(f"spread has {label!r}, which is none of {list(lines)}.")
        lengths = [len(edge) for edge in edges]
        if lengths != [len(lines[label][2])] * 2:
            raise ValueError(
                f"the spread of {label!r} must be a lower and an upper edge of "
                f"{len(lines[label][2])} values each, got lengths {lengths}."
            )
    return bands


def _end(
    label: str, places: list[float], heights: list[float], log: tuple[bool, bool]
) -> tuple[float, float]:
    """The last point that the axes can show."""
    for point in zip(reversed(places), reversed(heights), strict=True):
        pairs = zip(point, log, strict=True)
        if all(
            isfinite(value) and (value > 0 or not is_log) for value, is_log in pairs
        ):
            return point
    raise ValueError(
        f"{label!r} has no value that these axes can show: all are NaN, infinite, or "
        "not positive on a logarithmic axis."
    )


def _name_ends(ax: Axes, ends: Mapping[str, tuple[str, tuple[float, float]]]) -> None:
    """Write each line's name right of the axes, as high as its end where possible."""
    names = [
        ax.annotate(
            label, point, (1.02, 0), textcoords="axes fraction", va="center",
            color=colour(role), annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour(role), "lw": 0.8,
                        "alpha": 0.5, "shrinkA": 1, "shrinkB": 1, "relpos": (0, 0.5)},
        )
        for label, (role, point) in ends.items()
    ]  # fmt: skip

    def place(ax: Axes) -> None:
        points = [point for _, point in ends.values()]
        shares = ax.transLimits.transform(ax.transScale.transform(points))[:, 1]
        # The axes are at least this high once their own labels have found room.
        points_high = 72 * 0.9 * ax.figure.get_figheight() * ax.get_position().height
        step = 1.25 * names[0].get_fontsize() / points_high
        for name, share in zip(names, apart(shares.tolist(), step), strict=True):
            name.set_position((1.02, share))

    place(ax)
    # A chapter may still change the range.
    ax.callbacks.connect("ylim_changed", place)


def apart(heights: Sequence[float], step: float) -> list[float]:
    """Move heights as little as needed to lie at least `step` apart, in their order."""
    order = sorted(range(len(heights)), key=heights.__getitem__)
    # Blocks of touching names: [mean of (height - own offset), members].
    blocks: list[tuple[float, int]] = []
    for rank, index in enumerate(order):
        mean, size = heights[index] - rank * step, 1
        while blocks and blocks[-1][0] > mean:
            other, more = blocks.pop()
            mean = (mean * size + other * more) / (size + more)
            size += more
        blocks.append((mean, size))
    means = [mean for mean, size in blocks for _ in range(size)]
    placed = [0.0] * len(heights)
    for rank, index in enumerate(order):
        placed[index] = means[rank] + rank * step
    return placed


def show_table(
    heads: Sequence[str],
    lines: Sequence[Sequence[str | tuple[str, str]]],
    *,
    caption: str,
    names: int = 1,
) -> HtmlFigure:
    """A table; a pair in a cell is our number with the published one, small, below.

    The caption states the finding. Wide tables scroll inside themselves.

    Args:
        heads: of the columns.
        lines: one text or pair (ours, published) per column.
        names: how many columns, from the left, name the line.
    """
    for index, line in enumerate(lines):
        if len(line) != len(heads):
            raise ValueError(
                f"line {index} has {len(line)} cells, the table {len(heads)} columns."
            )
    top = "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
    body = "".join(
        f"<tr>{''.join(_cell_html(c, i < names) for i, c in enumerate(line))}</tr>"
        for line in lines
    )
    table = f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
    # A region that scrolls must be reachable by keyboard.
    scroll = (
        '<div class="precode-table" role="region" tabindex="0" '
        f'aria-label="{escape(caption)}">{table}</div>'
    )
    return HtmlFigure(figure_html(scroll, caption=caption), caption)


def _cell_html(cell: str | tuple[str, str], is_name: bool) -> str:
    if is_name:
        return f'<th scope="row">{escape(str(cell))}</th>'
    if isinstance(cell, str):
        return f"<td>{escape(cell)}</td>"
    ours, published = map(escape, cell)
    below = f"<small>{published}</small>" if published else ""
    return f"<td>{ours}{below}</td>"


@_styled
def plot_strips(
    values: Mapping[str, tuple[str, Sequence[float]]],
    *,
    xlabel: str = "",
    ax: Axes | None = None,
) -> Axes:
    """One line per name, from the top, with a faint dot for every value on it.

    Args:
        values: name of a line -> the role whose colour it has, and its values.
    """
    ax = ax or new_axes(width=6.4, height=0.9 + 0.3 * len(values))
    for line, (role, numbers) in enumerate(values.values()):
        places = [line] * len(numbers)
        shade = colour(role)
        ax.plot(numbers, places, "|", color=shade, ms=13, mew=1.5, alpha=0.55)
    ax.set_yticks(range(len(values)), list(values))
    ax.set_ylim(len(values) - 0.5, -0.5)
    ax.grid(axis="both", alpha=0.4)
    ax.set_xlabel(xlabel)
    return ax


@_styled
def as_figure(ax: Axes, *, caption: str, alt: str) -> HtmlFigure:
    """Turn finished axes into a figure that follows the page's font and colours.

    The caption states the finding; `alt` describes the plot to those who cannot see it.
    """
    buffer = StringIO()
    ax.figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = _follow_the_page(buffer.getvalue())
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" ', 1)
    return HtmlFigure(figure_html(svg, caption=caption), alt)


def _follow_the_page(svg: str) -> str:
    svg = svg[svg.index("<svg ") :].replace(_INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    for role, (light, _) in COLOURS.items():
        svg = svg.replace(light, f"var(--precode-{role})")
    # Two figures on a page would repeat the identifiers that nothing refers to.
    used = set(re.findall(r"#([\w-]+)", svg))
    return re.sub(
        r' id="([\w-]+)"', lambda match: match[0] if match[1] in used else "", svg
    )


@dataclass(frozen=True, repr=False)
class Source:
    """A function's source code, highlighted wherever Markdown is."""

    code: str

    def __repr__(self) -> str:
        return self.code

    def _repr_markdown_(self) -> str:
        return f"```python\n{self.code}```"


def show_source(function: Callable) -> Source:
    """Show a function or class as it stands in the installed library."""
    return Source(inspect.getsource(function))

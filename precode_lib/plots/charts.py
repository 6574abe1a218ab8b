"""Matplotlib's axes in the book's style, and as a figure that follows the page."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from html import escape
from io import StringIO

import matplotlib.style
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from .figures import ASSETS, COLOURS, HtmlFigure, colour, figure_html

STYLE = ASSETS / "style.mplstyle"
INK = "#222222"  # of style.mplstyle; stands in for the page's text colour
_LETTERS = 45  # of a legend that have room in one line


def styled(function: Callable) -> Callable:
    """Run a function under the book's style, leaving matplotlib's settings alone."""

    @wraps(function)
    def in_style(*args, **kwargs):
        with rc_context(), matplotlib.style.context(STYLE):
            return function(*args, **kwargs)

    return in_style


@styled
def new_axes(*, width: float = 5.2, height: float = 3) -> Axes:
    """Empty axes in the book's style, on a figure of their own; sizes in inches."""
    # Not pyplot: its figures live for ever and show themselves a second time.
    return Figure(figsize=(width, height)).add_subplot()


@styled
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
    ax.axhline(0, color=INK, linewidth=0.8)
    ax.set_xticks(range(len(names)), names, rotation=45, ha="right")
    ax.tick_params(axis="x", length=0)
    return ax


@styled
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
    ax = ax or new_axes(width=5.6, height=0.9 + 0.3 * len(names))
    markers = zip(values.items(), "osD^v", strict=False)
    for (label, (role, numbers)), marker in markers:
        ax.plot(numbers, range(len(names)), marker, color=colour(role), label=label)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlim(-0.02, 1.02)
    ax.grid(axis="both", alpha=0.4)
    columns = max(1, min(len(values), _LETTERS // max(map(len, values))))
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=columns)
    ax.figure.set_layout_engine("constrained")
    return ax


@styled
def plot_strips(
    values: Mapping[str, tuple[str, Sequence[float]]],
    *,
    xlabel: str = "",
    ax: Axes | None = None,
) -> Axes:
    """One line per name, from the top, with a faint mark for every value on it.

    Args:
        values: name of a line -> the role whose colour it has, and its values.
    """
    ax = ax or new_axes(width=5.6, height=0.9 + 0.3 * len(values))
    for line, (role, numbers) in enumerate(values.values()):
        places = [line] * len(numbers)
        shade = colour(role)
        ax.plot(numbers, places, "|", color=shade, ms=13, mew=1.5, alpha=0.55)
    ax.set_yticks(range(len(values)), list(values))
    ax.set_ylim(len(values) - 0.5, -0.5)
    ax.grid(axis="both", alpha=0.4)
    ax.set_xlabel(xlabel)
    return ax


@styled
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
    svg = svg[svg.index("<svg ") :].replace(INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    for role, (light, _) in COLOURS.items():
        svg = svg.replace(light, f"var(--precode-{role})")
    # Two figures on a page would repeat the identifiers that nothing refers to.
    used = set(re.findall(r"#([\w-]+)", svg))
    return re.sub(
        r' id="([\w-]+)"', lambda match: match[0] if match[1] in used else "", svg
    )

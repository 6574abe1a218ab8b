"""Curves, each named at its end."""

from collections.abc import Mapping, Sequence
from math import isfinite

from matplotlib.axes import Axes

from .charts import new_axes, styled
from .figures import COLOURS, check_role, colour

# A line's dashes within its role; the labels do the rest.
_DASHES = [
    "-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)),
    (0, (9, 3)), (0, (3, 1, 1, 1, 1, 1)), (0, (1, 4)), (0, (2, 4)),
]  # fmt: skip
_FEW_POINTS = 12  # up to here every point gets a dot


@styled
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
    ax = ax or new_axes(width=5.3, height=3.3)
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
    check_role(role)
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

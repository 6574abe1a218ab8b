"""A small curve beside the pictures, whose marks follow the slider."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape

from precode_lib.plots import apart

_WIDTH, _HEIGHT = 340, 220
_TOP, _BOTTOM, _LEFT, _RIGHT = 28, 42, 52, 24
_NAME_STEP = 14  # between two names at the lines' ends
_DASHES = ["", "6 3", "2 3", "9 3 2 3"]


@dataclass(frozen=True)
class Curve:
    """Up to four lines over one quantity, with the place of each frame on it.

    Heights that are not finite are left out. A logarithmic horizontal axis shows
    log(1 + place), so that iteration 0 has a place on it; on a logarithmic vertical
    axis heights <= 0 lie at the bottom.

    Args:
        lines: name of a line -> its role, its places and its heights.
        marks: for each frame, the place that its marks show.
        xlabel, ylabel: what the axes measure.
        log: whether the horizontal and the vertical axis are logarithmic.
        end: the horizontal axis reaches at least to here.
    """

    lines: Mapping[str, tuple[str, Sequence[float], Sequence[float]]]
    marks: Sequence[float]
    xlabel: str
    ylabel: str
    log: tuple[bool, bool] = (False, False)
    end: float = 0

    def __post_init__(self) -> None:
        if not 1 <= len(self.lines) <= len(_DASHES):
            raise ValueError(f"a curve has 1 to 4 lines, got {len(self.lines)}.")
        for name, (_, places, heights) in self.lines.items():
            if len(places) != len(heights):
                raise ValueError(
                    f"line {name!r} has {len(heights)} heights at {len(places)} places."
                )

    def positions(self) -> list[list[float | None]]:
        """Where the marks of each frame lie: x, then the y of each line, or None."""
        lookup = [
            {place: self._y(height) for place, height in points}
            for points in self._points.values()
        ]
        return [
            [round(self._x(place), 1), *(table.get(place) for table in lookup)]
            for place in self.marks
        ]

    def html(self, frame: int) -> str:
        """The curve as an inline SVG, with its marks where a frame has them."""
        x, *ys = self.positions()[frame]
        roles = [role for role, _, _ in self.lines.values()]
        cursor = (
            f'<line class="precode-cursor" x1="{x}" x2="{x}" y1="{_TOP}" '
            f'y2="{_HEIGHT - _BOTTOM}"/>'
        )
        marks = "".join(
            f'<circle class="precode-mark" r="5" cx="{x}" cy="{y or 0}" '
            f'fill="var(--precode-{role})"{" hidden" if y is None else ""}/>'
            for role, y in zip(roles, ys, strict=True)
        )
        return (
            f'<svg class="precode-curve" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
            f'aria-label="{escape(self.text)}">{self._axes_html()}{cursor}'
            f"{self._lines_html()}{marks}</svg>"
        )

    @property
    def text(self) -> str:
        """The curve in words: where each line begins and ends."""
        ways = [
            f"{name} from {points[0][1]:.3g} to {points[-1][1]:.3g}"
            for name, points in self._points.items()
            if points
        ]
        return f"{self.ylabel} over {self.xlabel}: {'; '.join(ways) or 'nothing yet'}"

    @cached_property
    def _points(self) -> dict[str, list[tuple[float, float]]]:
        return {
            name: [
                point
                for point in zip(places, heights, strict=True)
                if math.isfinite(point[1])
            ]
            for name, (_, places, heights) in self.lines.items()
        }

    @cached_property
    def _reach(self) -> float:
        places = [place for points in self._points.values() for place, _ in points]
        return max([*places, self.end, 1])

    @cached_property
    def _range(self) -> tuple[float, float]:
        heights = [height for points in self._points.values() for _, height in points]
        if self.log[1]:
            heights = [height for height in heights if height > 0] or [1.0]
        low, high = min(heights, default=0), max(heights, default=1)
        if self.log[1]:
            return low / 1.3, high * 1.3
        margin = 0.05 * (high - low) or 0.5
        return low - margin, high + margin

    @property
    def _margin(self) -> float:
        """Right of the lines: room for their names, about 7.5 a letter."""
        longest = max(map(len, self.lines)) if len(self.lines) > 1 else 0
        return min(max(_RIGHT, 12 + 7.5 * longest), _WIDTH / 3)

    def _x(self, place: float) -> float:
        scale = math.log1p if self.log[0] else float
        return _LEFT + (_WIDTH - _LEFT - self._margin) * scale(place) / scale(
            self._reach
        )

    def _y(self, height: float) -> float:
        low, high = self._range
        if self.log[1]:
            low, high, height = map(math.log10, (low, high, max(height, low)))
        share = (height - low) / (high - low)
        return round(_HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * share, 1)

    def _axes_html(self) -> str:
        bottom, right = _HEIGHT - _BOTTOM, self._x(self._reach)
        places = _powers(0, self._reach) if self.log[0] else _round(0, self._reach)
        heights = (_powers if self.log[1] else _round)(*self._range)
        ticks = [
            f'<text x="{self._x(p):.1f}" y="{bottom + 17}" text-anchor="middle">{p:g}'
            "</text>"
            for p in places
        ]
        for height in heights:
            y = self._y(height)
            ticks.append(
                f'<line class="precode-grid" x1="{_LEFT}" x2="{right:.1f}" y1="{y}" '
                f'y2="{y}"/><text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">'
                f"{height:g}</text>"
            )
        return (
            f'{"".join(ticks)}<line class="precode-axis" x1="{_LEFT}" '
            f'x2="{right:.1f}" y1="{bottom}" y2="{bottom}"/>'
            f'<text x="{(_LEFT + right) / 2:.1f}" y="{_HEIGHT - 6}" '
            f'text-anchor="middle">{escape(self.xlabel)}</text>'
            f'<text x="4" y="14">{escape(self.ylabel)}</text>'
        )

    def _lines_html(self) -> str:
        drawn = []
        for dashes, (name, (role, _, _)) in zip(
            _DASHES, self.lines.items(), strict=False
        ):
            points = _thinned([(self._x(p), self._y(h)) for p, h in self._points[name]])
            path = " ".join(f"{x:.1f},{y:g}" for x, y in points)
            drawn.append(
                f'<polyline points="{path}" stroke="var(--precode-{role})" '
                f'stroke-dasharray="{dashes or "none"}"/>'
            )
        return "".join(drawn) + (self._names_html() if len(self.lines) > 1 else "")

    def _names_html(self) -> str:
        ends = {
            name: (self._x(points[-1][0]), self._y(points[-1][1]))
            for name, points in self._points.items()
            if points
        }
        heights = apart([y for _, y in ends.values()], _NAME_STEP)
        return "".join(
            f'<text x="{x + 9:.1f}" y="{y + 4:.1f}" class="precode-name" '
            f'style="--role-text:var(--precode-{self.lines[name][0]})">{escape(name)}</text>'
            for (name, (x, _)), y in zip(ends.items(), heights, strict=True)
        )


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The first, lowest, highest and last point of every pixel column."""
    columns: dict[int, list[int]] = {}
    for index, (x, _) in enumerate(points):
        columns.setdefault(int(x), []).append(index)
    kept = set()
    for inside in columns.values():
        by_height = sorted(inside, key=lambda index: points[index][1])
        kept |= {inside[0], inside[-1], by_height[0], by_height[-1]}
    return [points[index] for index in sorted(kept)]


def _powers(low: float, high: float) -> list[float]:
    """Up to about six powers of ten between the ends; on a zero-based axis also 0."""
    zero = [0.0] if low == 0 else []
    first = 0 if zero else math.ceil(math.log10(low))
    powers = range(first, math.floor(math.log10(high)) + 1)
    if len(powers) < 2:
        return zero + _round(low, high)[bool(zero) :]
    stride = math.ceil(len(powers) / 6)
    # A power below 1 needs the division: 10.0**-5 is not the float 1e-05.
    return zero + [float(f"1e{power}") for power in powers[::stride]]


def _round(low: float, high: float) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten, about four of them."""
    rough = (high - low) / 4
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]

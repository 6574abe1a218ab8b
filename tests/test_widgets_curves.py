"""The curve beside a film: its lines, its marks and its ticks agree with each other."""

import itertools
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from precode_lib.widgets import Axis, Curve, SliderFigure, curves

PLACES = [0, 1, 10, 100]
LOG = (True, True)


def curve(**options) -> Curve:
    lines = {"a": ("leaked", PLACES, [1.0, 0.1, 0.01, 0.001])}
    options = {"lines": lines, "marks": PLACES, "xlabel": "step", **options}
    return Curve(**{"ylabel": "objective", "log": LOG, **options})


def polylines(page: str) -> list[list[tuple[float, float]]]:
    drawn = re.findall(r'<polyline points="([^"]*)"', page)
    return [[tuple(map(float, p.split(","))) for p in d.split()] for d in drawn]


def test_each_mark_lies_on_its_line():
    drawn = curve()
    (line,) = polylines(drawn.html(0))
    assert [tuple(position) for position in drawn.positions()] == line


def test_equal_ratios_are_equal_distances_on_logarithmic_axes():
    xs, ys = zip(*curve().positions(), strict=True)
    steps = [high - low for low, high in itertools.pairwise(ys)]
    assert steps == pytest.approx([steps[0]] * 3, abs=0.11)
    assert steps[0] > 0  # SVG counts downwards
    scale = (xs[3] - xs[0]) / math.log(101)
    assert xs[2] - xs[0] == pytest.approx(scale * math.log(11), abs=0.1)


def test_linear_axes_are_linear():
    xs, ys = zip(*curve(log=(False, False)).positions(), strict=True)
    assert (xs[3] - xs[0]) / (xs[2] - xs[0]) == pytest.approx(10, rel=0.01)
    assert (ys[1] - ys[0]) / (ys[2] - ys[0]) == pytest.approx(0.9 / 0.99, rel=0.01)


def test_a_frame_shows_its_own_marks():
    drawn = curve()
    for index, (x, y) in enumerate(drawn.positions()):
        assert f'cx="{x}" cy="{y}"' in drawn.html(index)
        assert f'x1="{x}" x2="{x}"' in drawn.html(index)


def test_what_is_not_finite_is_left_out_and_has_no_mark():
    drawn = curve(lines={"a": ("leaked", PLACES, [1, math.nan, 0.1, math.inf])})
    assert len(polylines(drawn.html(0))[0]) == 2
    assert [y is None for _, y in drawn.positions()] == [False, True, False, True]
    assert " hidden" in drawn.html(1)
    assert " hidden" not in drawn.html(0)
    assert "from 1 to 0.1" in drawn.text


def test_what_is_not_positive_lies_at_the_bottom_of_a_logarithmic_axis():
    heights = [1, 0.1, 0, -1]
    ys = [y for _, y in curve(lines={"a": ("leaked", PLACES, heights)}).positions()]
    assert ys[3] == ys[2] > ys[1] > ys[0]


@pytest.mark.parametrize("heights", [[0.0] * 4, [2.0] * 4, [math.nan] * 4, [1e-30] * 4])
@pytest.mark.parametrize("log", [*itertools.product([True, False], repeat=2)])
def test_a_curve_without_a_range_is_drawn_nevertheless(heights, log):
    drawn = curve(lines={"a": ("leaked", PLACES, heights)}, log=log)
    assert "<svg" in drawn.html(0)


@given(st.floats(1e-12, 1e6), st.floats(1.0001, 1e12))
def test_ticks_lie_within_their_axis_and_are_few(low, ratio):
    for ticks in (curves._powers(low, low * ratio), curves._round(low, low * ratio)):
        assert 1 <= len(ticks) <= 12
        assert sorted(set(ticks)) == ticks
        slack = 1e-6 * low * ratio
        assert low - slack <= ticks[0] <= ticks[-1] <= low * ratio + slack


def test_ticks_are_numbers_that_people_would_write():
    assert curves._powers(0, 299) == [0, 1, 10, 100]
    assert curves._powers(2e-5, 2) == [1e-4, 1e-3, 1e-2, 1e-1, 1]
    assert curves._round(0, 299) == [0, 100, 200]
    assert curves._round(-0.5, 0.5) == [-0.5, 0, 0.5]


def test_thinning_keeps_the_ends_and_every_peak():
    points = [(i / 100, math.sin(i) + (50 if i == 777 else 0)) for i in range(2000)]
    thin = curves._thinned(points)
    assert len(thin) <= 4 * 20
    assert (thin[0], thin[-1]) == (points[0], points[-1])
    for select in (min, max):
        assert select(y for _, y in thin) == select(y for _, y in points)
    assert thin == sorted(thin)


def test_lines_are_named_at_their_ends_without_overlap_and_differ_in_dashes():
    lines = {name: ("leaked", PLACES, [1, 1, 1, 0.5]) for name in "ab<c"}
    page = curve(lines=lines).html(0)
    names = re.findall(r'y="([\d.]+)" class="precode-name"[^>]*>([^<]*)<', page)
    assert [name for _, name in names] == ["a", "b", "&lt;", "c"]
    heights = sorted(float(y) for y, _ in names)
    assert min(b - a for a, b in itertools.pairwise(heights)) >= 13.9
    assert len(set(re.findall(r'stroke-dasharray="([^"]*)"', page))) == 4


def test_a_single_line_needs_no_name():
    assert "precode-name" not in curve().html(0)


def test_the_axis_reaches_to_the_announced_end():
    short, long = curve().positions()[-1][0], curve(end=10_000).positions()[-1][0]
    assert long < short


def test_lines_that_cannot_be_drawn_are_refused():
    with pytest.raises(ValueError, match="1 to 4 lines, got 0"):
        curve(lines={})
    with pytest.raises(ValueError, match="'a' has 1 heights at 2 places"):
        curve(lines={"a": ("leaked", [0, 1], [0])})


def test_a_figure_needs_one_mark_per_frame(generator):
    from test_widgets import picture

    from precode_lib.plots import Panel

    frames = [[Panel("x", picture("a", step))] for step in range(3)]
    options = {"question": "q", "caption": "c", "curve": curve()}
    with pytest.raises(ValueError, match="4 marks for 3 frames"):
        SliderFigure(frames, [Axis("i", range(3))], **options)

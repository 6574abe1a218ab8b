"""Figures carry a caption and a text alternative, and change nothing they are given."""

import base64
import io
import itertools
import math
import re

import matplotlib as mpl
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from precode_lib.plots import (
    COLOURS,
    Panel,
    apart,
    as_figure,
    colour,
    colour_css,
    data_uri,
    describe,
    new_axes,
    pixelated,
    plot_bars,
    plot_curves,
    plot_dots,
    plot_strips,
    show_pictures,
    show_source,
    show_table,
    to_image,
)
from precode_lib.plots.charts import INK


def decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))


def luminance(code: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    channels = [int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
              for c in channels]  # fmt: skip
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("role", COLOURS)
def test_every_role_is_readable_as_text_on_light_and_on_dark_paper(role):
    light, dark = COLOURS[role]
    assert contrast(light, "#f5f3ee") >= 4.5
    assert contrast(dark, "#1d2127") >= 4.5


def test_css_names_every_colour_for_both_themes():
    css = colour_css()
    for role, pair in COLOURS.items():
        assert [f"--precode-{role}:{code};" in css for code in pair] == [True, True]


def test_an_unknown_role_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="original, leaked, defended"):
        colour("leakd")
    with pytest.raises(ValueError, match="leakd"):
        Panel("x", torch.rand(3, 2, 2), "leakd")


@pytest.mark.parametrize("shape", [(2, 2), (1, 3, 2, 2), (2, 4, 4)])
def test_a_panel_takes_one_picture(shape):
    with pytest.raises(ValueError, match="take one picture out of a batch"):
        Panel("x", torch.zeros(shape))


def test_a_picture_survives_the_way_into_a_page_exactly(generator):
    levels = torch.randint(0, 256, (3, 5, 7), generator=generator)
    image = decoded(data_uri(to_image(levels / 255)))
    assert image.size == (7, 5)
    back = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    assert torch.equal(back.long(), levels)


def test_a_grey_picture_becomes_three_equal_channels_and_outliers_are_clamped():
    image = to_image(torch.tensor([[[-1.0, 0.5, 2.0]]]))
    assert np.array(image).tolist() == [[[0] * 3, [128] * 3, [255] * 3]]


def test_showing_leaves_the_pixels_as_they_are(generator):
    pixels = torch.randn(3, 4, 4, generator=generator)
    before = pixels.clone()
    show_pictures([Panel("x", pixels)], caption="c")
    assert torch.equal(pixels, before)


def test_pictures_are_labelled_captioned_and_escaped():
    panel = Panel("a<b", torch.rand(3, 4, 4), "leaked", {"SSIM": "0.97"})
    figure = show_pictures([panel], caption="x & y")
    assert 'alt="a&lt;b"' in figure._repr_html_()
    assert "<figcaption>x &amp; y</figcaption>" in figure.html
    assert "<dt>SSIM</dt><dd>0.97</dd>" in figure.html
    assert "precode-leaked" in figure.html
    assert repr(figure) == "<figure: a<b: SSIM 0.97>"


def test_a_figure_can_be_a_table_of_so_many_pictures_across():
    panels = [Panel("x", torch.rand(1, 2, 2))] * 8
    loose = show_pictures(panels, caption="c", width=9).html
    assert '<div class="precode-panels" style="--size:9rem">' in loose
    table = show_pictures(panels, caption="c", width=9, across=4).html
    opening = (
        '<div class="precode-panels precode-across" style="--size:9rem;--across:4">'
    )
    assert opening in table
    with pytest.raises(ValueError, match="across must be at least 1"):
        show_pictures(panels, caption="c", across=0)


def test_no_panels_is_an_error():
    with pytest.raises(ValueError, match="at least one"):
        show_pictures([], caption="c")


def test_a_panel_is_described_by_its_label_and_values():
    assert describe(Panel("leaked", torch.rand(1, 2, 2))) == "leaked"
    values = {"SSIM": "0.5", "MSE": "0.1"}
    panel = Panel("leaked", torch.rand(1, 2, 2), "leaked", values)
    assert describe(panel) == "leaked: SSIM 0.5, MSE 0.1"


def test_only_small_pictures_keep_square_pixels():
    assert pixelated(Panel("x", torch.rand(3, 32, 32))) == " precode-pixelated"
    assert pixelated(Panel("x", torch.rand(3, 224, 224))) == ""


def bars(**options):
    heights = torch.tensor([0.2, -0.9, 0.7])
    return plot_bars(heights, names=["cat", "dog", "ship"], highlight=1, **options)


def test_bars_have_the_heights_names_and_the_one_highlight():
    ax = bars()
    heights = [patch.get_height() for patch in ax.patches]
    assert heights == pytest.approx([0.2, -0.9, 0.7])
    assert [label.get_text() for label in ax.get_xticklabels()] == [
        "cat", "dog", "ship"
    ]  # fmt: skip
    colours = [mpl.colors.to_hex(patch.get_facecolor()) for patch in ax.patches]
    assert colours == [colour("neutral"), colour("leaked"), colour("neutral")]


def test_a_plot_draws_on_the_axes_it_is_given():
    ax = new_axes()
    assert bars(ax=ax) is ax


def test_bars_without_a_name_each_are_refused():
    with pytest.raises(ValueError, match="3 heights but 2 names"):
        plot_bars(torch.zeros(3), names=["a", "b"], highlight=0)


def dots(*, names=("none", "noise"), **options):
    values = {"accuracy": ("original", [0.6, 0.4]), "SSIM": ("leaked", [0.9, 0.1])}
    return plot_dots(values, names=names, **options)


def test_dots_lie_at_their_values_on_the_line_of_their_name():
    ax = dots()
    lines = {line.get_label(): line for line in ax.lines}
    assert lines["accuracy"].get_xdata() == pytest.approx([0.6, 0.4])
    assert lines["SSIM"].get_xdata() == pytest.approx([0.9, 0.1])
    assert [list(line.get_ydata()) for line in ax.lines] == [[0, 1], [0, 1]]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["none", "noise"]
    bottom, top = ax.get_ylim()
    assert bottom > top  # the first name is on top
    assert lines["SSIM"].get_color() == colour("leaked")
    assert {line.get_marker() for line in ax.lines} == {"o", "s"}


@pytest.mark.parametrize(
    "words", ["{}", "SSIM with a picture {}", "a picture of a large mountain {}"]
)
def test_a_legend_of_dots_stays_on_the_figure(words):
    values = {words.format(i): ("leaked", [0.5]) for i in range(3)}
    ax = plot_dots(values, names=["none"])
    figure = ax.figure
    figure.draw_without_rendering()
    box = ax.get_legend().get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1
    assert box.y1 <= figure.bbox.y1


def test_dots_draw_where_they_are_told_and_refuse_what_does_not_fit():
    ax = new_axes()
    assert dots(ax=ax) is ax
    with pytest.raises(ValueError, match="2 values of 'accuracy' but 1 names"):
        dots(names=["none"])


CURVES = {
    "plain": ("leaked", [1.0, 0.1, 0.010]),
    "noisy": ("leaked", [1.0, 0.2, 0.011]),
    "pruned": ("leaked", [1.0, 0.3, 0.0102]),
    "PRECODE": ("defended", [1.0, 1.0, 0.9]),
    "clean": ("original", [1.0, 1.0, 0.9]),
    "chance": ("neutral", [0.01, 0.01, 0.0101]),
}


def test_curves_lie_at_their_values_in_the_colour_of_their_role():
    ax = plot_curves(CURVES, x=[1, 10, 100], xlabel="step", log=(True, True))
    for line, (role, heights) in zip(ax.lines, CURVES.values(), strict=True):
        assert list(line.get_xdata()) == [1, 10, 100]
        assert list(line.get_ydata()) == heights
        assert line.get_color() == colour(role)
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert ax.get_xlabel() == "step"
    assert ax.get_legend() is None


def test_curves_of_one_role_differ_in_dashes():
    lines = plot_curves(CURVES).lines
    assert len({line._unscaled_dash_pattern for line in lines[:3]}) == 3
    plain = (0, None)
    assert [line._unscaled_dash_pattern for line in lines[3:]] == [plain] * 3


@pytest.mark.parametrize("log", [(False, False), (False, True)])
@pytest.mark.parametrize("limits", [None, (0.005, 400)])
def test_the_names_of_curves_neither_overlap_nor_leave_the_figure(log, limits):
    ax = plot_curves(CURVES, log=log, xlabel="step", ylabel="objective")
    if limits:
        ax.set_ylim(*limits)
    ax.figure.savefig(io.BytesIO(), format="png")
    extent = mpl.text.Text.get_window_extent  # without the line to the curve
    boxes = sorted(map(extent, ax.texts), key=lambda box: box.y0)
    assert len(boxes) == len(CURVES)
    for low, high in itertools.pairwise(boxes):
        assert low.y1 <= high.y0
    right_edge = ax.figure.bbox.x1
    for box in boxes:
        assert box.x0 > ax.bbox.x1 - 2
        assert box.x1 <= right_edge
        assert 0 <= box.y0 < box.y1 <= ax.figure.bbox.y1


def test_a_curve_on_its_own_is_named_at_the_height_of_its_end():
    curve = {"only": ("leaked", [1.0, 5.0, 0.5, math.nan])}
    ax = plot_curves(curve)
    ax.set_ylim(0, 2)
    (name,) = ax.texts
    assert name.get_text() == "only"
    assert name.get_position()[1] == pytest.approx(0.25)
    assert name.get_color() == colour("leaked")


@given(st.lists(st.floats(-1, 2), min_size=1, max_size=8))
def test_names_keep_their_order_and_their_distance(heights):
    placed = apart(heights, 0.1)
    order = sorted(range(len(heights)), key=heights.__getitem__)
    for low, high in itertools.pairwise(order):
        assert placed[high] - placed[low] >= 0.1 - 1e-9
    if all(heights[b] - heights[a] >= 0.1 for a, b in itertools.pairwise(order)):
        assert placed == pytest.approx(heights)


def test_a_spread_is_a_band_in_the_colour_of_its_curve():
    ax = plot_curves(
        {"mean": ("defended", torch.tensor([1.0, 2.0]))},
        spread={"mean": ([0.5, 1.0], torch.tensor([1.5, 3.0]))},
    )
    (band,) = ax.collections
    assert mpl.colors.to_hex(band.get_facecolor()[0]) == colour("defended")
    corners = band.get_paths()[0].vertices
    assert (corners[:, 1].min(), corners[:, 1].max()) == (0.5, 3.0)
    html = as_figure(ax, caption="c", alt="a").html
    assert COLOURS["defended"][0] not in html[html.index("<svg") :]


@pytest.mark.parametrize(
    ("curves", "options", "message"),
    [
        ({}, {}, "1 to 8 lines, got 0"),
        ({str(i): ("leaked", [1]) for i in range(9)}, {}, "got 9"),
        ({"a": ("leakd", [1])}, {}, "leakd"),
        ({"a": ("leaked", [])}, {}, "0 values of 'a'"),
        ({"a": ("leaked", [1, 2])}, {"x": [1]}, "2 values of 'a' for 1 places"),
        ({"a": ("leaked", [0, -1])}, {"log": (False, True)}, "not positive"),
        ({"a": ("leaked", [1])}, {"spread": {"b": ([1], [1])}}, "'b'.* none of"),
        ({"a": ("leaked", [1])}, {"spread": {"a": ([1, 2], [1])}}, r"\[2, 1\]"),
    ],
)
def test_curves_that_cannot_be_drawn_are_refused(curves, options, message):
    with pytest.raises(ValueError, match=message):
        plot_curves(curves, **options)


def test_curves_draw_where_they_are_told():
    ax = new_axes()
    assert plot_curves(CURVES, ax=ax) is ax


def test_plotting_leaves_matplotlib_settings_and_pyplot_alone():
    before = dict(mpl.rcParams)
    as_figure(bars(), caption="c", alt="a")
    assert dict(mpl.rcParams) == before


def test_a_plot_follows_the_page_in_colour_and_says_what_it_shows():
    figure = as_figure(bars(), caption="c", alt='the "dog" bar')
    assert 'role="img" aria-label="the &quot;dog&quot; bar"' in figure.html
    assert "currentColor" in figure.html
    assert "var(--precode-leaked)" in figure.html
    svg = figure.html[figure.html.index("<svg") :]
    for code in [INK, *(pair[0] for pair in COLOURS.values())]:
        assert code not in svg
    assert "<metadata>" not in svg


def test_a_plot_keeps_only_identifiers_that_something_refers_to():
    html = as_figure(bars(), caption="c", alt="a").html
    svg = html[html.index("<svg") :]
    names = re.findall(r' id="([\w-]+)"', svg)
    assert names
    assert all(f"#{name}" in svg for name in names)


def test_a_function_is_shown_as_it_stands_in_the_library():
    source = show_source(describe)
    assert repr(source).startswith("def describe(panel: Panel) -> str:")
    assert source._repr_markdown_().startswith("```python\ndef describe")
    assert source._repr_markdown_().endswith("\n```")


def test_a_table_puts_the_published_number_below_ours():
    heads = ["model", "MSE"]
    figure = show_table(heads, [["a & b", ("0.1", "0.2")]], caption="Close.")
    assert '<th scope="row">a &amp; b</th>' in figure.html
    assert "<td>0.1<small>0.2</small></td>" in figure.html
    alone = show_table(heads, [["a", ("0.1", "")]], caption="Close.")
    assert "<td>0.1</td>" in alone.html
    assert "<small>" not in alone.html


def test_the_numbers_of_a_wide_table_know_their_heads():
    heads = ["", "a", "b", "c", "d"]
    line = ["x", "1", ("2", "3"), "", "4"]
    assert " data-head=" not in show_table(heads, [line], caption="Few.").html
    wide = show_table([*heads, "<e>"], [[*line, "5"]], caption="Many.", names=2).html
    assert 'class="precode-table precode-wide"' in wide
    assert '<th scope="row">x</th><th scope="row">1</th><td data-head="b">2' in wide
    assert '<td data-head="&lt;e&gt;">5</td>' in wide


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("-0.00", "0.00"),
        ("0 of 16 (-0.00)", "0 of 16 (0.00)"),
        ("-0", "0"),
        ("-0.01", "-0.01"),
        ("1e-0", "1e-0"),
        ("16-0.00", "16-0.00"),
        ("-0.001", "-0.001"),
    ],
)
def test_a_number_rounded_to_nothing_has_no_sign(text, shown):
    table = show_table(["", "SSIM"], [["x", (text, text)]], caption="c").html
    assert f"<td>{shown}<small>{shown}</small></td>" in table
    panel = Panel("found", torch.zeros(1, 2, 2), values={"SSIM": text})
    assert panel.values == {"SSIM": shown}


def test_a_table_refuses_a_line_of_another_length():
    with pytest.raises(ValueError, match="line 1 has 1 cells, the table 2"):
        show_table(["a", "b"], [["x", "y"], ["x"]], caption="Wrong.")


def test_strips_keep_every_value_on_the_line_of_its_name():
    ax = plot_strips({"one": ("leaked", [0.1, 0.5]), "two": ("defended", [0.3])})
    first, second = ax.lines
    assert list(first.get_xdata()) == [0.1, 0.5]
    assert list(first.get_ydata()) == [0, 0]
    assert list(second.get_ydata()) == [1]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["one", "two"]

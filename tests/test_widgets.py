"""Sliders show the frame they point at, live and without a kernel."""

import base64
import html
import io
import json
import re

import ipywidgets
import pytest
import torch
from PIL import Image

from precode_lib.data import victims
from precode_lib.plots import Panel, to_image
from precode_lib.widgets import Axis, SliderFigure, explore
from precode_lib.widgets import sheet as sheets
from precode_lib.widgets.live import Explorer

AXES = [
    Axis("row", ["a", "b"], "Row", text=str, choice=True),
    Axis("step", [0, 1, 2], unit="steps", start=1, play=True),
]


def picture(row: str, step: int) -> torch.Tensor:
    seed = {"a": 0, "b": 10}[row] + step
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, 4, 6), generator=generator) / 255


ORIGINAL = picture("b", 9)


def render(row, step):
    return [
        Panel("original", ORIGINAL, "original"),
        Panel("leaked", picture(row, step), "leaked", {"SSIM": f"{row}{step}"}),
    ]


def figure(**options) -> SliderFigure:
    options = {"question": "What?", "caption": "See <this>.", **options}
    return explore(render, AXES, static=True, **options)


def config(page: str) -> dict:
    return json.loads(html.unescape(re.search(r'data-config="([^"]*)"', page)[1]))


def sheet(page: str) -> Image.Image:
    encoded = re.search(r"data:image/webp;base64,([^)\"]*)", page)[1]
    return Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")


def tile(page: str, index: int) -> Image.Image:
    chosen = config(page)
    row, column = divmod(index, chosen["columns"])
    width, height = (
        chosen[side] + 2 * chosen["gutter"] for side in ("width", "height")
    )
    left, top = column * width + chosen["gutter"], row * height + chosen["gutter"]
    box = (left, top, left + chosen["width"], top + chosen["height"])
    return sheet(page).crop(box)


def test_every_setting_points_at_exactly_its_own_pictures():
    page = figure()._repr_html_()
    tiles = config(page)["tiles"]
    settings = [(row, step) for row in "ab" for step in range(3)]
    assert len(tiles) == len(settings)
    for setting, (original, leaked) in zip(settings, tiles, strict=True):
        assert tile(page, original).tobytes() == to_image(ORIGINAL).tobytes()
        assert tile(page, leaked).tobytes() == to_image(picture(*setting)).tobytes()


def test_a_picture_that_recurs_is_stored_once():
    tiles = config(figure()._repr_html_())["tiles"]
    assert {frame[0] for frame in tiles} == {0}
    assert len({index for frame in tiles for index in frame}) == 7


def test_values_sentences_and_texts_follow_the_same_order():
    chosen = config(figure()._repr_html_())
    assert chosen["values"] == [["a0"], ["a1"], ["a2"], ["b0"], ["b1"], ["b2"]]
    assert chosen["sentences"][5] == "Row b, step 2 steps. original; leaked: SSIM b2."
    assert chosen["axes"][1]["texts"] == ["0 steps", "1 steps", "2 steps"]


def test_the_page_starts_at_the_start_of_every_axis():
    page = figure()._repr_html_()
    assert "<dd>a1</dd>" in page
    assert re.search(r"<output [^>]*>1 steps</output>", page)
    assert 'value="1" aria-valuetext="1 steps"' in page
    place = config(page)["tiles"][1][1]
    chosen = config(page)
    column = place % chosen["columns"]
    offset = column * (chosen["width"] + 2) + 1
    share = 100 * offset / (chosen["columns"] * (chosen["width"] + 2) - chosen["width"])
    positions = re.findall(r"background-position:([\d.]+)%", page)
    assert float(positions[1]) == pytest.approx(share, abs=1e-3)


def test_controls_are_labelled_and_the_figure_explains_itself():
    page = figure()._repr_html_()
    names = re.findall(r'<(?:input|select) id="([\w-]+)"', page)
    assert len(set(names)) == 2
    for name in names:
        assert f'<label for="{name}">' in page
    assert "What?" in page
    assert "<figcaption>See &lt;this&gt;.</figcaption>" in page
    assert 'data-lm-suppress-shortcuts="true"' in page
    assert page.count("precode-play") >= 1
    assert "<td>b2</td>" in page


def test_two_different_figures_share_no_identifier():
    other = explore(
        lambda step: [Panel("x", picture("a", step))],
        AXES[1:], question="", caption="", static=True,
    )  # fmt: skip
    pages = [figure()._repr_html_(), other._repr_html_()]
    ids = [set(re.findall(r' id="([^"]+)"', page)) for page in pages]
    assert not ids[0] & ids[1]


def test_a_figure_without_values_has_no_table():
    panels = [[Panel("x", picture("a", step))] for step in range(3)]
    page = SliderFigure(panels, AXES[1:], question="q", caption="c")._repr_html_()
    assert "<table>" not in page
    assert config(page)["values"] == [[], [], []]


def test_the_terminal_gets_one_line():
    assert repr(figure()) == "<sliders: Row (2), step (3); 6 frames>"


def test_nothing_is_loaded_from_elsewhere():
    page = figure()._repr_html_()
    assert not re.search(r"https?://|<link|<img|src=", page)


def test_the_build_asks_for_the_static_figure_by_environment(monkeypatch):
    options = {"question": "q", "caption": "c"}
    monkeypatch.setenv("PRECODE_STATIC", "1")
    assert isinstance(explore(render, AXES, **options), SliderFigure)
    monkeypatch.delenv("PRECODE_STATIC")
    assert isinstance(explore(render, AXES, **options), ipywidgets.VBox)


def test_live_sliders_draw_the_chosen_frame_and_draw_it_once():
    calls = []

    def counted(row, step):
        calls.append((row, step))
        return render(row, step)

    explorer = Explorer(counted, AXES, question="q", caption="c", rest=0)
    _, menu, slider, view, _ = explorer.show().children
    assert isinstance(menu, ipywidgets.Dropdown)
    assert isinstance(slider, ipywidgets.SelectionSlider)
    assert "<dd>a1</dd>" in view.value
    menu.value, slider.value = 1, 2
    assert explorer.background.wait(60)
    assert "<dd>b2</dd>" in view.value
    menu.value, slider.value = 0, 1
    assert explorer.background.wait(60)
    assert "<dd>a1</dd>" in view.value
    assert len(calls) == len(set(calls))


def test_an_axis_needs_values_and_a_start_among_them():
    with pytest.raises(ValueError, match="its 0 values"):
        Axis("x", [])
    with pytest.raises(ValueError, match="got 2"):
        Axis("x", [1, 2], start=2)


def test_explore_needs_an_axis():
    with pytest.raises(ValueError, match="at least one axis"):
        explore(render, [], question="q", caption="c")


def test_frames_and_axes_must_match_in_number():
    with pytest.raises(ValueError, match=r"\[2, 3\] values need 6 frames, got 1"):
        SliderFigure([render("a", 0)], AXES, question="q", caption="c")


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        (Panel("other", picture("a", 0)), "same labels"),
        (Panel("x", torch.rand(3, 5, 5)), "one size"),
    ],
)
def test_frames_that_differ_in_form_are_refused(odd, message):
    frames = [[Panel("x", picture("a", 0))], [odd]]
    with pytest.raises(ValueError, match=message):
        SliderFigure(frames, [Axis("i", [0, 1])], question="q", caption="c")


def test_a_sheet_that_no_browser_could_read_is_refused(monkeypatch):
    monkeypatch.setattr(sheets, "_LARGEST_SHEET", 8)
    with pytest.raises(ValueError, match="do not fit into one sheet"):
        figure()._repr_html_()


def test_large_sheets_are_stored_lossily_to_stay_small(generator):
    noise = torch.rand(3, 600, 600, generator=generator)
    panels = [[Panel("x", noise * share)] for share in (1, 0.9, 0.8, 0.7)]
    axis = Axis("i", range(4))
    page = SliderFigure(panels, [axis], question="q", caption="c")._repr_html_()
    assert sheet(page).size == (1204, 1204)
    assert len(page) < noise.numel() * 4


def noise_film(count: int, size: int) -> SliderFigure:
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(count, 3, size, size, generator=generator)
    frames = [[Panel("x", one, "leaked", {"SSIM": "0.00"})] for one in noise]
    axis = Axis("iteration", range(count), play=True)
    return SliderFigure(frames, [axis], question="q", caption="c")


def test_larger_sheets_keep_every_pixel_to_a_few_levels_of_255():
    figure = noise_film(40, 32)
    page = figure._repr_html_()
    assert len(page) < 150_000  # noise is the worst case; exact it would be 200 kB
    for (index,), (panel,) in zip(config(page)["tiles"], figure.frames, strict=True):
        pair = (tile(page, index), to_image(panel.pixels))
        shown, exact = (
            torch.tensor(list(image.tobytes()), dtype=torch.int) for image in pair
        )
        assert (shown - exact).abs().max() <= 4


def test_a_figure_of_forty_ordinary_pictures_weighs_less_than_100_kb():
    pictures = victims("photos", 20, size=32).pixels
    frames = [[Panel("x", one)] for half in (1, 0.5) for one in pictures * half]
    figure = SliderFigure(frames, [Axis("i", range(40))], question="q", caption="c")
    assert len(figure._repr_html_()) < 100_000


def test_a_figure_too_heavy_for_a_page_is_refused_before_it_is_shown():
    with pytest.raises(ValueError, match=r"90 frames of 1 pictures \(3, 99, 99\).* MB"):
        noise_film(90, 99)

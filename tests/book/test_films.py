"""The film of an attack in a browser: Play, Pause, and marks that follow the slider."""

from importlib.resources import files

import pytest
import torch

from precode_lib.plots import Panel
from precode_lib.widgets import Axis, Curve, SliderFigure

pytestmark = [pytest.mark.slow, pytest.mark.browser]

COUNT = 8
STEP = 180  # milliseconds from frame to frame
CALM_STEP = 1000
THEMES = {
    "light": "background: #f5f3ee",
    "dark": "background: #1d2127; --pst-color-text-base: #dde1e6;"
    " --pst-color-text-muted: #a5aeb8; color: #dde1e6",
}


@pytest.fixture(scope="module")
def film() -> SliderFigure:
    generator = torch.Generator().manual_seed(0)
    original = torch.rand(3, 8, 8, generator=generator)
    frames = [
        [
            Panel("original", original, "original"),
            Panel("guess", original * t / COUNT, "leaked", {"SSIM": f"0.{t}"}),
        ]
        for t in range(COUNT)
    ]
    heights = [1 / (1 + t) for t in range(COUNT)]
    lines = {"objective": ("leaked", range(COUNT), heights)}
    curve = Curve(lines, range(COUNT), "iteration", "objective", (True, True))
    axis = Axis("iteration", range(COUNT), "Iteration", text=str, play=True)
    return SliderFigure([*frames], [axis], question="q", caption="c", curve=curve)


@pytest.fixture
def show(film, browser, tmp_path):
    """Open the film on a page of its own whose clock stands still."""
    contexts = []

    def open_page(theme: str = "light", **options):
        page = (
            f'<!doctype html><html lang="en" data-theme="{theme}"><title>t</title>'
            f"<style>:root {{ {THEMES[theme]} }}</style>"
            '<meta name="viewport" content="width=device-width">'
            f"<main><h1>t</h1>{film._repr_html_()}</main></html>"
        )
        (tmp_path / "film.html").write_text(page, encoding="utf-8")
        contexts.append(browser.new_context(**options))
        opened = contexts[-1].new_page()
        opened.clock.install(time=0)
        opened.goto((tmp_path / "film.html").as_uri())
        opened.clock.pause_at(3_600_000)
        return opened

    yield open_page
    for context in contexts:
        context.close()


def button(page):
    return page.locator(".precode-play")


def slider(page):
    return page.locator("input[type=range]")


def frame(page) -> int:
    return int(slider(page).input_value())


def test_a_film_waits_until_it_is_asked_to_play(show):
    page = show()
    page.clock.run_for(10 * STEP)
    assert frame(page) == 0
    assert button(page).inner_text() == "Play"


def test_the_keyboard_plays_and_pauses(show):
    page = show()
    page.keyboard.press("Tab")
    assert button(page).evaluate("node => node === document.activeElement")
    page.keyboard.press("Enter")
    assert button(page).get_attribute("aria-label") == "Pause: Iteration"
    page.clock.run_for(3 * STEP)
    assert frame(page) == 3
    assert page.locator("dd").first.inner_text() == "0.3"
    page.keyboard.press("Space")
    assert button(page).get_attribute("aria-label") == "Play: Iteration"
    page.clock.run_for(10 * STEP)
    assert frame(page) == 3
    assert "guess: SSIM 0.3" in page.locator("[role=status]").text_content()


def test_a_film_ends_at_its_last_frame_and_begins_anew(show):
    page = show()
    button(page).click()
    page.clock.run_for((COUNT + 5) * STEP)
    assert frame(page) == COUNT - 1
    assert button(page).inner_text() == "Play"
    button(page).click()
    assert frame(page) == 0
    page.clock.run_for(2 * STEP)
    assert frame(page) == 2


def test_moving_the_slider_stops_the_film(show):
    page = show()
    button(page).click()
    page.clock.run_for(STEP)
    slider(page).press("End")
    slider(page).press("ArrowLeft")
    page.clock.run_for(10 * STEP)
    assert frame(page) == COUNT - 2
    assert button(page).inner_text() == "Play"


def test_who_wants_less_motion_gets_a_slow_sequence(show):
    page = show(reduced_motion="reduce")
    assert frame(page) == 0
    button(page).click()
    page.clock.run_for(CALM_STEP - 1)
    assert frame(page) == 0
    page.clock.run_for(CALM_STEP)
    assert frame(page) == 1


def test_the_mark_and_the_line_below_it_follow_the_slider(show, film):
    page = show()
    for index, (x, y) in enumerate(film.curve.positions()):
        mark = page.locator(".precode-mark")
        assert float(mark.get_attribute("cx")) == x
        assert float(mark.get_attribute("cy")) == y
        assert float(page.locator(".precode-cursor").get_attribute("x1")) == x
        assert frame(page) == index
        slider(page).press("ArrowRight")


@pytest.mark.parametrize("width", [390, 900])
def test_a_film_fits_its_page_and_no_text_is_cut(show, width):
    page = show(viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    curve = page.locator("svg.precode-curve").bounding_box()
    for text in page.locator("svg.precode-curve text").all():
        box = text.bounding_box()
        assert box["x"] >= curve["x"] - 1
        assert box["x"] + box["width"] <= curve["x"] + curve["width"] + 1


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_film_has_no_serious_accessibility_violation(show, theme):
    page = show(theme)
    page.clock.resume()  # axe waits
    page.locator("summary").click()
    page.add_script_tag(path=files("axe_playwright_python") / "axe.min.js")
    found = page.evaluate("axe.run().then((report) => report.violations)")
    serious = [
        (violation["id"], [node["html"][:150] for node in violation["nodes"]])
        for violation in found
        if violation["impact"] in ("serious", "critical")
    ]
    assert serious == []

"""Every slider of every page, moved as readers move it: by keyboard and by mouse."""

import itertools
import json
import re

import pytest
from book_site import documents

pytestmark = [pytest.mark.slow, pytest.mark.browser]

FIGURE = "figure.precode-slider"


@pytest.fixture(params=documents(), scope="module")
def figures(request, site, visit_in_module):
    """The figures with sliders of a document, opened once and only if it has any.

    Its clock runs, and can be moved on to what takes time.
    """
    if not has_sliders(site, request.param):
        yield []
        return
    page = visit_in_module(request.param, clock=True).page
    yield page.locator(FIGURE).all()
    visit_in_module.close_all()


def has_sliders(site, document: str) -> bool:
    # As a class of an element: the style of every figure names it, too.
    text = (site / f"{document}.html").read_text(encoding="utf-8")
    return 'class="precode-figure precode-slider"' in text


# All that a figure shows, in one question to the browser: there are many to ask.
LOOK = """node => {
  const texts = (selector) =>
    [...node.querySelectorAll(selector)].map(one => one.textContent);
  const controls = [...node.querySelectorAll(".precode-control")];
  return {
    pictures: [...node.querySelectorAll(".precode-picture")]
      .map(one => getComputedStyle(one).backgroundPosition),
    values: texts("dd"),
    marks: [...node.querySelectorAll(".precode-mark")]
      .map(one => one.getAttribute("cx")),
    chosen: controls.map(one => (one.querySelector("output")
      ?? one.querySelector("option:checked")).textContent),
    spoken: controls.map(one => one.querySelector("input")
      ?.getAttribute("aria-valuetext")),
    positions: controls.map(one => one.querySelector("input, select").value),
    sentence: texts("[role=status]")[0],
    rows: [...node.querySelectorAll("tbody tr")]
      .map(row => [...row.cells].map(cell => cell.textContent)),
  };
}"""


def look(figure) -> dict:
    """What a figure shows now, once it is known to agree with itself."""
    seen = figure.evaluate(LOOK)
    check_consistent(seen)
    return seen


def shown(seen: dict) -> str:
    """All that a slider may move: pictures, numbers and the marks on a curve."""
    return json.dumps([seen["pictures"], seen["values"], seen["marks"]])


def check_consistent(seen: dict) -> None:
    """What is shown, what is read out and the table agree."""
    chosen, values = seen["chosen"], seen["values"]
    for written, spoken in zip(chosen, seen["spoken"], strict=True):
        assert spoken in (None, written)  # a menu says its option by itself
    if seen["sentence"]:  # nothing is read out before something moves
        assert all(text in seen["sentence"] for text in [*values, *chosen])
    if values:
        rows = [row for row in seen["rows"] if row[: len(chosen)] == chosen]
        assert rows == [[*chosen, *values]]


def telling(figure, moved: int) -> tuple[int, ...]:
    """A setting from which one axis changes what is shown.

    Not every setting will do: without noise, say, the noise's seed changes nothing.
    """
    config = json.loads(figure.get_attribute("data-config"))
    sizes = [len(axis["texts"]) for axis in config["axes"]]
    looks: dict[tuple[int, ...], set[str]] = {}
    for frame, setting in enumerate(itertools.product(*map(range, sizes))):
        others = (*setting[:moved], 0, *setting[moved + 1 :])
        look = [config["tiles"][frame], config["values"][frame]]
        looks.setdefault(others, set()).add(json.dumps(look))
    best = max(looks, key=lambda others: len(looks[others]))
    assert len(looks[best]) > 1, "a slider that changes nothing at any setting"
    return best


def put(control, value: int) -> None:
    """Move a slider or a menu to its value of this index."""
    if control.get_attribute("type") != "range":
        control.select_option(index=value)
        return
    control.press("Home")
    for _ in range(value):
        control.press("ArrowRight")


def walked(figure, moved: int) -> int:
    """How many different frames the arrow keys show from one end to the other."""
    slider = figure.locator("input[type=range], select").nth(moved)
    slider.press("Home")
    states = [shown(look(figure))]
    for position in range(int(slider.get_attribute("max"))):
        slider.press("ArrowRight")
        seen = look(figure)
        assert seen["positions"][moved] == str(position + 1)
        assert seen["sentence"]
        states.append(shown(seen))
    slider.press("Home")
    assert shown(look(figure)) == states[0]
    return len(set(states))


def play_to_the_end(page, button) -> None:
    slider = button.locator("xpath=following-sibling::input")
    button.click()
    assert button.inner_text() == "Pause"
    page.clock.run_for(1000 * (int(slider.get_attribute("max")) + 1))
    assert slider.input_value() == slider.get_attribute("max")
    assert button.inner_text() == "Play"


def test_the_book_has_sliders_to_move(site):
    assert sum(has_sliders(site, document) for document in documents()) >= 2


def set_to_tell(figure, moved: int) -> None:
    """Put all controls where moving this one shows something."""
    controls = figure.locator("input[type=range], select").all()
    for control, value in zip(controls, telling(figure, moved), strict=True):
        put(control, value)


def test_every_slider_follows_the_arrow_keys(figures):
    for figure in figures:
        controls = figure.locator("input[type=range], select").all()
        for index, control in enumerate(controls):
            if control.get_attribute("type") == "range":
                set_to_tell(figure, index)
                assert walked(figure, index) > 1, control.get_attribute("id")


def test_every_slider_follows_the_mouse(figures):
    for figure in figures:
        for slider in figure.locator("input[type=range]").all():
            box = slider.bounding_box()
            states = set()
            # Where a slider already is, a click changes nothing.
            slider.press("Home")
            for x, value in [(box["width"] - 3, slider.get_attribute("max")), (3, "0")]:
                slider.click(position={"x": x, "y": box["height"] / 2})
                assert slider.input_value() == value
                seen = look(figure)
                assert seen["sentence"]
                states.add(shown(seen) + "".join(seen["chosen"]))
            assert len(states) == 2


def test_every_menu_changes_the_picture(figures):
    for figure in figures:
        controls = figure.locator("input[type=range], select").all()
        for index, menu in enumerate(controls):
            if menu.get_attribute("type") == "range":
                continue
            set_to_tell(figure, index)
            states = set()
            for option in range(menu.locator("option").count()):
                menu.select_option(index=option)
                states.add(shown(look(figure)))
            assert len(states) > 1, menu.get_attribute("id")


def test_every_play_button_plays_to_the_end(figures):
    for figure in figures:
        for button in figure.locator(".precode-play").all():
            play_to_the_end(figure.page, button)


def test_every_control_has_a_name_and_is_reached_by_tab(figures):
    for figure in figures:
        controls = figure.locator("input[type=range], select, .precode-play").all()
        assert controls
        names = [
            control.evaluate("node => node.ariaLabel ?? node.labels[0].textContent")
            for control in controls
        ]
        assert all(name.strip() for name in names)
        controls[0].focus()
        for control in controls[1:]:
            figure.page.keyboard.press("Tab")
            assert control.evaluate("node => node === document.activeElement")


# --- what only pixels can tell, on the welcome page -----------------------------------


@pytest.fixture
def figure(visit):
    return visit("book/welcome").page.locator(FIGURE).first


def leaked(figure) -> bytes:
    return figure.locator(".precode-leaked .precode-picture").first.screenshot()


def test_moving_a_slider_repaints_the_picture_and_moving_back_restores_it(figure):
    slider = figure.locator("input[type=range]").first
    before = leaked(figure)
    slider.press("End")
    assert leaked(figure) != before
    slider.press("Home")
    assert leaked(figure) == before


def test_a_menu_repaints_both_pictures(figure):
    original = figure.locator(".precode-original .precode-picture").first
    before = original.screenshot(), leaked(figure)
    figure.locator("select").first.select_option(index=1)
    assert original.screenshot() != before[0]
    assert leaked(figure) != before[1]


def test_colours_follow_the_theme(visit):
    colours = set()
    for theme in ("light", "dark"):
        page = visit("book/welcome", color_scheme=theme).page
        label = page.locator(".precode-leaked .precode-label").first
        colours.add(label.evaluate("node => getComputedStyle(node).color"))
    assert len(colours) == 2


def test_without_scripts_the_first_picture_and_the_table_are_there(visit):
    page = visit("book/welcome", java_script_enabled=False).page
    figure = page.locator(FIGURE).first
    assert figure.locator("input[type=range]").first.is_disabled()
    assert "turn on JavaScript" in figure.locator("noscript").inner_text()
    box = figure.locator(".precode-picture").first.bounding_box()
    assert box["width"] == pytest.approx(box["height"], abs=1)
    figure.locator("summary").click()
    assert figure.locator("tbody tr").first.is_visible()
    assert re.search(r"\d", figure.locator("tbody").inner_text())

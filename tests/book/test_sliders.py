"""Every slider of every page, moved as readers move it: by keyboard and by mouse."""

import itertools
import json
import re

import pytest
from book_site import documents

pytestmark = [pytest.mark.slow, pytest.mark.browser]

FIGURE = "figure.precode-slider"


@pytest.fixture
def figures(site, visit):
    """The figures with sliders of a document, which is opened only if it has any."""

    def find(document: str) -> list:
        text = (site / f"{document}.html").read_text(encoding="utf-8")
        if "precode-slider" not in text:
            return []
        return visit(document).page.locator(FIGURE).all()

    return find


def shown(figure) -> str:
    """All that a slider may move: pictures, numbers and the marks on a curve."""
    state = figure.evaluate(
        """node => [
          [...node.querySelectorAll(".precode-picture")]
            .map(one => getComputedStyle(one).backgroundPosition),
          [...node.querySelectorAll("dd")].map(one => one.textContent),
          [...node.querySelectorAll(".precode-mark")]
            .map(one => one.getAttribute("cx")),
        ]"""
    )
    return json.dumps(state)


def chosen_row(figure) -> list[str]:
    """What the table of all values says about the settings that are shown."""
    chosen = figure.locator(".precode-control").evaluate_all(
        """nodes => nodes.map(node => (node.querySelector("output")
          ?? node.querySelector("option:checked")).textContent)"""
    )
    rows = figure.locator("tbody tr").evaluate_all(
        "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
    )
    (row,) = [row for row in rows if row[: len(chosen)] == chosen]
    return row[len(chosen) :]


def check_consistent(figure, control) -> None:
    """What is shown, what is read out and the table agree."""
    values = figure.locator("dd").all_text_contents()
    assert not values or values == chosen_row(figure)
    sentence = figure.locator("[role=status]").text_content()
    assert all(value in sentence for value in values)
    if control.get_attribute("type") == "range":
        spoken = control.get_attribute("aria-valuetext")
        name = control.get_attribute("id")
        assert spoken == figure.locator(f"output[for={name}]").inner_text()
        assert spoken in sentence


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


def walked(figure, slider) -> int:
    """How many different frames the arrow keys show from one end to the other."""
    slider.press("Home")
    states = {shown(figure)}
    for position in range(int(slider.get_attribute("max"))):
        assert slider.input_value() == str(position)
        slider.press("ArrowRight")
        states.add(shown(figure))
        check_consistent(figure, slider)
    assert slider.input_value() == slider.get_attribute("max")
    slider.press("Home")
    assert shown(figure) in states
    return len(states)


def play_to_the_end(page, button) -> None:
    slider = button.locator("xpath=following-sibling::input")
    button.click()
    assert button.inner_text() == "Pause"
    page.clock.run_for(1000 * (int(slider.get_attribute("max")) + 1))
    assert slider.input_value() == slider.get_attribute("max")
    assert button.inner_text() == "Play"


def test_the_book_has_sliders_to_move(figures):
    assert sum(len(figures(name)) for name in documents()) >= 2


@pytest.mark.parametrize("document", documents())
def test_every_slider_follows_the_arrow_keys(figures, document):
    for figure in figures(document):
        controls = figure.locator("input[type=range], select").all()
        for index, control in enumerate(controls):
            if control.get_attribute("type") == "range":
                for other, value in zip(controls, telling(figure, index), strict=True):
                    put(other, value)
                assert walked(figure, control) > 1, control.get_attribute("id")


@pytest.mark.parametrize("document", documents())
def test_every_slider_follows_the_mouse(figures, document):
    for figure in figures(document):
        for slider in figure.locator("input[type=range]").all():
            box = slider.bounding_box()
            states = set()
            # Where a slider already is, a click changes nothing.
            slider.press("Home")
            for x, value in [(box["width"] - 3, slider.get_attribute("max")), (3, "0")]:
                slider.click(position={"x": x, "y": box["height"] / 2})
                assert slider.input_value() == value
                check_consistent(figure, slider)
                states.add(shown(figure) + slider.get_attribute("aria-valuetext"))
            assert len(states) == 2


@pytest.mark.parametrize("document", documents())
def test_every_menu_changes_the_picture(figures, document):
    for figure in figures(document):
        for menu in figure.locator("select").all():
            states = set()
            for index in range(menu.locator("option").count()):
                menu.select_option(index=index)
                check_consistent(figure, menu)
                states.add(shown(figure))
            assert len(states) > 1, menu.get_attribute("id")


@pytest.mark.parametrize("document", documents())
def test_every_play_button_plays_to_the_end(figures, document):
    for figure in figures(document):
        figure.page.clock.install()
        figure.page.reload()
        for button in figure.locator(".precode-play").all():
            play_to_the_end(figure.page, button)


@pytest.mark.parametrize("document", documents())
def test_every_control_has_a_name_and_is_reached_by_tab(figures, document):
    for figure in figures(document):
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

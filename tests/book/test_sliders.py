"""The sliders of the welcome page, moved as readers move them."""

import re

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.browser]


@pytest.fixture
def figure(visit):
    page = visit("book/welcome").page
    return page.locator("figure.precode-slider").first


def slider(figure):
    return figure.locator("input[type=range]").first


def leaked(figure) -> bytes:
    return figure.locator(".precode-leaked .precode-picture").first.screenshot()


def chosen_row(figure) -> list[str]:
    """What the table of all values says about the settings that are shown."""
    menus = figure.locator("select").all()
    shown = [menu.locator("option:checked").inner_text() for menu in menus]
    shown += [output.inner_text() for output in figure.locator("output").all()]
    for row in figure.locator("tbody tr").all():
        cells = row.locator("td").all_text_contents()
        if set(shown) <= set(cells):
            return cells
    raise AssertionError(f"no row for {shown}")


def test_arrow_keys_change_the_picture_the_values_and_what_is_read_out(figure):
    before, texts = leaked(figure), figure.locator("dd").all_inner_texts()
    slider(figure).focus()
    for _ in range(8):
        figure.page.keyboard.press("ArrowRight")
    assert slider(figure).input_value() == "8"
    assert leaked(figure) != before
    now = figure.locator("dd").all_inner_texts()
    assert now != texts
    assert all(value in chosen_row(figure) for value in now)
    spoken = slider(figure).get_attribute("aria-valuetext")
    assert spoken == figure.locator("output").first.inner_text()
    assert spoken in figure.locator("[role=status]").text_content()


def test_moving_back_restores_the_picture(figure):
    before = leaked(figure)
    slider(figure).focus()
    figure.page.keyboard.press("End")
    assert leaked(figure) != before
    figure.page.keyboard.press("Home")
    assert leaked(figure) == before


def test_a_click_on_the_track_changes_the_picture(figure):
    before = leaked(figure)
    box = slider(figure).bounding_box()
    slider(figure).click(position={"x": box["width"] - 5, "y": box["height"] / 2})
    assert slider(figure).input_value() == slider(figure).get_attribute("max")
    assert leaked(figure) != before


def test_a_menu_changes_both_pictures(figure):
    original = figure.locator(".precode-original .precode-picture").first
    before = original.screenshot(), leaked(figure)
    figure.locator("select").select_option(index=1)
    assert original.screenshot() != before[0]
    assert leaked(figure) != before[1]


def test_every_control_has_a_name_and_can_be_reached_by_tab(figure):
    controls = figure.locator("input[type=range], select")
    assert controls.count() == 2
    figure.page.keyboard.press("Tab")
    controls.first.focus()
    figure.page.keyboard.press("Tab")
    assert controls.nth(1).evaluate("node => node === document.activeElement")
    for control in controls.all():
        assert control.evaluate("node => node.labels[0].textContent").strip()


def test_colours_follow_the_theme(visit):
    colours = set()
    for theme in ("light", "dark"):
        page = visit("book/welcome", color_scheme=theme).page
        label = page.locator(".precode-leaked .precode-label").first
        colours.add(label.evaluate("node => getComputedStyle(node).color"))
    assert len(colours) == 2


def test_without_scripts_the_first_picture_and_the_table_are_there(visit):
    page = visit("book/welcome", java_script_enabled=False).page
    figure = page.locator("figure.precode-slider").first
    assert slider(figure).is_disabled()
    assert "turn on JavaScript" in figure.locator("noscript").inner_text()
    box = figure.locator(".precode-picture").first.bounding_box()
    assert box["width"] == pytest.approx(box["height"], abs=1)
    figure.locator("summary").click()
    assert figure.locator("tbody tr").first.is_visible()
    assert re.search(r"\d", figure.locator("tbody").inner_text())

"""How pictures stand beside each other in a browser, with the theme's styles."""

import pytest
import torch
from book_site import ROOT

from precode_lib.plots import Panel, figure_html, show_pictures, show_table
from precode_lib.widgets import Axis, SliderFigure
from precode_lib.widgets.figure import panels_html

pytestmark = [pytest.mark.slow, pytest.mark.browser]

# Left edge, top edge and width of each picture.
BOXES = """() => [...document.querySelectorAll('.precode-picture')].map(picture => {
  const box = picture.getBoundingClientRect();
  return [box.left, box.top, box.width].map(Math.round);
})"""

# Whether the names of controls lie on what stands beside or below them.
OVERLAPS = """() => [...document.querySelectorAll('.precode-control')].map(control => {
  const [name, other] = control.children;
  const text = document.createRange();
  text.selectNodeContents(name);
  const a = text.getBoundingClientRect(), b = other.getBoundingClientRect();
  return a.right > b.left && b.right > a.left && a.bottom > b.top && b.bottom > a.top;
})"""


def panels(count):
    roles = ["original", "leaked"] * (count // 2)
    return [Panel("photograph", torch.rand(3, 4, 4), role) for role in roles]


@pytest.fixture
def boxes(browser, tmp_path):
    """Where a figure's pictures are, on a window of a given width."""

    def measured(body, width):
        page = browser.new_page(viewport={"width": width, "height": 800})
        theme = (ROOT / "book" / "_static" / "theme.css").read_text(encoding="utf-8")
        page.set_content(f"<style>{theme}</style><main>{body}</main>")
        found = page.evaluate(BOXES)
        page.close()
        return found

    return measured


@pytest.mark.parametrize("width", [390, 1280])
def test_a_table_of_pictures_keeps_its_columns_on_every_screen(boxes, width):
    figure = show_pictures(panels(12), caption="c", width=10, across=4)
    found = boxes(figure.html, width)
    assert len({left for left, _, _ in found}) == 4
    assert len({top for _, top, _ in found}) == 3
    assert len({size for _, _, size in found}) == 1


@pytest.mark.parametrize("width", [390, 800, 1280])
def test_pictures_that_wrap_are_of_one_size(boxes, width):
    found = boxes(show_pictures(panels(6), caption="c", width=14).html, width)
    sizes = [size for _, _, size in found]
    assert max(sizes) - min(sizes) <= 1


def test_pairs_of_pictures_fill_a_phone(boxes):
    picture = '<img class="precode-picture" alt="">'
    pairs = panels_html(panels(6), lambda panel, _: picture, range(6))
    found = boxes(figure_html(pairs, caption="c"), 390)
    assert min(size for _, _, size in found) > 390 / 3


@pytest.mark.parametrize("width", [390, 1280])
def test_the_name_of_a_control_does_not_lie_under_its_value(browser, width):
    long = "search, layers behind the noise left out"
    axes = [
        Axis("a", ["x", long], "The attacker", choice=True, text="{}"),
        Axis("b", [long, long + "!"], "PRECODE stands", text="{}"),
    ]
    figure = SliderFigure([panels(2)] * 4, axes, question="q", caption="c")
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.set_content(figure._repr_html_())
    assert page.evaluate(OVERLAPS) == [False, False]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


@pytest.mark.parametrize("columns", [3, 5, 10])
def test_a_table_of_numbers_does_not_scroll_sideways_on_a_phone(browser, columns):
    heads = [f"first of {i},000" for i in range(columns)]
    lines = [[f"16, 15, 16 of {i}" for i in range(columns)]] * 3
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.set_content(show_table(heads, lines, caption="c", names=2).html)
    widths = "t => [t.scrollWidth, t.clientWidth]"
    needed, there = page.eval_on_selector(".precode-table", widths)
    assert needed <= there
    page.close()

"""Slides: a chapter's pictures, formulas and sliders on pages that need no network."""

import re
import sys

import nbformat
import pytest
from book_site import ROOT, documents

SIZE = {"width": 1280, "height": 720}
FORMULA = "$$\nx = y\n$$ (eq-one)"
# What a slide shows that ends below or beside it; notes and words for the ear do not.
OUT_OF_CODE = """() => [...document.querySelectorAll(".words")].map((words) => {
    const copy = words.cloneNode(true);
    copy.querySelectorAll("pre, code").forEach((each) => each.remove());
    return copy.textContent;
})"""
OUTSIDE = """() => [...deck.getCurrentSlide().querySelectorAll("*")]
  .filter(node => node.getClientRects().length
    && !node.closest("aside, .precode-hidden, mjx-assistive-mml"))
  .filter(node => {
    const box = node.getBoundingClientRect();
    return box.left < 0 || box.top < 0
      || box.right > innerWidth + 1 || box.bottom > innerHeight - 20;
  }).map(node => node.outerHTML.slice(0, 120))"""


@pytest.fixture
def slides(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "book" / "_ext"))
    import slides

    yield slides
    sys.modules.pop("slides")


def chapter(*cells) -> nbformat.NotebookNode:
    """A notebook of (text, slide) pairs; a text that begins with # % is code."""
    notebook = nbformat.v4.new_notebook()
    for text, slide in cells:
        cell = nbformat.v4.new_markdown_cell(text)
        if text.startswith("# %"):
            output = nbformat.v4.new_output("execute_result", {"text/html": "<b>!</b>"})
            cell = nbformat.v4.new_code_cell(text, outputs=[output])
        if slide is not None:
            cell.metadata["slide"] = slide
        notebook.cells.append(cell)
    return notebook


def kinds(deck) -> list[tuple[str, str]]:
    return [
        (cell.metadata.get("slideshow", {}).get("slide_type", "-"), cell.source)
        for cell in deck.cells
    ]


def test_a_slide_has_its_text_what_the_cell_shows_and_the_prose_as_notes(slides):
    made = slides.deck(
        chapter(
            ("# A title", "# Short"),
            ("prose", None),
            ("# % hidden", None),
            ("# % shown", "## Seen"),
            ("more", None),
        )
    )
    assert kinds(made) == [
        ("slide", "# Short"),
        ("notes", "# A title"),
        ("notes", "prose"),
        ("slide", "## Seen"),
        ("-", ""),
        ("notes", "more"),
    ]
    assert made.cells[4].outputs[0].data == {"text/html": "<b>!</b>"}


def test_a_formula_has_one_home_and_slides_name_it(slides):
    made = slides.deck(chapter((f"So\n\n{FORMULA}\n", "## A\n\n{eq-one}\n\nb")))
    assert made.cells[0].source == "## A\n\n$$\nx = y\n$$\n\nb"


def test_a_formula_that_is_not_there_is_named(slides):
    with pytest.raises(ValueError, match=r"no formula eq-two; there are eq-one\."):
        slides.deck(chapter((FORMULA, "{eq-two}")))


def test_notes_are_prose_without_the_books_own_markup(slides):
    text = (
        "```{admonition} Predict first\n:class: predict\nWhich?\n```\n"
        "See [there](x.md), {eq}`eq-one`, {term}`client` and {cite:t}`ada1843`; "
        "it is old {cite}`ada1843,bea1901`."
    )
    works = {"ada1843": ("Ada", "1843"), "bea1901": ("Bea et al.", "1901")}
    made = slides.deck(chapter((text, "## A"), (FORMULA, None)), "3", works)
    assert made.cells[1].source == (
        "Which?\nSee there, (3.1), client and Ada (1843); "
        "it is old (Ada, 1843; Bea et al., 1901)."
    )


def test_works_are_named_as_in_the_text_of_a_page(slides):
    works = slides.works_in(ROOT / "book" / "references.bib")
    assert works["zhu2019dlg"] == ("Zhu et al.", "2019")
    assert works["kingma2014auto"] == ("Kingma and Welling", "2014")
    assert works["fan2022nra"] == ("ChellyFan", "2022")
    assert works["taboada2022re"] == ("Taboada Warmerdam et al.", "2022")
    assert works["balunovic2022bayesian"][0] == "Balunović et al."


def test_a_deck_loads_nothing_but_the_sites_own_files(slides):
    names = {"title": "A & B", "number": "1", "book": "Book"}
    page = slides.render(chapter(("# A", "# A")), "book/leak/a", names)
    assert "https:" not in page
    assert "http:" not in page
    assert "<title>A &amp; B: slides</title>" in page


# --- the decks of the book, in the browser --------------------------------------------


def decks() -> list[str]:
    """The chapters that have slides."""
    paths = [ROOT / f"{document}.ipynb" for document in documents()]
    return [
        path.stem
        for path in paths
        if path.exists() and '"slide": ' in path.read_text(encoding="utf-8")
    ]


def test_two_chapters_have_slides():
    assert {"what_a_gradient_knows", "bottleneck"} <= set(decks())


@pytest.fixture(scope="module", params=decks())
def opened(request, visit_in_module):
    """A deck at its first slide."""
    options = {"viewport": SIZE, "reduced_motion": "reduce"}
    opened = visit_in_module(f"slides/{request.param}", **options)
    opened.page.wait_for_selector("body[data-ready]")
    yield opened
    visit_in_module.close_all()


@pytest.mark.slow
@pytest.mark.browser
def test_arrows_lead_through_all_slides_and_each_fits(opened):
    page = opened.page
    total = page.evaluate("deck.getTotalSlides()")
    assert total >= 10
    for number in range(total):
        assert page.evaluate("deck.getSlidePastCount()") == number
        assert page.evaluate(OUTSIDE) == []
        page.keyboard.press("ArrowRight")
    for _ in range(total):
        page.keyboard.press("ArrowLeft")
    assert page.evaluate("deck.isFirstSlide()")
    assert opened.complaints == []
    assert opened.requests == []


@pytest.mark.slow
@pytest.mark.browser
def test_every_slide_has_a_heading_and_most_have_notes(opened):
    slides = opened.page.locator(".slides > section > section")
    headings = slides.evaluate_all(
        "nodes => nodes.map(node => node.querySelectorAll('.words :is(h1, h2)').length)"
    )
    assert min(headings) == 1
    notes = slides.locator("aside.notes").count()
    assert notes >= len(headings) / 2


@pytest.mark.slow
@pytest.mark.browser
def test_a_control_takes_the_arrows_while_it_has_the_focus(opened):
    page = opened.page
    controls = page.locator(".slides :is(input, select, button)").all()
    assert controls
    for control in controls:
        index = page.evaluate(
            "node => deck.getSlides().indexOf(node.closest('section'))",
            control.element_handle(),
        )
        page.evaluate("index => deck.slide(index)", index)
        control.press("Home")
        control.press("ArrowRight")
        if control.get_attribute("type") == "range":
            assert control.input_value() == "1"
        assert page.evaluate("deck.getSlidePastCount()") == index
        page.locator(".slides section.present > .words > h2").last.click()
        page.keyboard.press("ArrowRight")
        assert page.evaluate("deck.getSlidePastCount()") == index + 1


@pytest.mark.slow
@pytest.mark.browser
def test_every_formula_of_a_deck_is_drawn(opened):
    page = opened.page
    assert page.locator("mjx-container svg").count() >= 3
    assert page.locator("mjx-merror, [data-mjx-error]").count() == 0
    words = page.evaluate(OUT_OF_CODE)  # a dollar in code is a shell's
    assert not [text for text in words if "$" in text]


@pytest.mark.slow
@pytest.mark.parametrize("stem", decks())
def test_a_chapter_leads_to_its_slides_and_back(site, stem):
    document = next(name for name in documents() if name.endswith(f"/{stem}"))
    chapter = (site / f"{document}.html").read_text(encoding="utf-8")
    assert f'href="../../slides/{stem}.html"' in chapter
    slides = (site / "slides" / f"{stem}.html").read_text(encoding="utf-8")
    assert re.search(
        rf'href="../{document}.html">The Leaky Gradient, chapter \d', slides
    )


@pytest.mark.slow
@pytest.mark.browser
def test_a_deck_on_paper_has_a_page_for_each_slide_and_margins(browser, site):
    page = browser.new_page(viewport=SIZE)
    page.goto(f"{(site / 'slides' / 'bottleneck.html').as_uri()}?print-pdf")
    page.wait_for_selector("body[data-ready]")
    page.wait_for_selector(".pdf-page")
    lefts = page.eval_on_selector_all(
        ".pdf-page > section > .words > h2",  # not those of the notes
        "all => all.map(one => one.getBoundingClientRect().left)",
    )
    assert len(lefts) > 8
    assert min(lefts) >= 60
    page.close()

"""Neighbouring folded cells share a button, and lose nothing by it."""

import re
import sys

import pytest
from book_site import ROOT
from docutils import nodes
from docutils.utils import new_document


@pytest.fixture
def folded_code(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "book" / "_ext"))
    import folded_code

    yield folded_code
    del sys.modules["folded_code"]


def cell(folded_code, code, output="", classes=(), folded=True):
    """A cell as MyST-NB leaves it behind."""
    source = nodes.literal_block(code, code)
    fold = folded_code.HideCodeCellNode("", source) if folded else source
    made = nodes.container("", fold, nb_element="cell_code", classes=list(classes))
    if output:
        made += nodes.paragraph(output, output)
    return made


def after(folded_code, *cells):
    """The text of each cell of a page after the transform."""
    document = new_document("page")
    document += list(cells)
    folded_code.FoldTogether(document).run()
    return [child.astext().split() for child in document.children]


def test_code_without_output_joins_the_folded_cell_after_it(folded_code):
    made = [cell(folded_code, "import"), cell(folded_code, "define")]
    made += [cell(folded_code, "draw", output="picture")]
    assert after(folded_code, *made) == [["import", "define", "draw", "picture"]]


def test_nothing_moves_past_an_output_a_text_or_code_that_is_shown(folded_code):
    def first():
        return cell(folded_code, "import")

    text = nodes.paragraph("words", "words")
    shown = cell(folded_code, "shown", folded=False)
    apart = [["import"], ["words"], ["draw", "picture"]]
    drawn = cell(folded_code, "draw", output="picture")
    assert after(folded_code, first(), text, drawn.deepcopy()) == apart
    assert after(folded_code, first(), shown) == [["import"], ["shown"]]
    assert after(folded_code, drawn, first()) == [["draw", "picture"], ["import"]]


def test_the_set_up_and_the_answers_of_a_quiz_stay_alone(folded_code):
    set_up = cell(folded_code, "fetch", classes=["tag_set-up"])
    assert after(folded_code, set_up, cell(folded_code, "a")) == [["fetch"], ["a"]]
    quiz = cell(folded_code, "quiz(...)", output="buttons")
    pair = after(folded_code, cell(folded_code, "a"), quiz)
    assert pair == [["a"], ["quiz(...)", "buttons"]]
    rules = cell(folded_code, "checklist(...)", output="rules")
    pair = after(folded_code, cell(folded_code, "a"), rules)
    assert pair == [["a"], ["checklist(...)", "rules"]]


@pytest.mark.slow
def test_no_page_has_two_buttons_with_nothing_between(site):
    pages = sorted((site / "book").glob("*/*.html"))
    assert len(pages) > 20
    fold = r"<details class=\"admonition hide"
    doubled = re.compile(rf"</details>\s*</div>\s*<div class=\"cell[^\"]*\">\s*{fold}")
    shared = 0
    for page in pages:
        text = page.read_text(encoding="utf-8")
        folds = re.findall(r"<details class=\"admonition hide.*?</details>", text, re.S)
        shared += sum(fold.count("cell_input") > 1 for fold in folds)
        cells = [c for c in doubled.findall(text) if "quiz" not in c]
        answers = text.count("precode-quiz") + text.count("precode-checklist")
        assert len(cells) <= answers + 1, page.name  # the set-up
    assert shared > 10

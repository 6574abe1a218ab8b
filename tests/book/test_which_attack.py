"""The page that says what to try first: what it names exists, and it is one sheet."""

import re
from pkgutil import resolve_name

import pytest
from book_site import ROOT

PAGE = "book/beyond/which_attack"
TEXT = (ROOT / f"{PAGE}.md").read_text(encoding="utf-8")
NAMED = re.findall(r"\{(?:func|class|data)\}`~(precode_lib[\w.]+)`", TEXT)


def test_the_page_names_functions_and_chapters():
    assert len(NAMED) > 15
    assert len({*re.findall(r"\]\(([\w./]+\.ipynb)\)", TEXT)}) > 10


@pytest.mark.parametrize("name", NAMED)
def test_what_a_leaf_names_is_in_the_library(name):
    module, _, last = name.rpartition(".")
    assert resolve_name(f"{module}:{last}") is not None


@pytest.mark.slow
@pytest.mark.browser
def test_the_page_is_one_sheet_of_paper_with_every_leaf(site, visit):
    page = visit(PAGE).page
    for sheet in ("A4", "Letter"):
        printed = page.pdf(format=sheet)
        assert len(re.findall(rb"/Type\s*/Page\b(?!s)", printed)) == 1, sheet
    page.emulate_media(media="print")
    links = page.locator("article .tree a").all()
    assert len(links) > 20
    assert all(link.is_visible() for link in links)

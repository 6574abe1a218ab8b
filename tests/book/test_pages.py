"""Every page of the built book, in a real browser with the network cut."""

from html.parser import HTMLParser
from importlib.resources import files
from urllib.parse import unquote, urlsplit

import pytest
from book_site import documents

pytestmark = [pytest.mark.slow, pytest.mark.browser]

# sphinxcontrib-bibtex's list of references; a book cannot mend it.
NOT_OURS = {"aria-required-children"}
THEMES = ["light", "dark"]


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("document", documents())
def test_page_neither_complains_nor_asks_the_network(visit, document, theme):
    opened = visit(document, color_scheme=theme)
    opened.page.wait_for_load_state("networkidle")
    assert opened.complaints == []
    assert opened.requests == []


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("document", documents())
def test_page_has_no_serious_accessibility_violation(visit, document, theme):
    page = visit(document, color_scheme=theme, reduced_motion="reduce").page
    page.wait_for_load_state("networkidle")
    page.add_script_tag(path=files("axe_playwright_python") / "axe.min.js")
    found = page.evaluate("axe.run().then((report) => report.violations)")
    serious = [
        (violation["id"], [node["html"][:200] for node in violation["nodes"]])
        for violation in found
        if violation["impact"] in ("serious", "critical")
        and violation["id"] not in NOT_OURS
    ]
    assert serious == []


@pytest.mark.parametrize("document", documents())
def test_page_fits_a_phone(visit, document):
    page = visit(document, viewport={"width": 390, "height": 844}).page
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("document", documents())
def test_formulas_are_drawn(visit, document):
    page = visit(document).page
    page.wait_for_load_state("networkidle")
    formulas = page.locator(".math").count()
    if formulas:
        page.wait_for_selector("mjx-container svg")
    assert page.locator("mjx-container").count() >= formulas
    assert page.locator("mjx-merror, [data-mjx-error]").count() == 0


class _Page(HTMLParser):
    """The identifiers and the links of one page."""

    def __init__(self, text: str):
        super().__init__()
        self.names, self.links = set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.names |= {given[key] for key in ("id", "name") if given.get(key)}
        self.links |= {given[key] for key in ("href", "src") if given.get(key)}


def test_every_link_within_the_book_leads_somewhere(site):
    paths = [p for p in site.rglob("*.html") if "_static" not in p.parts]
    pages = {p: _Page(p.read_text(encoding="utf-8")) for p in paths}
    assert len(pages) >= len(documents())
    broken = []
    for path, page in pages.items():
        for link in page.links:
            url = urlsplit(link)
            if url.scheme or url.netloc:
                continue
            target = (path.parent / unquote(url.path)).resolve() if url.path else path
            known = pages[target].names if target in pages else {url.fragment}
            if not target.exists() or (url.fragment and url.fragment not in known):
                broken.append((path.name, link))
    assert broken == []

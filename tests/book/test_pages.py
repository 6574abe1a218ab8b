"""Every page of the built book, in a real browser with the network cut."""

import json
import re
import zlib
from dataclasses import dataclass
from html.parser import HTMLParser
from importlib.resources import files
from urllib.parse import unquote, urlsplit

import pytest
from book_site import ROOT, documents

pytestmark = [pytest.mark.slow, pytest.mark.browser]

# sphinxcontrib-bibtex's list of references; a book cannot mend it.
NOT_OURS = {"aria-required-children"}
THEMES = ["light", "dark"]
# What else axe looks for is the same in every theme.
COLOUR_RULES = ["color-contrast", "link-in-text-block"]
DESKTOP, PHONE = {"width": 1280, "height": 720}, {"width": 390, "height": 844}
LARGEST_PAGE = 2_000_000  # bytes, with all that a page has inlined


@dataclass(frozen=True)
class Seen:
    """What one visit to a page showed: opening pages is what takes the time."""

    complaints: list[str]
    requests: list[str]
    violations: dict[str, list[tuple]]  # by theme
    levels: list[int]
    unnamed_pictures: list[str]
    formulas: int
    drawn_formulas: int
    formula_errors: int
    widths_on_a_phone: dict[str, int]  # by theme


HEADINGS = """[...document.querySelectorAll("article :is(h1, h2, h3, h4, h5, h6)")]
    .map((heading) => Number(heading.tagName[1]))"""
UNNAMED = """[...document.querySelectorAll("article :is(img, [role=img])")]
    .filter((node) => !(node.alt || node.getAttribute("aria-label")
        || node.getAttribute("aria-labelledby") || node.closest("[aria-hidden=true]")))
    .map((node) => node.outerHTML.slice(0, 120))"""


def look(visit, document: str) -> Seen:
    opened = visit(document, viewport=DESKTOP, reduced_motion="reduce")
    page = opened.page
    page.wait_for_load_state("networkidle")
    formulas = page.locator(".math").count()
    if formulas:
        # Attached, not visible: the first formula of a page may be a heading's, in
        # the closed sidebar.
        page.wait_for_selector("mjx-container svg", state="attached")
    widths = {}
    page.set_viewport_size(PHONE)
    for theme in THEMES:
        turn(page, theme)
        widths[theme] = page.evaluate("document.documentElement.scrollWidth")
    page.set_viewport_size(DESKTOP)
    seen = {
        "levels": page.evaluate(HEADINGS),
        "unnamed_pictures": page.evaluate(UNNAMED),
        "formulas": formulas,
        "drawn_formulas": page.locator("mjx-container").count(),
        "formula_errors": page.locator("mjx-merror, [data-mjx-error]").count(),
        "widths_on_a_phone": widths,
    }
    # From here on it is axe that fetches and complains, not the page.
    complaints, requests = list(opened.complaints), list(opened.requests)
    page.add_script_tag(path=files("axe_playwright_python") / "axe.min.js")
    found = {}
    for theme in THEMES:
        turn(page, theme)
        found[theme] = violations(page, [] if theme == "light" else COLOUR_RULES)
    return Seen(complaints, requests, found, **seen)


def turn(page, theme: str) -> None:
    """Make the page light or dark as a reader's system does, who set nothing here."""
    page.emulate_media(color_scheme=theme)
    page.wait_for_selector(f"html[data-theme={theme}]")


def violations(page, rules: list[str]) -> list[tuple]:
    """What axe finds serious, by these rules or else by all it has."""
    # All else axe would describe as well, element by element.
    options: dict = {"resultTypes": ["violations"]}
    if rules:
        options["runOnly"] = {"type": "rule", "values": rules}
    run = "options => axe.run(options).then((report) => report.violations)"
    return [
        (violation["id"], [node["html"][:200] for node in violation["nodes"]])
        for violation in page.evaluate(run, options)
        if violation["impact"] in ("serious", "critical")
        and violation["id"] not in NOT_OURS
    ]


@pytest.fixture(params=documents(), scope="module")
def document(request):
    return request.param


@pytest.fixture(scope="module")
def seen(document, visit_in_module):
    yield look(visit_in_module, document)
    visit_in_module.close_all()


def test_page_neither_complains_nor_asks_the_network(seen):
    assert seen.complaints == []
    assert seen.requests == []


def test_page_has_no_serious_accessibility_violation(seen):
    assert seen.violations == {theme: [] for theme in THEMES}


def test_page_fits_a_phone(seen):
    assert max(seen.widths_on_a_phone.values()) <= PHONE["width"]


def test_headings_begin_with_the_title_and_skip_no_level(seen):
    assert seen.levels[0] == 1
    assert seen.levels.count(1) == 1
    steps = zip(seen.levels, seen.levels[1:], strict=False)
    assert all(lower <= upper + 1 for upper, lower in steps)


def test_every_picture_is_described_in_words(seen):
    assert seen.unnamed_pictures == []


def test_formulas_are_drawn(seen):
    assert seen.drawn_formulas >= seen.formulas
    assert seen.formula_errors == 0


def test_page_is_not_heavy(site, document):
    path = site / f"{document}.html"
    page = _Page(path.read_text(encoding="utf-8"))
    pictures = {name for name in page.links if "/_images/" in name}
    bytes_of_pictures = sum((path.parent / p).stat().st_size for p in pictures)
    assert path.stat().st_size + bytes_of_pictures < LARGEST_PAGE


@pytest.mark.parametrize("document", documents())
def test_page_shows_no_warning_of_a_kernel(site, document):
    page = (site / f"{document}.html").read_text(encoding="utf-8")
    complaints = re.findall(r'class="output stderr.*?</div>', page, flags=re.DOTALL)
    assert complaints == []


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("bottleneck", "book/precode/bottleneck.html"),
        ("by_hand", "book/exercises/what_a_gradient_knows.html"),
    ],
)
def test_search_finds_chapters_and_exercises(visit, query, found):
    page = visit("search", query=f"?q={query}").page
    page.wait_for_selector(f"#search-results li a[href*='{found}']")


def test_the_keyboard_is_always_seen(visit):
    page = visit("book/welcome", reduced_motion="reduce").page
    outline = "getComputedStyle(document.activeElement).outline"
    for _ in range(15):
        page.keyboard.press("Tab")
        assert page.evaluate(outline + "Style") != "none"
        assert float(page.evaluate(outline + "Width").removesuffix("px")) >= 2


def test_a_printed_page_is_the_article_alone(visit):
    page = visit("book/welcome").page
    page.emulate_media(media="print")
    for around in (".bd-sidebar-primary", ".bd-sidebar-secondary", ".prev-next-area"):
        assert not page.locator(around).first.is_visible()
    assert page.locator("article h1").is_visible()


def test_the_map_of_the_book_has_every_chapter(visit):
    links = visit("book/welcome").page.locator(".book-map a")
    shown = [link.get_attribute("href") for link in links.all()]
    parts = ("leak", "blur", "precode", "beyond")
    chapters = [d for d in documents() if d.split("/")[1] in parts]
    assert chapters
    assert {f"{d.removeprefix('book/')}.html" for d in chapters} <= set(shown)


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


def documented(site) -> set[str]:
    """The full names that the pages of the library explain."""
    compressed = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    inventory = zlib.decompress(compressed).decode()
    return set(re.findall(r"^(\S+) py:", inventory, flags=re.MULTILINE))


def imported(document: str) -> list[str]:
    """What a chapter or an exercise imports from the library, modules left out."""
    path = ROOT / f"{document}.ipynb"
    notebook = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    cells = notebook.get("cells", [])
    code = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    found = re.findall(r"^from (precode_lib\S*) import (\([^)]*\)|.*)$", code, re.M)
    return [
        name
        for room, names in found
        for name in re.findall(r"\w+", names)
        if not room.startswith("precode_lib.checks.") and " as " not in names
    ]


def test_every_name_that_a_chapter_imports_can_be_looked_up(site):
    known = {name.rpartition(".")[2] for name in documented(site)}
    names = {name for document in documents() for name in imported(document)}
    assert len(names) > 50
    assert sorted(names - known) == [], "add them to a page in book/api/"


def test_the_library_pages_do_not_number_the_fields_of_a_tuple(site):
    pages = list((site / "book/api").glob("*.html"))
    assert len(pages) > 5
    texts = [page.read_text(encoding="utf-8") for page in pages]
    assert not any("Alias for field number" in text for text in texts)

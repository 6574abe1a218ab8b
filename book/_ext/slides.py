"""Slides for a lecture, from an executed chapter.

A cell whose metadata has "slide" begins a slide: the short Markdown given
there, then what the cell shows. A line `{eq-name}` stands for the chapter's
formula of that name. The chapter's prose, up to the next slide, becomes the
speaker's notes. A deck lies in slides/<chapter>.html and needs no network.

    ```{slide-decks}
    ```

lists all decks.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import nbformat
from book_map import link
from docutils import nodes
from execution import open_cache
from nbconvert.exporters import SlidesExporter
from pybtex.database import Entry, parse_file
from pybtex.richtext import Text
from sphinx.util.docutils import SphinxDirective

FOLDER = "slides"
TEMPLATE = Path(__file__).with_name("slides.html.j2")
_FORMULA = re.compile(
    r"^\$\$\n(?P<tex>.+?)\n\$\$ \((?P<name>eq-[\w-]+)\)$",
    re.DOTALL | re.MULTILINE,
)
_COMMANDS = re.compile(r"^```console\n.*?^```\n", re.MULTILINE | re.DOTALL)
_FENCE = re.compile(r"^(`{3,}|:{3,})(\{.*?\}.*)?\n?", re.MULTILINE)
_OPTION = re.compile(r"^:[a-z]+: .*\n", re.MULTILINE)
_ROLE = re.compile(r"\{(?P<role>[\w:]+)\}`(?P<text>[^`]+)`")
_LINK = re.compile(r"\[([^\]]+)\]\([^)]+\)")


class slide_decks(nodes.General, nodes.Element):  # noqa: N801  docutils' spelling
    """Stands for the list of decks until all chapters are known."""


class SlideDecks(SphinxDirective):
    """The list of all decks."""

    def run(self):
        """Leave a node that `list_decks` replaces."""
        return [slide_decks()]


def has_slides(notebook: dict) -> bool:
    """Whether any cell of a notebook begins a slide."""
    return any("slide" in cell["metadata"] for cell in notebook["cells"])


def deck(
    notebook: dict, number: str = "", works: Mapping[str, tuple] | None = None
) -> nbformat.NotebookNode:
    """An executed chapter as the notebook that nbconvert makes slides of.

    Args:
        number: of the chapter.
        works: who wrote each work that is cited, and when, by its key.
    """
    formulas = {
        found["name"]: found["tex"]
        for cell in notebook["cells"]
        for found in _FORMULA.finditer(cell["source"])
    }
    numbers = {name: f"{number}.{i}" for i, name in enumerate(formulas, 1)}
    cells: list = []
    for cell in notebook["cells"]:
        text = cell["metadata"].get("slide")
        if text is not None:
            cells += _slide(_with_formulas(text, formulas), cell)
        if cells and cell["cell_type"] == "markdown":
            notes = _plain(cell["source"], numbers, works or {})
            cells.append(_cell(notes, "notes"))
    return nbformat.v4.new_notebook(cells=cells)


def _slide(text: str, cell: dict) -> list:
    made = [_cell(text, "slide")]
    if cell["cell_type"] == "code" and cell["outputs"]:
        shown = nbformat.v4.new_code_cell(outputs=cell["outputs"])
        made.append(shown)
    return made


def _cell(text: str, kind: str) -> nbformat.NotebookNode:
    cell = nbformat.v4.new_markdown_cell(text)
    cell.metadata["slideshow"] = {"slide_type": kind}
    return cell


def _with_formulas(text: str, formulas: dict[str, str]) -> str:
    def formula(found: re.Match) -> str:
        if found[1] not in formulas:
            known = ", ".join(formulas)
            raise ValueError(f"no formula {found[1]}; there are {known}.")
        return f"$$\n{formulas[found[1]]}\n$$"

    return re.sub(r"^\{(eq-[\w-]+)\}$", formula, text, flags=re.MULTILINE)


def _plain(
    text: str, numbers: Mapping[str, str], works: Mapping[str, tuple]
) -> str:
    """The chapter's Markdown without what only the book understands."""

    def word(found: re.Match) -> str:
        role, text = found["role"], found["text"]
        if role == "eq":
            return f"({numbers[text]})"
        if not role.startswith("cite"):
            return text
        cited = [works[key.strip()] for key in text.split(",")]
        if role == "cite:t":
            return " and ".join(f"{who} ({year})" for who, year in cited)
        return f"({'; '.join(f'{who}, {year}' for who, year in cited)})"

    text = _FORMULA.sub(r"$$\n\g<tex>\n$$", text)
    text = _OPTION.sub("", _FENCE.sub("", _COMMANDS.sub("", text)))
    return _LINK.sub(r"\1", _ROLE.sub(word, text))


def works_in(file: Path) -> dict[str, tuple[str, str]]:
    """Who wrote each work of a bibliography, as texts name them, and when."""
    entries = parse_file(str(file)).entries
    return {key: (_who(e), e.fields["year"]) for key, e in entries.items()}


def _who(entry: Entry) -> str:
    names = [
        str(
            Text.from_latex(" ".join(person.prelast_names + person.last_names))
        )
        for person in entry.persons["author"]
    ]
    return f"{names[0]} et al." if len(names) > 2 else " and ".join(names)


def chapters(env) -> list[str]:
    """The documents that have slides, in the order of the book."""
    documents = _documents(env, env.config.root_doc)
    return [document for document in documents if _is_deck(env, document)]


def _documents(env, parent: str):
    for document in env.toctree_includes.get(parent, []):
        yield document
        yield from _documents(env, document)


def _is_deck(env, document: str) -> bool:
    path = Path(env.doc2path(document))
    if path.suffix != ".ipynb":
        return False
    return has_slides(nbformat.read(path, as_version=4))


def address(document: str) -> str:
    """Where the deck of a chapter lies in the site."""
    return f"{FOLDER}/{document.rpartition('/')[2]}.html"


def write_decks(app, exception) -> None:
    """Write the deck of every chapter that has one."""
    if exception is not None or app.builder.format != "html":
        return
    site = Path(app.outdir)
    (site / FOLDER).mkdir(exist_ok=True)
    works: dict[str, tuple] = {}
    for file in app.config.bibtex_bibfiles:
        works |= works_in(Path(app.srcdir) / file)
    for document in chapters(app.env):
        notebook = _executed(app, app.env.doc2path(document))
        names = _names(app.env, document)
        page = render(notebook, document, names, works)
        (site / address(document)).write_text(page, encoding="utf-8")


def _executed(app, path: str) -> nbformat.NotebookNode:
    """A chapter with the outputs that its page shows."""
    notebook = nbformat.read(path, as_version=4)
    if app.env.mystnb_config.execution_mode == "cache":
        # Only outputs: the cache may have older metadata.
        _, notebook = open_cache(app).merge_match_into_notebook(
            notebook, cell_meta=()
        )
    return notebook


def render(
    notebook: dict,
    document: str,
    names: dict[str, str],
    works: Mapping[str, tuple] | None = None,
) -> str:
    """The page of a chapter's deck."""
    exporter = SlidesExporter(
        template_file=str(TEMPLATE), exclude_anchor_links=True
    )
    resources = {"chapter": f"../{document}.html", **names}
    shown = deck(notebook, names["number"], works)
    page, _ = exporter.from_notebook_node(shown, resources)
    return page


def _names(env, document: str) -> dict[str, str]:
    numbers = env.toc_secnumbers.get(document, {}).get("") or ()
    return {
        "title": env.titles[document].astext(),
        "number": ".".join(map(str, numbers)),
        "book": env.config.html_title,
    }


def offer(app, pagename, templatename, context, doctree) -> None:
    """Put a button to the slides on top of a chapter that has some."""
    buttons = context.get("header_buttons")
    if buttons is None or pagename not in app.env.found_docs:
        return
    if _is_deck(app.env, pagename):
        buttons.insert(
            0,
            {
                "type": "link",
                "url": "../" * pagename.count("/") + address(pagename),
                "tooltip": "Slides of this chapter",
                "icon": "fas fa-person-chalkboard",
                "label": "slides",
            },
        )


def list_decks(app, doctree, document) -> None:
    """Replace the node by links to the decks."""
    for node in list(doctree.findall(slide_decks)):
        names = nodes.bullet_list()
        for chapter in chapters(app.env):
            entry = link(app, document, chapter)
            entry[0]["refuri"] = "../" * document.count("/") + address(chapter)
            names += nodes.list_item("", entry)
        node.replace_self(names)


def setup(app):
    """Register the directive, the buttons and the decks with Sphinx."""
    app.add_node(slide_decks)
    app.add_directive("slide-decks", SlideDecks)
    app.connect("doctree-resolved", list_decks)
    app.connect("html-page-context", offer, priority=900)
    app.connect("build-finished", write_decks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

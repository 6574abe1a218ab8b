"""Exercises as tables: one chapter's, or all of them for the index.

    ```{exercise-list} labels
    ```

    ```{exercise-table}
    ```

What they say comes from the students' notebooks in book/exercises, their only
home; the table of contents orders them.
"""

import json
from dataclasses import asdict
from pathlib import Path

from book_map import link
from docutils import nodes
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from precode_lib.marking.notebooks import exercises

FOLDER = "book/exercises"
HEADS = {"Exercise": 50, "Kind": 20, "Difficulty": 15, "Minutes": 15}
LOGGER = logging.getLogger(__name__)


class exercise_list(nodes.General, nodes.Element):  # noqa: N801  docutils' spelling
    """Stands for tables until the notebooks' headings are known."""


class ExerciseList(SphinxDirective):
    """The exercises of the chapter whose file name it is given."""

    required_arguments = 1

    def run(self):
        """Read the notebook, and leave a node that `draw` replaces."""
        return [exercise_list(notebooks=[self.read(self.arguments[0])])]

    def read(self, stem: str) -> dict:
        """The notebook's page, its chapter and its exercises."""
        path = Path(self.env.srcdir, FOLDER, f"{stem}.ipynb")
        self.env.note_dependency(str(path))
        try:
            notebook = json.loads(path.read_text(encoding="utf-8"))
            found = exercises(notebook)
        except (OSError, ValueError) as error:
            raise self.error(f"exercises of {stem!r}: {error}") from error
        return {
            "page": f"{FOLDER}/{stem}",
            "chapter": notebook["metadata"]["precode"]["chapter"],
            "exercises": [asdict(exercise) for exercise in found],
        }


class ExerciseTable(ExerciseList):
    """The exercises of all chapters."""

    required_arguments = 0

    def run(self):
        """Read all notebooks; which of them are pages is known later."""
        paths = sorted(Path(self.env.srcdir, FOLDER).glob("*.ipynb"))
        found = [self.read(path.stem) for path in paths]
        return [exercise_list(notebooks=found, is_index=True)]


def draw(app, doctree, document) -> None:
    """Replace the nodes by tables."""
    for node in list(doctree.findall(exercise_list)):
        drawn = nodes.container(classes=["exercise-list"])
        notebooks = node["notebooks"]
        if node.get("is_index"):
            order = list(_documents(app.env, app.config.root_doc))
            notebooks = [one for one in notebooks if one["page"] in order]
            notebooks.sort(key=lambda one: order.index(one["page"]))
            drawn += nodes.paragraph("", _together(notebooks))
        for notebook in notebooks:
            drawn += _table(app, document, notebook)
            if node.get("is_index"):
                drawn[-1].insert(0, _caption(app, document, notebook))
        node.replace_self(drawn)


def _documents(env, parent: str):
    """All documents below this one, in the order of the table of contents."""
    for document in env.toctree_includes.get(parent, []):
        yield document
        yield from _documents(env, document)


def _together(notebooks: list[dict]) -> str:
    found = [one for notebook in notebooks for one in notebook["exercises"]]
    hours = sum(one["minutes"] for one in found) / 60
    return (
        f"{len(found)} exercises in {len(notebooks)} notebooks, "
        f"about {hours:.0f} hours of work."
    )


def _caption(app, document, notebook) -> nodes.title:
    minutes = sum(one["minutes"] for one in notebook["exercises"])
    chapter = link(app, document, notebook["chapter"])
    rest = nodes.Text(f": about {minutes} minutes")
    return nodes.title("", "", *chapter.children, rest)


def _table(app, document, notebook) -> nodes.table:
    # Sphinx asks for an identifier where a table may have a caption.
    name = f"exercises-{notebook['page'].rpartition('/')[2].replace('_', '-')}"
    table = nodes.table(classes=["colwidths-given"], ids=[name])
    group = nodes.tgroup(cols=len(HEADS))
    for width in HEADS.values():
        group += nodes.colspec(colwidth=width)
    heads = [nodes.paragraph("", head) for head in HEADS]
    group += nodes.thead("", _row(heads))
    body = nodes.tbody()
    for index, exercise in enumerate(notebook["exercises"]):
        title = _title(app, document, notebook["page"], index, exercise)
        facts = (exercise[key] for key in ("kind", "difficulty", "minutes"))
        cells = [nodes.paragraph("", str(fact)) for fact in facts]
        body += _row([title, *cells])
    group += body
    table += group
    return table


def _row(cells: list) -> nodes.row:
    return nodes.row("", *(nodes.entry("", cell) for cell in cells))


def _title(app, document, page, index, exercise) -> nodes.paragraph:
    """The exercise's heading as its page has it, linked to there."""
    if page not in app.env.tocs:
        LOGGER.warning(
            f"{page} has exercises but is not in _toc.yml", location=document
        )
        text = f"{exercise['number']}. {exercise['title']}"
        return nodes.paragraph("", text)
    headings = _headings(app.env.tocs[page])
    heading = headings[index]
    target = app.builder.get_relative_uri(document, page)
    link = nodes.reference(
        "",
        "",
        *(child.deepcopy() for child in heading.children),
        internal=True,
        refuri=target + heading["anchorname"],
    )
    return nodes.paragraph("", "", link)


def _headings(contents) -> list[nodes.reference]:
    """The headings of a page below its title, one level of them."""
    (page,) = contents.children
    _, sections = page.children
    return [next(iter(one.findall(nodes.reference))) for one in sections]


def setup(app):
    """Register the directives with Sphinx."""
    app.add_node(exercise_list)
    app.add_directive("exercise-list", ExerciseList)
    app.add_directive("exercise-table", ExerciseTable)
    app.connect("doctree-resolved", draw)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""The map of the book on its first page, drawn from the table of contents.

    ```{book-map}
    Caption of a part: what it is about
    ```

Parts come in the order of the page. One without chapters is left out, so that
a page may describe what is still to come.
"""

from docutils import nodes
from sphinx import addnodes
from sphinx.util.docutils import SphinxDirective


class book_map(nodes.General, nodes.Element):  # noqa: N801  docutils' spelling
    """Stands for the map until all titles are known."""


class BookMap(SphinxDirective):
    """Reads what each part is about, one line a part."""

    has_content = True

    def run(self):
        """Leave a node that `draw` replaces."""
        lines = [line.split(": ", 1) for line in self.content if line.strip()]
        return [book_map(about=dict(lines))]


def draw(app, doctree, document) -> None:
    """Replace the node by a list of the parts, with links to the chapters."""
    for node in doctree.findall(book_map):
        about = node["about"]
        parts = {
            toctree.get("caption"): [name for _, name in toctree["entries"]]
            for toctree in doctree.findall(addnodes.toctree)
        }
        unknown = set(parts) - set(about) - {None}
        if unknown:
            raise ValueError(f"book-map does not describe {sorted(unknown)}")
        drawn = nodes.container(classes=["book-map"])
        for caption, sentence in about.items():
            if caption in parts:
                drawn += _part(
                    app, document, caption, sentence, parts[caption]
                )
        node.replace_self(drawn)


def _part(app, document, caption, sentence, chapters) -> nodes.container:
    part = nodes.container(classes=["book-map-part"])
    part += nodes.paragraph("", "", nodes.strong("", caption))
    part += nodes.paragraph("", sentence)
    names = nodes.bullet_list()
    for chapter in chapters:
        names += nodes.list_item("", link(app, document, chapter))
    part += names
    return part


def link(app, document, chapter) -> nodes.paragraph:
    """A paragraph that is a link: the chapter's number and title."""
    numbers = app.env.toc_secnumbers.get(chapter, {}).get("")
    number = f"{'.'.join(map(str, numbers))}. " if numbers else ""
    title = app.env.titles[chapter].astext()
    target = app.builder.get_relative_uri(document, chapter)
    link = nodes.reference("", number + title, internal=True, refuri=target)
    return nodes.paragraph("", "", link)


def setup(app):
    """Register the directive with Sphinx."""
    app.add_node(book_map)
    app.add_directive("book-map", BookMap)
    app.connect("doctree-resolved", draw)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""Neighbouring folded cells share one "Show the code".

A page's head often imports in one cell, defines in the next and shows a
picture in the third. Only the third has an output; the reader gets one button
for all three.
"""

from docutils import nodes
from myst_nb.sphinx_ import HideCodeCellNode
from sphinx.transforms.post_transforms import SphinxPostTransform


class FoldTogether(SphinxPostTransform):
    """Move folded code without output into the folded cell after it."""

    default_priority = 200  # MyST-NB has just folded the cells, at 199
    formats = ("html",)

    def run(self, **kwargs) -> None:
        """Go through the cells in order, so that a chain ends in its last."""
        for cell in list(self.document.findall(nodes.container)):
            fold, follower = _only_fold(cell), _next_fold(cell)
            if fold is None or follower is None:
                continue
            sources = fold.children
            fold.children = []
            follower.children = [*sources, *follower.children]
            for source in sources:
                source.parent = follower
            cell.parent.remove(cell)


def _fold(cell: nodes.Node) -> HideCodeCellNode | None:
    """The folded code that a cell begins with; None where it has none."""
    is_cell = isinstance(cell, nodes.container) and (
        cell.get("nb_element") == "cell_code" and cell.children
    )
    first = cell.children[0] if is_cell else None
    return first if isinstance(first, HideCodeCellNode) else None


def _only_fold(cell: nodes.Node) -> HideCodeCellNode | None:
    """The folded code of a cell that is nothing else, and is shown at all."""
    is_set_up = "tag_set-up" in cell.get("classes", [])
    is_only = len(cell.children) == 1 and not is_set_up
    return _fold(cell) if is_only else None


def _next_fold(cell: nodes.Node) -> HideCodeCellNode | None:
    """The folded code of the neighbour; none of a quiz, which hides it."""
    follower = cell.next_node(descend=False, siblings=True)
    fold = _fold(follower) if follower is not None else None
    code = fold.astext() if fold is not None else ""
    return None if "quiz(" in code or "checklist(" in code else fold


def setup(app):
    """Run when a page is written as HTML."""
    app.add_post_transform(FoldTogether)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

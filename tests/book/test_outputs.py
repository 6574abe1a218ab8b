"""What a cell draws is shown: a notebook shows the last expression of a cell only."""

import ast
import json

import pytest
from book_site import ROOT

DRAWS = {
    *("show_pictures", "show_table", "show_source", "as_figure"),
    *("explore", "watch", "quiz", "checklist"),
}
CHAPTERS = sorted((ROOT / "book").glob("*/*.ipynb"))


def called(node: ast.AST | None) -> str:
    return getattr(getattr(node, "func", None), "id", "")


def cells(path) -> list[ast.Module]:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    codes = [
        "".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"
    ]
    return [ast.parse(code) for code in codes if "!git" not in code]


def drawing(trees: list[ast.Module]) -> set[str]:
    """What draws: the library's functions, and the notebook's that end in one."""
    own = {
        node.name
        for tree in trees
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and isinstance(node.body[-1], ast.Return)
        and called(node.body[-1].value) in DRAWS
    }
    return DRAWS | own


def lost(trees: list[ast.Module]) -> list[str]:
    """The figures that are drawn before the last line of a cell."""
    names = drawing(trees)
    return [
        ast.unparse(node)[:60]
        for tree in trees
        for node in tree.body[:-1]
        if isinstance(node, ast.Expr) and called(node.value) in names
    ]


def test_a_figure_that_is_not_last_is_found():
    cell = "def table(x):\n    return show_table(x)\n\n\ntable(1)\nassert True"
    assert lost([ast.parse(cell)]) == ["table(1)"]
    assert lost([ast.parse("assert True\nexplore(show, axes)")]) == []


@pytest.mark.parametrize(
    "path", CHAPTERS, ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_every_figure_is_the_last_line_of_its_cell(path):
    assert lost(cells(path)) == []

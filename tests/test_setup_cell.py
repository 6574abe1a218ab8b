"""The set-up cell: one home, in every notebook, and harmless where it is not needed."""

import ast
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ADDRESS = "https://github.com/ada/book"


@pytest.fixture
def setup_cell(script_at):
    """The module tools/setup_cell.py."""
    return script_at("tools/setup_cell.py")


def notebook(*cells: tuple[str, str], ascii_only: bool = False, end: str = "\n") -> str:
    made = [
        {"cell_type": kind, "id": f"cell-{i}", "metadata": {}, "source": [source]}
        | ({"execution_count": None, "outputs": []} if kind == "code" else {})
        for i, (kind, source) in enumerate(cells)
    ]
    content = {"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(content, indent=1, ensure_ascii=ascii_only) + end


def test_every_notebook_of_the_book_begins_with_the_same_set_up(setup_cell):
    assert len(setup_cell.notebooks()) > 1
    late = [path.name for path in setup_cell.drifted()]
    assert late == [], "run python tools/setup_cell.py"


@pytest.mark.parametrize("ascii_only", [False, True])
@pytest.mark.parametrize("end", ["\n", ""])
def test_the_cell_comes_before_all_code_and_the_rest_stays(setup_cell, ascii_only, end):
    cells = [("markdown", "# σ"), ("code", "1"), ("markdown", "é"), ("code", "2")]
    text = notebook(*cells, ascii_only=ascii_only, end=end)
    done = setup_cell.with_set_up(text, ADDRESS)
    kinds = [cell["id"] for cell in json.loads(done)["cells"]]
    assert kinds == ["cell-0", "set-up", "cell-1", "cell-2", "cell-3"]
    assert ADDRESS in done
    # Without its lines, what is left is the text as it was.
    cell = json.dumps(setup_cell.set_up_cell(ADDRESS), indent=1)
    block = "".join(f"  {line}\n" for line in cell.splitlines())
    assert done.replace(block.rstrip("\n") + ",\n", "") == text


def test_twice_is_once_and_an_old_cell_is_replaced_and_moved(setup_cell):
    text = notebook(("markdown", "# title"), ("code", "1"))
    old = setup_cell.with_set_up(text, "https://github.com/old/book")
    moved = json.loads(old)
    moved["cells"].append(moved["cells"].pop(1))
    for start in (text, old, json.dumps(moved, indent=1) + "\n"):
        once = setup_cell.with_set_up(start, ADDRESS)
        assert once == setup_cell.with_set_up(text, ADDRESS)
        assert setup_cell.with_set_up(once, ADDRESS) == once


def test_a_notebook_without_code_needs_no_set_up(setup_cell):
    text = notebook(("markdown", "# only words"))
    assert setup_cell.with_set_up(text, ADDRESS) == text


def test_foreign_formatting_is_refused_and_not_rewritten(setup_cell):
    text = json.dumps(json.loads(notebook(("code", "1"))), indent=4)
    with pytest.raises(ValueError, match="open and save"):
        setup_cell.with_set_up(text, ADDRESS)


def test_where_the_library_is_there_the_cell_runs_no_command(setup_cell):
    from IPython.core.inputtransformer2 import TransformerManager

    code = TransformerManager().transform_cell(setup_cell.CODE.format(address=ADDRESS))
    commands = []

    def get_ipython():
        commands.append("asked")

    exec(code, {"get_ipython": get_ipython})
    assert commands == []
    guarded = [node for node in ast.parse(code).body if isinstance(node, ast.If)]
    assert len(guarded) == 1
    assert "get_ipython" in ast.unparse(guarded[0])


def test_checking_changes_nothing_and_fails(setup_cell, tmp_path):
    (tmp_path / "book").mkdir()
    (tmp_path / "_config.yml").write_text(f"repository:\n  url: {ADDRESS}\n")
    path = tmp_path / "book" / "chapter.ipynb"
    path.write_text(notebook(("code", "1")))
    before = path.read_bytes()
    assert setup_cell.main(["--check"], tmp_path) == 1
    assert path.read_bytes() == before
    assert setup_cell.main([], tmp_path) == 0
    assert setup_cell.main(["--check"], tmp_path) == 0
    assert path.read_bytes() != before

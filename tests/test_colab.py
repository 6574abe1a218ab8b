"""Colab: what notebooks and library may use there, and the check that tries it."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:  # 3.10: pytest itself depends on it there
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]

# Of these, Colab has old versions. What stands here was seen working with them, by
# `tools/colab_check.py --widgets`; run it before you add a name.
KNOWN = {
    "ipywidgets": {
        *("Button", "Dropdown", "HBox", "HTML", "IntProgress", "IntSlider", "Layout"),
        *("Play", "SelectionSlider", "VBox", "Widget", "jslink"),
    },
    "IPython": set(),
}
# Arguments that ipywidgets 7.7 does not know, or knows by another name.
NEW_ARGUMENTS = {"tabbable", "handle_color", "text_color", "border_top", "border_left"}


@pytest.fixture
def tool(script_at):
    """The module tools/colab_check.py."""
    return script_at("tools/colab_check.py")


def project() -> dict:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)["project"]


# --- what there is on Colab -----------------------------------------------------------


def test_what_colab_has_is_new_enough_so_that_nothing_is_installed(tool):
    pairs = [line.split("==") for line in tool.packages() if "==" in line]
    there = {canonicalize_name(name): version for name, version in pairs}
    needed = list(map(Requirement, project()["dependencies"]))
    named = [r for r in needed if canonicalize_name(r.name) in there]
    assert len(named) > 5
    for requirement in named:
        version = there[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), requirement


def code_of(notebook: Path) -> str:
    """A notebook's code as Python, without lines for the shell."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    return re.sub(r"^( *)[!%].*$", r"\1pass", text, flags=re.MULTILINE)


def test_notebooks_import_only_what_the_library_brings(tool):
    names = {Requirement(line).name for line in project()["dependencies"]}
    # Chapters may use the picture library and arrays, nothing of the book's tools.
    allowed = {"precode_lib", *names, *sys.stdlib_module_names}
    allowed -= {"ipywidgets"}  # whose versions differ; precode_lib.widgets knows both
    paths = tool.notebooks()
    assert len(paths) > 20
    for path in paths:
        assert imported(code_of(path)) <= allowed, path.name


def imported(code: str) -> set[str]:
    """The packages from which code imports."""
    names = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom):
            names.append(node.module)
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return {name.partition(".")[0] for name in names}


def foreign_names(code: str) -> set[str]:
    """What code uses of ipywidgets and IPython besides what is KNOWN."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            known = KNOWN.get(node.value.id)
            if known is not None and node.attr not in known:
                found.add(f"{node.value.id}.{node.attr}")
        elif isinstance(node, ast.ImportFrom) and node.module:
            known = KNOWN.get(node.module.partition(".")[0])
            if known is not None:
                names = {alias.name for alias in node.names} - known
                found |= {f"{node.module}.{name}" for name in names}
        elif isinstance(node, ast.keyword) and node.arg in NEW_ARGUMENTS:
            found.add(node.arg)
    return found


def test_the_library_uses_only_widgets_that_colab_has():
    paths = sorted((ROOT / "precode_lib").rglob("*.py"))
    assert sum("ipywidgets" in path.read_text("utf-8") for path in paths) > 1
    for path in paths:
        assert foreign_names(path.read_text(encoding="utf-8")) == set(), path


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import ipywidgets\nipywidgets.TagsInput()", {"ipywidgets.TagsInput"}),
        ("from ipywidgets import Stack", {"ipywidgets.Stack"}),
        ("from IPython.display import display", {"IPython.display.display"}),
        ("slider(tabbable=True)", {"tabbable"}),
        ("import ipywidgets\nipywidgets.HTML()", set()),
    ],
)
def test_a_new_name_is_found(code, found):
    assert foreign_names(code) == found


# --- the check itself -----------------------------------------------------------------


def executed(*cells: tuple[str, str]) -> dict:
    """A notebook whose cells failed with these last lines, or did not."""
    return {
        "cells": [
            {
                "cell_type": "code",
                "source": [source + "\n", "more"],
                "outputs": [{"output_type": "error", "traceback": ["...", failure]}]
                if failure
                else [{"output_type": "stream", "text": "fine"}],
            }
            for source, failure in cells
        ]
    }


OPEN = "NotSolved: \x1b[0mby_hand: not answered yet. Replace TODO in the cell above."


def test_a_chapter_must_run_through(tool):
    chapter = ROOT / "book" / "leak" / "labels.ipynb"
    assert tool.faults(chapter, executed(("a = 1", ""))) == []
    (found,) = tool.faults(chapter, executed(("a = 1", ""), ("b", "NameError: b")))
    assert found == "'b': NameError: b"


def test_a_students_notebook_must_ask_for_every_answer_and_stop_nowhere_else(tool):
    notebook = ROOT / "book" / "exercises" / "labels.ipynb"
    first, second = "# Check: by_hand", "# Check: label"
    assert tool.faults(notebook, executed((first, OPEN), ("x", ""))) == []
    (found,) = tool.faults(notebook, executed((first, OPEN), (second, "")))
    assert found == "'# Check: label' passed"
    (found,) = tool.faults(notebook, executed((first, OPEN), ("x", "ImportError: y")))
    assert found == "'x': ImportError: y"
    wrong = "NotSolved: label: expected 3, got 2."
    assert len(tool.faults(notebook, executed((second, wrong)))) == 2


def test_git_finds_the_last_commit_at_the_address(tool, tmp_path):
    address = "https://github.com/ada/book"
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    with tool.as_on_the_net(address) as (files, variables):
        assert (files / "book" / "welcome.ipynb").exists()
        command = ["git", "clone", "--quiet", "--depth", "1", address, tmp_path / "b"]
        subprocess.run(command, env=variables, check=True)
    assert (tmp_path / "b" / "precode_lib" / "__init__.py").exists()

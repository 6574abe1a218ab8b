"""What a box sees of the markers: enough for the notebooks, and nothing expected."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from right_answers import without_magic

import precode_lib
from precode_lib.marking import stubs
from precode_lib.marking.notebooks import source

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = Path(precode_lib.__file__).parent
CHAPTERS = stubs.chapters()
NOTEBOOKS = [
    path
    for kind in ("exercises", "solutions")
    for path in sorted((ROOT / "book" / kind).glob("*.ipynb"))
]


def cells_of(path):
    cells = json.loads(path.read_text("utf-8"))["cells"]
    texts = [source(cell) for cell in cells if cell["cell_type"] == "code"]
    return ast.parse(without_magic("\n".join(texts)))


def taken(path):
    """What a notebook takes from its chapter's module, by whatever way."""
    names = set()
    for node in ast.walk(cells_of(path)):
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "check":
            names.add(node.attr)
        module = getattr(node, "module", "")
        if module == f"precode_lib.checks.{path.stem}":
            names |= {alias.name for alias in node.names}
    return names


def defined(text):
    return {name for node in ast.parse(text).body for name in stubs._bound(node)}


def test_every_chapter_has_a_stub():
    assert {path.stem for path in NOTEBOOKS} == {*CHAPTERS}
    assert len(CHAPTERS) >= 19


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_a_stub_has_all_that_a_notebook_takes(path):
    assert len(taken(path)) >= 5
    assert taken(path) <= defined(stubs.stub(path.stem))


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_stub_holds_nothing_of_a_marker(chapter):
    text = stubs.stub(chapter)
    calls = {
        node.func for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)
    }
    called = {node.id for node in calls if isinstance(node, ast.Name)}
    assert not {name for name in called if name.startswith(("expect_", "open_"))}
    assert not called & {"expect", "exercise", "judge", "drawn", "NotSolved"}
    tree = ast.parse((LIBRARY / "checks" / f"{chapter}.py").read_text("utf-8"))
    markers = [n for n in tree.body if getattr(n, "name", "") in stubs._markers(tree)]
    assert len(markers) >= 5
    for marker in markers:
        for node in ast.walk(marker):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert len(node.value) < 20 or node.value not in text


def test_a_chapter_without_a_list_of_what_is_used_is_named(monkeypatch, tmp_path):
    text = "@exercise\ndef by_hand(x, generator):\n    pass\n"
    (tmp_path / "new.py").write_text(text)
    monkeypatch.setattr(stubs, "_CHECKS", tmp_path)
    with pytest.raises(ValueError, match=r"checks/new.py has no list NOTEBOOKS_USE"):
        stubs.stub("new")


def test_a_helper_whose_variable_is_called_like_a_marker_brings_no_marker(
    monkeypatch, tmp_path
):
    text = (
        "from precode_lib.marking import exercise\n"
        "NOTEBOOKS_USE = ['helper']\nSECRET = 7\n\n"
        "@exercise\ndef label(x, generator):\n    return x == SECRET\n\n"
        "def helper():\n    label = 3\n    return label\n"
    )
    (tmp_path / "new.py").write_text(text)
    monkeypatch.setattr(stubs, "_CHECKS", tmp_path)
    assert "SECRET" not in stubs.stub("new")
    assert defined(stubs.stub("new")) == {"asking", "helper", "label"}


@pytest.fixture
def overlay(tmp_path):
    """A library like ours in which the stubs stand for the markers."""
    package = tmp_path / "precode_lib"
    package.mkdir()
    for path in LIBRARY.iterdir():
        if path.name != "checks":
            (package / path.name).symlink_to(path)
    (tmp_path / "data").symlink_to(ROOT / "data")
    stubs.write(package / "checks")
    return tmp_path


TRY_ALL = """
from importlib import import_module
import precode_lib.checks
for chapter in {chapters}:
    module = import_module(f"precode_lib.checks.{{chapter}}")
    assert module.__file__.startswith({folder!r}), module.__file__
    assert not hasattr(module.by_hand, "judge")
    try:
        module.by_hand(1)
    except RuntimeError as problem:
        assert "judged elsewhere" in str(problem)
    else:
        raise SystemExit(f"{{chapter}} judged by itself")
"""


def test_the_written_folder_works_and_judges_nothing_by_itself(overlay):
    script = TRY_ALL.format(chapters=CHAPTERS, folder=str(overlay))
    environment = {**os.environ, "PYTHONPATH": str(overlay), "OMP_NUM_THREADS": "1"}
    environment.pop("PRECODE_EXAMINER", None)
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        cwd="/",  # nothing to import lies there
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]

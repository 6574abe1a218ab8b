"""nbval marks a student's notebook: as handed out, it fails exercise by exercise."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from precode_lib.marking.notebooks import exercises, source, title

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "book" / "exercises").glob("*.ipynb"))


def read(notebook: Path) -> dict:
    return json.loads(notebook.read_text(encoding="utf-8"))


def mark(notebook: Path) -> tuple[str, int, int]:
    """What `pytest --nbval-lax` says, and how many cells failed and passed."""
    options = ["-q", "-p", "no:cacheprovider", "--nbval-lax", "--nbval-current-env"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, notebook],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    failed, passed = re.search(r"(\d+) failed, (\d+) passed", done.stdout).groups()
    return done.stdout, int(failed), int(passed)


def test_there_is_a_notebook_for_every_chapter():
    assert len(NOTEBOOKS) >= 19
    assert sum(len(exercises(read(p))) for p in NOTEBOOKS) >= 40


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_names_its_chapter_for_who_has_the_notebook_only(notebook):
    opening = " ".join(source(read(notebook)["cells"][0]).split())
    chapter, link = re.search(r"For the chapter \[(.+?)\]\((.+?)\)", opening).groups()
    assert chapter == title(read(notebook.parent / link))


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_an_unsolved_notebook_fails_at_each_exercise_and_nowhere_else(notebook):
    asked = exercises(json.loads(notebook.read_text(encoding="utf-8")))
    said, failed, passed = mark(notebook)
    for one in asked:
        assert f"NotSolved: {one.name}: not answered yet." in said
    assert failed == len(asked)
    assert passed > len(asked)

"""The lecturer's guide names what exists: chapters, exercises, quizzes, minutes."""

import ast
import json
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from precode_lib.marking.notebooks import exercises

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"
GUIDE = (BOOK / "teaching.md").read_text(encoding="utf-8")
LINK = re.compile(r"\[([^\]]+)\]\(([^)#]+)\)")


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def links() -> list[tuple[str, str]]:
    found = [(" ".join(text.split()), target) for text, target in LINK.findall(GUIDE)]
    assert len(found) > 40
    return found


def test_every_page_that_is_named_exists():
    missing = [target for _, target in links() if not (BOOK / target).is_file()]
    assert missing == []


def test_every_exercise_that_is_named_exists_under_that_title():
    named = [pair for pair in links() if pair[1].startswith("exercises/")]
    assert len(named) > 20
    for title, target in named:
        titles = [one.title for one in exercises(read(BOOK / target))]
        assert title in titles, (target, titles)


def test_every_section_that_is_named_exists():
    named = re.findall(r"\]\((\w+/\w+\.ipynb)\), \*([A-Z].+?)\*", GUIDE)
    assert len(named) > 3
    for target, words in named:
        cells = read(BOOK / target)["cells"]
        text = "\n".join("".join(cell["source"]) for cell in cells)
        assert re.search(rf"^## {re.escape(words)}", text, re.MULTILINE), words


def questions(notebook: dict) -> list[str]:
    """The first argument of each call of `quiz`."""
    found = []
    for cell in notebook["cells"]:
        code = "".join(cell["source"])
        if cell["cell_type"] == "code" and "quiz(" in code:
            for node in ast.walk(ast.parse(code)):
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "quiz":
                    found.append(ast.literal_eval(node.args[0]))
    return found


def test_every_quiz_that_is_named_asks_that_question():
    text = " ".join(GUIDE.split())
    named = re.findall(r"\]\(([\w/]+\.ipynb)\), quiz: \"(.+?)\"", text)
    assert len(named) == text.count("quiz:") > 8
    for target, words in named:
        asked = questions(read(BOOK / target))
        assert [one for one in asked if one.startswith(words)], (target, words)


def _minutes(text: str) -> int:
    hours, _, minutes = text.rpartition(":")
    return 60 * int(hours or 0) + int(minutes)


@pytest.mark.parametrize(
    ("heading", "total"),
    [("## Ninety minutes", 90), ("## One day", 465), ("## Six weeks", 90)],
)
def test_every_plan_has_no_gap_and_fills_its_time(heading, total):
    part = GUIDE[GUIDE.index(heading) :].split("\n## ")[0]
    rows = re.findall(r"^\| ([\d:]+)–([\d:]+) \|", part, flags=re.MULTILINE)
    times = [(_minutes(start), _minutes(end)) for start, end in rows]
    assert len(times) >= 5
    for (_, end), (start, _) in pairwise(times):
        assert start == end
    assert times[-1][1] - times[0][0] == total


def _reading(target: str) -> int:
    """Minutes that a chapter says it takes."""
    text = (BOOK / target).read_text(encoding="utf-8")
    (minutes,) = re.findall(r"\*(\d+) minutes\.", text)
    return int(minutes)


def _doing(title: str, target: str) -> int:
    """Minutes that an exercise says it takes."""
    found = {one.title: one.minutes for one in exercises(read(BOOK / target))}
    return found[title]


def _work(row: str) -> int:
    """Minutes of all chapters and exercises that a row names."""
    pairs = [pair for pair in LINK.findall(row) if pair[1].endswith(".ipynb")]
    return sum(
        _doing(*pair) if pair[1].startswith("exercises/") else _reading(pair[1])
        for pair in pairs
    )


def _rows(heading: str, first: str) -> list[tuple[str, ...]]:
    part = GUIDE[GUIDE.index(heading) :].split("\n## ")[0]
    return re.findall(rf"^\| ({first}) \|(.*)$", part, flags=re.MULTILINE)


def test_a_days_hours_are_enough_for_what_they_name():
    rows = _rows("## One day", r"[\d:]+–[\d:]+")
    assert len(rows) == 12
    for time, row in rows:
        start, end = map(_minutes, time.split("–"))
        # Groups share their chapters, so each reads one.
        shared = re.search(r"in (two|three) groups", row)
        groups = {"two": 2, "three": 3}[shared[1]] if shared else 1
        needed = _work(row) / groups
        assert needed <= end - start, (time, needed)


def test_a_week_at_home_takes_what_the_guide_says():
    weeks = [_work(row) for _, row in _rows("## Six weeks", r"\d")]
    assert len(weeks) == 6
    assert f"at home {min(weeks)} to {max(weeks)} minutes" in GUIDE


def test_a_further_week_takes_as_long_as_the_guide_says():
    weeks = [_work(row) for _, row in _rows("## Three weeks more", r"[ABC], [^|]+")]
    assert len(weeks) == 3
    least, most = re.search(r"They take (\d+) to (\d+) minutes", GUIDE).groups()
    assert (int(least), int(most)) == (min(weeks), max(weeks))


def test_the_zip_for_students_has_the_exercises_and_no_solutions(tmp_path):
    (command,) = re.findall(r"^  git archive --output=course\.zip (.*)$", GUIDE, re.M)
    excluded = re.findall(r'":\(exclude\)(\S+)"', command)
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    arguments = ["HEAD", "--", ".", *(f":(exclude){path}" for path in excluded)]
    out = tmp_path / "course.zip"
    command = ["git", "archive", f"--output={out}", *arguments]
    subprocess.run(command, cwd=ROOT, check=True)
    listed = subprocess.run(
        [sys.executable, "-m", "zipfile", "-l", out], capture_output=True, text=True
    ).stdout
    assert "book/exercises/what_a_gradient_knows.ipynb" in listed
    assert "book/solutions/" not in listed


# --- the table of goals ---------------------------------------------------------------


@pytest.fixture
def goal_map(script_at):
    """The module book/_ext/goal_map.py."""
    return script_at("book/_ext/goal_map.py")


def test_every_numbered_chapter_says_its_time_and_three_goals(goal_map):
    import yaml

    toc = yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8"))
    names = goal_map.chapters(toc, ROOT)
    assert len(names) > 15 and "book/beyond/which_attack" not in names
    for name in names:
        minutes, found = goal_map.goals(read(ROOT / f"{name}.ipynb"))
        assert 5 <= minutes <= 40, name
        assert len(found) == 3, (name, found)
        assert all(goal.startswith("**") for goal in found), found


def test_a_goal_over_two_lines_is_one_and_a_chapter_without_is_refused(goal_map):
    text = (
        "```{admonition} You will be able to\n- **compute** a,\n  and b;\n"
        "- **explain** c.\n\n*20 minutes. Needs d.*\n```"
    )
    cell = {"cell_type": "markdown", "source": text, "metadata": {}}
    found = goal_map.goals({"cells": [cell]})
    assert found == (20, ["**compute** a, and b", "**explain** c"])
    with pytest.raises(ValueError, match="no learning goals"):
        goal_map.goals({"cells": []})

"""From a solved notebook to a student's, and what a malformed one is told."""

import json
from pathlib import Path

import pytest

from precode_lib.marking.notebooks import Exercise, exercises, student, title


@pytest.fixture
def tool(script_at):
    """The module tools/exercises.py."""
    return script_at("tools/exercises.py")


def markdown(text: str, *tags: str) -> dict:
    return {"cell_type": "markdown", "metadata": {"tags": [*tags]}, "source": text}


def code(text: str, *tags: str) -> dict:
    lines = text.splitlines(keepends=True)
    return {
        "cell_type": "code",
        "metadata": {"tags": [*tags]},
        "source": lines,
        "outputs": [{"output_type": "stream", "name": "stdout", "text": "3"}],
        "execution_count": 7,
    }


HEADING = "## 1. Add\n\n*Implement · easy · 5 minutes*\n\nAdd two numbers."
ANSWER = """\
# Answer: add
def add(a, b):
    ### BEGIN SOLUTION
    #: return TODO
    return a + b
    ### END SOLUTION"""
CHECK = "# Check: add\ncheck.add(add)"


def solved(heading=HEADING, answer=ANSWER, check=CHECK) -> dict:
    cells = [
        markdown("# Exercises: sums\n\nFor the chapter."),
        code("1 + 2", "nbval-check-output"),
        markdown(heading),
        code("a = 1"),
        code(answer),
        code(check),
        markdown("It is a sum.", "solution"),
    ]
    return {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def test_a_notebook_says_what_it_asks():
    assert title(solved()) == "Exercises: sums"
    assert exercises(solved()) == [Exercise("add", 1, "Add", "Implement", "easy", 5)]


def test_a_students_copy_has_neither_solutions_nor_outputs_but_given_ones():
    before = solved()
    copy = student(before)
    assert before == solved(), "the solved notebook was changed"
    sources = ["".join(cell["source"]) for cell in copy["cells"]]
    assert "# Answer: add\ndef add(a, b):\n    return TODO" in sources
    assert "It is a sum." not in sources
    outputs = [bool(c["outputs"]) for c in copy["cells"] if c["cell_type"] == "code"]
    assert outputs == [True, False, False, False]
    assert copy["cells"][-1]["metadata"]["editable"] is False
    assert exercises(copy) == exercises(before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heading": "## 2. Add\n\n*Implement · easy · 5 minutes*"}, "number 2"),
        ({"heading": "## 1. Add\n\nAdd."}, "expected `## 1. Title`"),
        ({"heading": "## 1. Add\n\n*Think · easy · 5 minutes*"}, "not one of ours"),
        ({"heading": "Add."}, "expected heading, got Answer"),
        ({"answer": "add = 1"}, "expected Answer, got Check"),
        ({"answer": "# Answer: add\nadd = 1"}, "has no ### BEGIN SOLUTION"),
        ({"check": "check.add(add)"}, "expected Check"),
        ({"check": "# Check: sub\ncheck.sub(add)"}, "the check after add is of sub"),
        ({"answer": ANSWER.replace("#: return TODO", "")}, "leaves nothing"),
        ({"answer": ANSWER.replace("### END SOLUTION", "")}, "END SOLUTION is missing"),
        ({"answer": ANSWER + "\n### END SOLUTION"}, "where it should not be"),
    ],
)
def test_a_malformed_notebook_is_told_where(changes, message):
    with pytest.raises(ValueError, match=message):
        student(solved(**changes))


@pytest.fixture
def root(tool, tmp_path) -> Path:
    (tmp_path / tool.SOLVED).mkdir(parents=True)
    path = tmp_path / tool.SOLVED / "sums.ipynb"
    path.write_text(json.dumps(solved()), encoding="utf-8")
    return tmp_path


def test_the_tool_writes_checks_and_removes_students_notebooks(tool, root, capsys):
    written = root / tool.STUDENTS / "sums.ipynb"
    assert tool.main(["--check"], root) == 1
    assert not written.exists()
    assert tool.main([], root) == 0
    assert tool.main(["--check"], root) == 0

    written.write_text(written.read_text().replace("TODO", "a + b"))
    assert tool.main(["--check"], root) == 1
    assert "differs" in capsys.readouterr().out
    orphan = written.with_name("old.ipynb")
    orphan.write_text("{}")
    assert tool.main([], root) == 0
    assert not orphan.exists()
    assert "a + b" not in written.read_text()


def test_a_malformed_notebook_is_named_by_the_tool(tool, root):
    (root / tool.SOLVED / "odd.ipynb").write_text(json.dumps(solved(answer="x")))
    with pytest.raises(ValueError, match=r"odd\.ipynb: expected Answer"):
        tool.main([], root)


def test_the_students_notebooks_are_those_of_the_solved_ones(tool):
    assert len(tool.copies()) > 0
    assert tool.drifted() == {}, "run `python tools/exercises.py`"

"""What would break on Windows or macOS, as far as Linux can show it."""

import ast
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from precode_lib import cli
from precode_lib.grading import sandbox

ROOT = Path(__file__).parents[1]
RUN_BY_READERS = ("precode_lib", "book", "examples")

# Other packages first: theirs are other files on other systems.
WITHOUT_UNIX = """
import os, signal, socket, sys
import distributed, filelock, ipywidgets, matplotlib.pyplot, psutil, scipy.optimize
import skimage.metrics, torch, torchvision, tqdm.auto
for name in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[name] = None
for module, names in {
    os: "fork geteuid getuid killpg nice sched_getaffinity setsid uname O_NOFOLLOW",
    signal: "SIGKILL SIGHUP SIGALRM setitimer",
    socket: "AF_UNIX",
}.items():
    for name in names.split():
        delattr(module, name)
"""


def test_every_module_is_imported_without_what_only_unix_has():
    code = """
from importlib import import_module
from pkgutil import walk_packages
import precode_lib
names = [module.name for module in walk_packages(precode_lib.__path__, "precode_lib.")]
for name in names:
    if not name.endswith(".flower"):
        import_module(name)
print(len(names))
"""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_UNIX + code],
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 50


@pytest.mark.parametrize("kind", ["auto", "none"])
def test_grade_says_that_it_needs_unix(kind, tmp_path, monkeypatch, capsys):
    monkeypatch.delattr(os, "fork")
    assert cli.main(["grade", str(tmp_path), "--sandbox", kind]) == cli.MISUSED
    assert "examiner needs Unix" in capsys.readouterr().err


def test_where_there_is_unix_grading_without_a_sandbox_may_be_chosen(monkeypatch):
    monkeypatch.setattr(sandbox, "none_problem", lambda: "")  # of root's
    assert sandbox.choose("none") == "none"


@pytest.mark.parametrize("command", ["", "reproduce", "results", "grade"])
def test_help_is_printed_in_any_encoding(command, capsys):
    with pytest.raises(SystemExit):
        cli.main([*command.split(), "--help"])
    assert capsys.readouterr().out.isascii()


def test_examples_print_what_windows_can_write_into_a_file():
    for path in sorted((ROOT / "examples").glob("*.py")):
        path.read_text(encoding="utf-8").encode("cp1252")


@pytest.mark.parametrize("folder", RUN_BY_READERS)
def test_no_text_is_in_the_encoding_of_the_machine(folder):
    found = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        if "exercises" in path.parts or "_build" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and leaves_encoding_open(node):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == []


def leaves_encoding_open(call: ast.Call) -> bool:
    """Whether it reads or writes text and does not say in which encoding."""
    if any(keyword.arg == "encoding" for keyword in call.keywords):
        return False
    match call.func:
        case ast.Attribute(attr="read_text"):
            return not call.args
        case ast.Attribute(attr="write_text"):
            return len(call.args) < 2
        case ast.Name(id="open"):
            mode = call.args[1] if len(call.args) > 1 else None
            return not (isinstance(mode, ast.Constant) and "b" in mode.value)
    return False


def test_git_leaves_the_ends_of_lines_as_jupyter_writes_them():
    notebook = "book/exercises/labels.ipynb"
    asked = subprocess.run(
        ["git", "check-attr", "eol", "--", notebook],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
    )
    if asked.returncode:
        pytest.skip("not a git checkout")
    assert asked.stdout.strip() == f"{notebook}: eol: lf"


def test_the_book_is_built_by_the_script_wherever_scripts_lie(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "book"))
    import make

    called = []
    monkeypatch.setattr(
        make.subprocess, "call", lambda words, **_: called.append(words)
    )
    monkeypatch.setattr(sysconfig, "get_path", lambda name: f"env/{name.title()}")
    make.build()
    assert called[0][0] == Path("env", "Scripts", "jupyter-book")

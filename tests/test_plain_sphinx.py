"""The way out of Jupyter Book 1: a conf.py that says what _config.yml says."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
# What Jupyter Book sets for services that this book does not use.
UNUSED = {"comments_config", "latex_engine", "pygments_style", "use_jupyterbook_latex"}
NOT_NEEDED = {
    "jupyter_book",
    "sphinx_thebe",
    "sphinx_comments",
    "sphinx_jupyterbook_latex",
}


@pytest.fixture
def tool(script_at):
    """The module tools/plain_sphinx.py."""
    return script_at("tools/plain_sphinx.py")


@pytest.fixture
def config():
    return yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))


@pytest.fixture
def theirs():
    """What Jupyter Book itself tells Sphinx."""
    module = pytest.importorskip("jupyter_book.config")
    files = {"user_yaml": ROOT / "_config.yml", "sourcedir": ROOT}
    files["cli_config"] = {"latex_individualpages": False}
    final, _ = module.get_final_config(**files)
    return final


def test_sphinx_is_told_what_jupyter_book_tells_it(tool, config, theirs):
    ours = tool.settings(config, ROOT)
    paths = {"html_logo", "html_favicon", "html_static_path", "bibtex_bibfiles"}
    lists = {"extensions", "exclude_patterns", "myst_enable_extensions"}
    same = (ours.keys() & theirs.keys()) - paths - lists - {"html_theme_options"}
    assert len(same) > 25
    assert {name: ours[name] for name in same} == {n: theirs[n] for n in same}
    assert {*theirs["extensions"]} - {*ours["extensions"]} == NOT_NEEDED
    assert {*ours["extensions"]} <= {*theirs["extensions"]}
    assert {*ours["exclude_patterns"]} <= {*theirs["exclude_patterns"]}
    for name, value in ours["html_theme_options"].items():
        assert theirs["html_theme_options"][name] == value, name
    # What is left out is what stands there for nothing.
    left = {
        n for n in theirs.keys() - ours.keys() if theirs[n] not in ("", None, False)
    }
    assert left == UNUSED


def test_the_files_that_conf_py_names_are_there(tool, config):
    ours = tool.settings(config, ROOT)
    one = ours["html_logo"], ours["html_favicon"]
    for path in (*one, *ours["html_static_path"], *ours["bibtex_bibfiles"]):
        assert Path(path).is_absolute()
        assert Path(path).exists()


def test_conf_py_can_be_run_and_finds_the_books_extensions(tool, config, tmp_path):
    (tmp_path / "conf.py").write_text(tool.conf_py(config, ROOT), encoding="utf-8")
    local = [*config["sphinx"]["local_extensions"]]
    assert len(local) > 5
    lines = ["from conf import *", "from importlib.util import find_spec"]
    lines += [f"assert all(map(find_spec, {local}))", "print(project, numfig)"]
    command = [sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "The Leaky Gradient True\n", done.stderr


def test_the_environment_has_all_but_jupyter_book(tool):
    needed = tool.packages()
    assert any(each.startswith("torch>=") for each in needed)
    assert any(each.startswith("sphinx-proof") for each in needed)
    assert f"--editable={ROOT}" in needed
    assert not any("jupyter-book" in each for each in needed)
    # Their newest: this is to show what today's break.
    assert not any(set("<>=~") & set(each) for each in tool.PACKAGES)
    loaded = {name.partition(".")[0] for name in tool.EXTENSIONS} - {"sphinx"}
    brought = {name.replace("-", "_") for name in tool.PACKAGES}
    assert {
        name.replace("sphinxcontrib", "sphinxcontrib_bibtex") for name in loaded
    } <= brought


def test_a_build_that_fails_fails(tool, monkeypatch, tmp_path):
    monkeypatch.setattr(tool, "environment", lambda *a, **b: Path(sys.executable))
    monkeypatch.setattr(tool, "FOLDER", tmp_path)
    statuses, tested = iter([1, 0]), []
    monkeypatch.setattr(tool.subprocess, "call", lambda *a, **b: next(statuses))
    monkeypatch.setattr(tool, "test", lambda site: tested.append(site) or 3)
    assert tool.main([]) == 1
    assert tested == []
    assert tool.main([]) == 3
    assert tested == [tmp_path / "html"]

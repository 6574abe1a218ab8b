"""Build the book without Jupyter Book: with Sphinx, and the newest of all it needs.

    python tools/plain_sphinx.py                    # a build, then the browser's tests
    python tools/plain_sphinx.py --build-only

Jupyter Book 1 is hardly maintained any more, and version 2 cannot build this book. The
sources stay as they are: this reads _config.yml and _toc.yml, writes the conf.py that
stands for them, makes an environment with today's versions in _build/plain, once (to
have newer ones, remove it), and builds there as `book/make.py` does, where a warning is
a failure. A workflow runs it weekly, so that the way out is known to be open.

The day it is needed: write `conf_py` into a conf.py beside _toc.yml, put `PACKAGES` in
pyproject.toml in place of jupyter-book, and let book/make.py call sphinx-build.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from address import ROOT
from environments import environment

FOLDER = ROOT / "_build" / "plain"
# What Jupyter Book 1 brings and this book uses.
PACKAGES = (
    "sphinx",
    "myst-nb",
    "sphinx-book-theme",
    "sphinx-external-toc",
    "sphinx-multitoc-numbering",
    "sphinx-design",
    "sphinx-copybutton",
    "sphinx-togglebutton",
    "sphinxcontrib-bibtex",
    "linkify-it-py",
)
EXTENSIONS = [
    "sphinx_togglebutton",
    "sphinx_copybutton",
    "myst_nb",
    "sphinx_external_toc",
    "sphinx.ext.intersphinx",
    "sphinx_design",
    "sphinx_book_theme",
    "sphinxcontrib.bibtex",
    "sphinx_multitoc_numbering",
]
# Of _config.yml, and the option of MyST-NB that stands for it.
EXECUTION = {
    "execute_notebooks": "nb_execution_mode",
    "timeout": "nb_execution_timeout",
    "allow_errors": "nb_execution_allow_errors",
    "stderr_output": "nb_output_stderr",
    "exclude_patterns": "nb_execution_excludepatterns",
}


def settings(config: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """What Sphinx needs to know, from what _config.yml says.

    Args:
        config: as read from the file.
        root: the folder of the file, since conf.py will lie elsewhere.
    """
    own = config["sphinx"]["config"]
    html = config["html"]
    theme = {
        "repository_url": config["repository"]["url"],
        "repository_branch": config["repository"]["branch"],
        "path_to_docs": config["repository"]["path_to_book"],
        "extra_footer": html["extra_footer"],
        "home_page_in_toc": True,
        "use_repository_button": False,
        "use_issues_button": False,
    }
    made = {
        "project": config["title"],
        "author": config["author"],
        "copyright": config["copyright"],
        "extensions": [
            *EXTENSIONS,
            *config["sphinx"]["extra_extensions"],
            *config["sphinx"]["local_extensions"],
        ],
        "exclude_patterns": config["exclude_patterns"],
        "external_toc_path": "_toc.yml",
        "external_toc_exclude_missing": config["only_build_toc_files"],
        "bibtex_bibfiles": [str(root / each) for each in config["bibtex_bibfiles"]],
        "html_theme": "sphinx_book_theme",
        "html_title": config["title"],
        "html_logo": str(root / config["logo"]),
        "html_favicon": str(root / html["favicon"]),
        "html_sourcelink_suffix": "",
        "myst_enable_extensions": ["colon_fence", "dollarmath", "linkify"],
        "myst_url_schemes": ["mailto", "http", "https"],
        "numfig": True,
        "suppress_warnings": ["myst.domains"],
        "use_multitoc_numbering": True,
    }
    made |= {EXECUTION[name]: value for name, value in config["execute"].items()}
    made |= own
    made["html_theme_options"] = theme | own["html_theme_options"]
    made["html_static_path"] = [str(root / each) for each in own["html_static_path"]]
    return made


def conf_py(config: Mapping[str, Any], root: Path) -> str:
    """The text of a conf.py."""
    places = {root / place for place in config["sphinx"]["local_extensions"].values()}
    lines = ["# Written by tools/plain_sphinx.py from _config.yml.", "import sys", ""]
    lines += [f"sys.path.insert(0, {str(place)!r})" for place in sorted(places)]
    found = settings(config, root)
    return "\n".join([*lines, *(f"{n} = {found[n]!r}" for n in sorted(found)), ""])


def packages() -> list[str]:
    """What pip is asked for: Sphinx, all that chapters need, and the library itself."""
    return [*PACKAGES, *_needed(), f"--editable={ROOT}"]


def _needed() -> list[str]:
    """What the library and its chapters need, Jupyter Book apart."""
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        import tomli as tomllib
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    # The library's pages document what these need, too.
    found = [*project["dependencies"], *extras["book"], *extras["flower"]]
    return [each for each in found if not each.startswith("jupyter-book")]


def build(python: Path, folder: Path) -> Path | None:
    """Build every page, executing all; the folder of the site, or None if it failed."""
    conf, site = folder / "conf", folder / "html"
    conf.mkdir(parents=True, exist_ok=True)
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    (conf / "conf.py").write_text(conf_py(config, ROOT), encoding="utf-8")
    strict = ["-W", "-n", "--keep-going"]
    command = [python, "-m", "sphinx", "-b", "html", *strict, "-c", conf, ROOT, site]
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    status = subprocess.call(command, cwd=ROOT, env={**os.environ, "PATH": path})
    return site if status == 0 else None


def test(site: Path) -> int:
    """Run the browser's tests on a site, with the environment that runs this."""
    variables = {**os.environ, "PRECODE_SITE": str(site)}
    command = [sys.executable, "-m", "pytest", "-q", "-m", "browser", "tests/book"]
    return subprocess.call(command, cwd=ROOT, env=variables)


def main(arguments: list[str] | None = None) -> int:
    """Build, test, and fail if one fails."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--python", default=sys.executable, help="to make it with")
    parser.add_argument("--torch-index", help="another index for torch")
    parser.add_argument("--build-only", action="store_true", help="no browser")
    options = parser.parse_args(arguments)
    index = options.torch_index
    python = environment(FOLDER, options.python, packages(), torch_index=index)
    site = build(python, FOLDER)
    if site is None:
        return 1
    print(f"the book is in {site}", flush=True)
    return 0 if options.build_only else test(site)


if __name__ == "__main__":
    sys.exit(main())

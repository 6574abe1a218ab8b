"""Run the notebooks as Colab does: its versions, one notebook, no repository.

    python tools/colab_check.py                     # all of them; an hour of one core
    python tools/colab_check.py book/leak/labels.ipynb book/exercises/labels.ipynb
    python tools/colab_check.py --widgets           # and the tests of the widgets

Makes an environment with what tools/colab.txt lists, in _build/colab, once. Each
notebook of the last commit is copied alone into an empty folder and executed there. Its
first cell fetches the repository, from here: git is told to take the address for this
checkout. That cell must install the library and change nothing else. Chapters
and solutions must run through; in a student's notebook every check has to say that
nothing is answered yet.

What this cannot show is Colab's own page: how it looks, and its package google.colab.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from address import ROOT, read
from environments import environment
from setup_cell import notebooks

PINS = ROOT / "tools" / "colab.txt"
FOLDER = ROOT / "_build" / "colab"
OURS = "precode-lib"
UNANSWERED = re.compile(r"^NotSolved: \w+: not answered yet\.")
WIDGETS = ("test_widgets*.py", "test_plots.py")


def packages() -> list[str]:
    """What pip is asked for: Colab's versions."""
    lines = PINS.read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    return [*pins, "hypothesis"]  # not on Colab, but the widgets' tests draw from it


def installed(python: Path) -> dict[str, str]:
    """Every package of an environment with its version; not ours, but pip itself."""
    command = [python, "-m", "pip", "list", "--format", "json"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    packages = {package["name"]: package["version"] for package in json.loads(found)}
    packages.pop(OURS, None)
    return packages


@contextmanager
def as_on_the_net(address: str) -> Iterator[tuple[Path, dict[str, str]]]:
    """The last commit's files, and variables with which git finds it at the address."""
    with tempfile.TemporaryDirectory() as folder:
        bare, config = Path(folder, "book.git"), Path(folder, "gitconfig")
        files = Path(folder, "book")
        subprocess.run(["git", "clone", "--quiet", "--bare", ROOT, bare], check=True)
        subprocess.run(["git", "clone", "--quiet", bare, files], check=True)
        config.write_text(f'[url "file://{bare}"]\n  insteadOf = {address}\n')
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        yield files, kept | {"GIT_CONFIG_GLOBAL": str(config), "OMP_NUM_THREADS": "1"}


def execute(python: Path, notebook: Path, variables: dict[str, str]) -> dict:
    """The executed notebook, run alone in a new folder; errors do not stop it."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copy(notebook, folder))
        command = [python, "-m", "nbconvert", "--to", "notebook", "--execute"]
        command += ["--allow-errors", "--ExecutePreprocessor.timeout=900"]
        command += ["--log-level=ERROR", "--output", "executed.ipynb", copy]
        environment = variables | {
            "PATH": f"{python.parent}{os.pathsep}{variables['PATH']}",
            "IPYTHONDIR": str(Path(folder, "ipython")),
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # else it warns at every start
        }
        subprocess.run(command, cwd=folder, env=environment, check=True)
        return json.loads(Path(folder, "executed.ipynb").read_text(encoding="utf-8"))


def errors(notebook: dict) -> Iterator[tuple[str, str]]:
    """The first line of each cell that failed, and how it failed."""
    for cell in notebook["cells"]:
        first = "".join(cell["source"]).partition("\n")[0]
        for output in cell.get("outputs", []):
            if output["output_type"] == "error":
                # NotSolved writes its own line; IPython keeps it as the traceback.
                text = output["traceback"][-1] if output["traceback"] else ""
                yield first, re.sub(r"\x1b\[[\d;]*m", "", text)


def faults(path: Path, executed: dict) -> list[str]:
    """What is wrong with an executed notebook, as sentences."""
    failed = list(errors(executed))
    if path.parent.name != "exercises":
        return [f"{first!r}: {text}" for first, text in failed]
    firsts = ["".join(cell["source"]).partition("\n")[0] for cell in executed["cells"]]
    checks = [first for first in firsts if first.startswith("# Check: ")]
    refused = {first for first, text in failed if UNANSWERED.match(text)}
    wrong = [f"{first!r}: {text}" for first, text in failed if first not in refused]
    passed = [f"{first!r} passed" for first in checks if first not in refused]
    return wrong + passed


def check(python: Path, path: Path, variables: dict[str, str]) -> list[str]:
    """What is wrong with a notebook on such a machine."""
    uninstall = [python, "-m", "pip", "uninstall", "--quiet", "--yes", OURS]
    subprocess.run(uninstall, check=True, stderr=subprocess.DEVNULL)
    before = installed(python)
    found = faults(path, execute(python, path, variables))
    changed = sorted(set(before.items()) ^ set(installed(python).items()))
    return found + [f"the first cell changed {changed}"] * bool(changed)


def check_widgets(python: Path) -> int:
    """Run the tests of what the notebooks show, with Colab's versions."""
    paths = [path for name in WIDGETS for path in (ROOT / "tests").glob(name)]
    # Not pyproject.toml's options: they ask for plugins that Colab does not have.
    options = ["-q", "-p", "no:cacheprovider", "-c", os.devnull]
    command = [python, "-m", "pytest", *options, "--rootdir", ROOT, *paths]
    variables = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.call(command, cwd=ROOT, env=variables)


def main(arguments: list[str] | None = None) -> int:
    """Check them, print, and fail if one fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path)
    parser.add_argument("--python", default="python3.13", help="Colab's is 3.13")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="its environment")
    parser.add_argument("--torch-index", help="of PyTorch, for example without CUDA")
    parser.add_argument("--widgets", action="store_true", help="their tests, too")
    options = parser.parse_args(arguments)
    index = options.torch_index
    python = environment(options.folder, options.python, packages(), torch_index=index)
    found, paths = 0, [path.resolve() for path in options.notebooks] or notebooks()
    with as_on_the_net(read()) as (files, variables):
        for path in paths:
            started = time.monotonic()
            name = path.relative_to(ROOT)
            faulty = check(python, files / name, variables)
            seconds = f"{time.monotonic() - started:5.0f} s"
            state = "FAILS" if faulty else "works"
            print(f"{state} {seconds}  {name}", flush=True)
            for sentence in faulty:
                print(f"      {sentence}")
            found += bool(faulty)
    print(f"{len(paths)} notebooks, {found} fail")
    return int(found > 0 or (options.widgets and check_widgets(python) != 0))


if __name__ == "__main__":
    sys.exit(main())

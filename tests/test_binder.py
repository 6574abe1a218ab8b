"""Binder's machine: what repo2docker reads is there, complete, pinned, and in step."""

import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:  # 3.10: pytest itself depends on it there
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".binder"
REPO2DOCKER = shutil.which("jupyter-repo2docker")

# What repo2docker brings for its own server, in its own versions.
BROUGHT = {
    *("ipywidgets", "requests", "typing-extensions", "jinja2", "markupsafe"),
    *("setuptools", "packaging", "platformdirs", "python-dateutil", "six"),
    *("charset-normalizer", "idna", "urllib3", "certifi", "pip"),
}
CUDA = ("nvidia-", "cuda-", "triton")  # of the other build of PyTorch


def lines() -> list[str]:
    """The lines of the pip section of environment.yml, without comments."""
    text = (FOLDER / "environment.yml").read_text(encoding="utf-8")
    return re.findall(r"^      - (.*)$", text, flags=re.MULTILINE)


def pins() -> dict[str, str]:
    """Each package that Binder installs, with its version."""
    pairs = [line.split("==") for line in lines() if not line.startswith("--")]
    return {canonicalize_name(name): version for name, version in pairs}


def wanted() -> list[Requirement]:
    """What the library needs, and the accountant for the chapter on noise."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)["project"]
    extras = project["optional-dependencies"]
    return [Requirement(line) for line in project["dependencies"] + extras["dp"]]


def needed(names: set[str]) -> set[str]:
    """These packages and all that they need, except what repo2docker brings."""
    found, waiting = set(), names - BROUGHT
    while waiting:
        name = waiting.pop()
        found.add(name)
        try:
            lines = requires(name) or []
        except PackageNotFoundError:
            continue  # of another platform
        for requirement in map(Requirement, lines):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting |= {canonicalize_name(requirement.name)} - found - BROUGHT
    return found


def test_everything_the_library_needs_is_pinned_within_its_ranges():
    pinned = pins()
    for requirement in wanted():
        name = canonicalize_name(requirement.name)
        if name not in BROUGHT:
            assert requirement.specifier.contains(pinned[name]), requirement


def test_what_these_need_in_turn_is_pinned_too():
    names = {canonicalize_name(requirement.name) for requirement in wanted()}
    missing = needed(names) - set(pins())
    assert [name for name in sorted(missing) if not name.startswith(CUDA)] == []


def test_both_parts_of_pytorch_are_the_cpu_builds():
    pinned = pins()
    assert [n for n, version in pinned.items() if version.endswith("+cpu")] == [
        "torch",
        "torchvision",
    ]
    torch, torchvision = (
        list(map(int, pinned[name].removesuffix("+cpu").split(".")))
        for name in ("torch", "torchvision")
    )
    # They are released in pairs, and each torchvision imports with its own torch only.
    assert torchvision[1] == torch[1] + 15
    assert "--extra-index-url https://download.pytorch.org/whl/cpu" in lines()


def test_the_book_is_pinned_to_the_same_versions_wherever_it_is_pinned():
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    there = re.findall(r"^([\w-]+)==([\w.]+)", text, flags=re.MULTILINE)
    assert there
    pinned = pins()
    for name, version in there:
        assert pinned.get(canonicalize_name(name), version) == version


def test_every_file_has_a_name_that_repo2docker_reads():
    # It ignores others in silence: environment.yaml was one of them until 2026.
    names = {path.name for path in FOLDER.iterdir()}
    assert names == {"environment.yml", "postBuild", "start"}
    assert not (ROOT / "binder").exists()  # both folders are an error


@pytest.mark.parametrize("name", ["postBuild", "start"])
def test_scripts_can_be_run_and_stop_at_the_first_error(name):
    script = FOLDER / name
    assert script.stat().st_mode & 0o100
    subprocess.run(["bash", "-n", script], check=True)
    text = script.read_text(encoding="utf-8")
    assert text.startswith("#!/usr/bin/env bash\n")
    assert 'exec "$@"\n' in text if name == "start" else "set -euo pipefail" in text


def test_the_library_is_installed_without_touching_what_is_pinned():
    text = (FOLDER / "postBuild").read_text(encoding="utf-8")
    assert "pip install --no-deps --no-index --no-build-isolation --editable ." in text
    # Without isolation, what builds the wheel has to be there.
    assert {"hatchling", "editables"} <= set(pins())


def test_the_start_script_hands_over_to_jupyter():
    command = [FOLDER / "start", "bash", "-c", "echo $OMP_NUM_THREADS $0", "jupyter"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert output == "1 jupyter\n"


@pytest.fixture(scope="module")
def dockerfile() -> str:
    """What repo2docker makes of the repository."""
    if REPO2DOCKER is None:
        pytest.skip("repo2docker is not installed: pip install 'precode-lib[binder]'")
    command = [REPO2DOCKER, "--no-build", "--debug", "--user-id", "1000"]
    command += ["--user-name", "jovyan", ROOT]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_repo2docker_reads_our_files_and_keeps_the_packages_between_commits(dockerfile):
    steps = [
        "environment-2epy-2d3-2e11-2dlinux-2d64-2elock",  # of Python 3.11
        "COPY --chown=1000:1000 src/.binder/environment.yml",
        'env update -p ${NB_PYTHON_PREFIX} --file ".binder/environment.yml"',
        "COPY --chown=1000:1000 src/ ${REPO_DIR}/",
        "RUN ./.binder/postBuild",
        ".binder/start",
    ]
    places = [dockerfile.find(step) for step in steps]
    assert -1 not in places, steps[places.index(-1)]
    assert places == sorted(places)


def test_repo2docker_brings_what_we_leave_to_it(dockerfile):
    python = Path(REPO2DOCKER).resolve().with_name("python")
    code = "import repo2docker.buildpacks.conda as c; print(c.__file__)"
    command = [python, "-c", code]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lock = Path(found.strip()).with_name("environment.py-3.11-linux-64.lock")
    text = lock.read_text(encoding="utf-8")
    brought = dict(re.findall(r"/([\w-]+)-(\d[\w.]*)-[^-/]+\.conda", text))
    brought = {canonicalize_name(name): brought[name] for name in brought}
    assert set(brought) >= BROUGHT
    for requirement in wanted():
        name = canonicalize_name(requirement.name)
        if name in BROUGHT:
            assert requirement.specifier.contains(brought[name]), requirement

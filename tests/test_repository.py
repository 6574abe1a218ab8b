"""The repository keeps its own promises: one list of dependencies, rooms in order."""

import ast
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:  # 3.10: pytest itself depends on it there
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "precode_lib"

# A room may import the rooms before it, never one after it.
ROOMS = [
    "basics",
    "data",
    "models",
    "bottleneck",
    "gradients",
    "defenses",
    "federated",
    "attacks",
    "metrics",
    "ats",
    "training",
    "rounds",
    "experiments",
    "plots",
    "widgets",
    "marking",
    "checks",
    "grading",
    "cli",
]
# Old addresses, which readers and notebooks may go on using, and the library does not.
OLD = {
    *("ats_evaluation", "capture", "evaluation", "flower", "protocols", "sampling"),
}
# Who in a later room may not know an earlier one either.
STRANGERS = {
    "gradients": {"data", "models"},
    "attacks": {"data"},
    "metrics": {"models", "bottleneck", "attacks"},
    "training": {"attacks"},
    "rounds": {"attacks"},
    "plots": {"attacks", "experiments", "training"},
}
# Packages that enter the library through one room each.
DOORS = {
    "matplotlib": {"plots"},
    "ipywidgets": {"widgets"},
    "skimage": {"data", "metrics"},
    "torchvision": {"data", "ats"},
    "flwr": {"rounds"},
}


def modules() -> list[tuple[str, Path]]:
    paths = [path for path in LIBRARY.rglob("*.py") if path.parent != LIBRARY]
    paths += [path for path in LIBRARY.glob("*.py") if path.name != "__init__.py"]
    assert len(paths) > 5
    rooms = [(p.relative_to(LIBRARY).with_suffix("").parts[0], p) for p in paths]
    return [(room, path) for room, path in rooms if room not in OLD]


def imported(path: Path) -> list[str]:
    """Every dotted name that a file imports, with `from a import b` as a.b."""
    package = path.relative_to(ROOT).with_suffix("").parts
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: -node.level], node.module or ""] if node.level else ()
            source = ".".join(filter(None, base)) or node.module
            names += [f"{source}.{alias.name}" for alias in node.names]
    return names


@pytest.mark.parametrize(("room", "path"), modules(), ids=lambda part: str(part)[-40:])
def test_imports_point_up_the_list_of_rooms_only(room, path):
    assert room in ROOMS, f"{path.name} is in no room; add it to ROOMS where it belongs"
    for name in imported(path):
        top, *rest = name.split(".")
        if top != "precode_lib" or not rest or rest[0] not in ROOMS:
            continue
        assert ROOMS.index(rest[0]) <= ROOMS.index(room), f"{path.name}: {name}"
        assert rest[0] not in STRANGERS.get(room, ()), f"{path.name}: {name}"


@pytest.mark.parametrize(("room", "path"), modules(), ids=lambda part: str(part)[-40:])
def test_heavy_packages_enter_through_one_door(room, path):
    for name in imported(path):
        rooms = DOORS.get(name.split(".")[0])
        assert rooms is None or room in rooms, f"{path.name} imports {name}"


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, json, precode_lib; print(json.dumps(sorted(sys.modules)))"
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    heavy = {"torch", "torchvision", "matplotlib", "ipywidgets", "skimage", "scipy"}
    assert not heavy & set(json.loads(output.stdout))


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))[
        "project"
    ]


def test_environment_yaml_and_pyproject_ask_for_the_same():
    text = (ROOT / "environment.yaml").read_text(encoding="utf-8")
    listed = re.findall(r"^      - ([a-z].*)$", text, flags=re.MULTILINE)
    described = project()
    wanted = described["dependencies"] + described["optional-dependencies"]["book"]
    assert listed == wanted
    assert f"- python {described['requires-python']}" in text


def test_every_pin_of_the_book_is_for_something_that_is_installed():
    from importlib.metadata import version

    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    names = re.findall(r"^([\w-]+)==", text, flags=re.MULTILINE)
    assert len(names) > 10
    for name in names:
        version(name)


def tracked() -> list[Path]:
    output = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True
    )
    if output.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in output.stdout.split("\0") if name]


def test_files_over_one_megabyte_are_explained_and_the_whole_stays_small():
    paths = [path for path in tracked() if path.exists()]
    explained = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    large = [p.relative_to(ROOT) for p in paths if p.stat().st_size > 1_000_000]
    assert [str(p) for p in large if f"`{p.as_posix()}`" not in explained] == []
    assert sum(path.stat().st_size for path in paths) < 25_000_000


def test_notebooks_carry_no_outputs_but_those_to_compare_with():
    paths = [path for path in tracked() if path.suffix == ".ipynb"]
    assert paths
    for path in paths:
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if "nbval-check-output" in cell["metadata"].get("tags", []):
                assert cell["outputs"], path
                continue
            assert not cell.get("outputs"), path
            assert cell.get("execution_count") is None, path


def test_notebook_cells_fit_a_slide():
    paths = [path for path in tracked() if path.suffix == ".ipynb"]
    for path in paths:
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            lines = "".join(cell["source"]).splitlines()
            if cell["cell_type"] == "code":
                assert len(lines) <= 30, path
                assert max(map(len, lines)) <= 79, path


@pytest.mark.slow
def test_wheel_contains_the_library_and_its_package_data(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", tmp_path, ROOT],
        check=True,
    )
    (wheel,) = tmp_path.glob("precode_lib-*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        path.relative_to(ROOT).as_posix()
        for path in tracked()
        if LIBRARY in path.parents and path.exists()
    }
    assert "precode_lib/assets/slider.js" in expected
    assert expected <= inside
    assert not [name for name in inside if name.startswith(("tests", "book"))]


def test_the_example_in_the_readme_gives_the_photographs_back():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    example, *_ = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    names: dict = {}
    exec(example, names)
    assert names["found"].exact.all()

"""The repository keeps its own promises: one list of dependencies, rooms in order."""

import ast
import json
import re
import subprocess
import sys
import zipfile
from graphlib import TopologicalSorter
from importlib import import_module
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
    "audit",
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
    *("ats_evaluation", "capture", "evaluation", "protocols", "sampling"),
}
# Files that are doors beside the wing's own: what a reader asks for by its file, what
# needs more than its wing, and what has to load without it. A chapter is its own door.
SIDE_DOORS = {
    "attacks": {
        *("batches", "closed_form", "labels", "likelihoods", "objectives", "observed"),
        *("recipes", "starts"),
    },
    "ats": {"evaluation"},  # it knows attacks
    "audit": {"command"},  # it reads its arguments without torch
    "basics": {"doors", "files", "resuming", "schedules", "thresholds", "validation"},
    "experiments": {"reading"},
    # Its door loads nothing, since it is also opened inside the sandbox.
    "grading": {"limits", "pace", "report", "room", "sandbox", "tables"},
    "marking": {"examiner", "notebooks", "stubs"},  # a program; and for its callers
    "plots": {"charts"},
    "rounds": {"flower"},  # it needs Flower
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
    "torchvision": {"data", "ats", "audit"},  # of an audit: its models, by name
    "flwr": {"rounds"},
}


def files() -> list[Path]:
    """The library's files, old addresses left out."""
    left_out = {LIBRARY / f"{name}.py" for name in OLD} | {LIBRARY / "__init__.py"}
    paths = {*LIBRARY.rglob("*.py")}
    assert left_out < paths
    return sorted(paths - left_out)


def room_of(path: Path) -> str:
    return path.relative_to(LIBRARY).with_suffix("").parts[0]


def modules() -> list[tuple[str, Path]]:
    return [(room_of(path), path) for path in files()]


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
        if top != "precode_lib" or not rest or rest == ["__version__"]:
            continue
        assert rest[0] in ROOMS, f"{path.name}: {name} is an old address, or none"
        assert ROOMS.index(rest[0]) <= ROOMS.index(room), f"{path.name}: {name}"
        assert rest[0] not in STRANGERS.get(room, ()), f"{path.name}: {name}"


def test_the_list_of_rooms_is_short_and_all_of_them_are_there():
    assert {room for room, _ in modules()} == {*ROOMS}
    assert len(ROOMS) <= 20


def test_the_readme_names_every_room_in_the_order_of_the_list():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`precode_lib/\w.*?) \|", text, re.MULTILINE)
    named = re.findall(r"`(?:precode_lib/)?(\w+)(?:/|\.py)`", " ".join(rows))
    first, *others = ROOMS
    assert named == [*others, first]  # what all stand on comes last there


@pytest.mark.parametrize(("room", "path"), modules(), ids=lambda part: str(part)[-40:])
def test_no_banner_divides_a_file(room, path):
    """Where a file has parts with names, it is several files."""
    banners = re.findall(r"^ *# ?-{3}.*", path.read_text(encoding="utf-8"), re.M)
    assert banners == []


def test_contributing_says_what_comes_into_every_room_and_where_its_test_is():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| .+ \| `(precode_lib/.+)` \| `(tests/.+)` \|$", text, re.M)
    rooms = [room_of(ROOT / home) for home, _ in rows]
    assert [*dict.fromkeys(rooms)] == ROOMS
    for room, (home, test) in zip(rooms, rows, strict=True):
        assert (ROOT / home).exists(), home
        tested = "\n".join(imported(ROOT / test))
        assert f"precode_lib.{room}" in tested, f"{test} is no test of {room}"


def homes(name: str) -> list[Path]:
    """The files of the library that importing a dotted name reads."""
    top, *rest = name.split(".")
    found, place = [], LIBRARY
    for part in rest if top == "precode_lib" else []:
        place = place / part
        file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        # A function of a door may be called like a file behind it; it is the function.
        if not file.exists() or (found and part in set.union(*names_of_door(found[0]))):
            break
        found.append(file)
    return found


@pytest.mark.parametrize(("room", "path"), modules(), ids=lambda part: str(part)[-40:])
def test_a_wing_is_entered_through_its_door_only(room, path):
    for name in imported(path):
        for home in homes(name):
            other = room_of(home)
            if other == room or home.name == "__init__.py" or home.parent == LIBRARY:
                continue
            doors = SIDE_DOORS.get(other, set())
            assert home.stem in doors, f"{path.name}: {name} is inside of {other}/"


def test_no_two_files_wait_for_each_other():
    graph = {}
    for room, path in modules():
        read = {home for name in imported(path) for home in homes(name)}
        # Whoever imports from a wing reads its door; inside, the door came first.
        own_door = LIBRARY / room / "__init__.py"
        graph[path] = read - {path, own_door}
    assert sum(map(len, graph.values())) > 400
    tuple(TopologicalSorter(graph).static_order())  # a CycleError names the circle


def names_of_door(path: Path) -> tuple[set[str], set[str]]:
    """What a door lists for readers, and what it offers besides."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    taken = {
        alias.asname or alias.name
        for node in body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    lists = [
        ast.literal_eval(node.value)
        for node in body
        if isinstance(node, ast.Assign) and node.targets[0].id == "__all__"
    ]
    listed = {name for one in lists for name in one}
    return listed, taken - listed


@pytest.mark.parametrize("door", sorted(LIBRARY.glob("*/__init__.py")), ids=room_of)
def test_what_a_door_offers_and_does_not_list_another_room_takes(door):
    room = room_of(door)
    taken = {name for other, p in modules() if other != room for name in imported(p)}
    _, besides = names_of_door(door)
    prefix = f"precode_lib.{room}."
    assert [name for name in besides if prefix + name not in taken] == []


# Names that mean one thing each in two rooms, and why they may.
SHARED = {
    # The paper's settings of each: a scale, a schedule, a way of measuring.
    "PAPER": {"experiments", "metrics", "training"},
    # For pages: names and titles, of what `experiments` keeps with the code behind it.
    "ATTACKS": {"experiments", "experiments.reading"},
    "DEFENSES": {"experiments", "experiments.reading"},
    "MODELS": {"experiments", "experiments.reading"},
    # A first picture is drawn so, or a layer's weights; each is asked for by its file.
    "uniform": {"attacks.starts", "models"},
    # The grader is a product of its own, and knows nothing of experiments.
    "Pace": {"experiments", "grading.pace"},
    "as_json": {"experiments", "grading.tables"},
    "in_words": {"experiments", "grading.pace"},
    # Each makes a page and a line for a terminal; the grader knows nothing of audits.
    "page": {"audit", "grading.report"},
    "summary": {"audit.command", "grading.report"},
    # Programs.
    "main": {"cli", "marking.examiner"},
}


def offered(door: str) -> dict[str, object]:
    """What a door or a side door has for readers, or else all that is made there."""
    module = import_module(f"precode_lib.{door}")
    names = getattr(module, "__all__", None) or [
        name
        for name, value in vars(module).items()
        if name[0] != "_"
        and (name.isupper() or getattr(value, "__module__", "") == module.__name__)
    ]
    return {name: getattr(module, name) for name in names}


def test_no_two_rooms_have_different_things_of_one_name():
    doors = [*ROOMS, *(f"{room}.{d}" for room in SIDE_DOORS for d in SIDE_DOORS[room])]
    homes_of: dict[str, dict[int, str]] = {}
    for door in sorted({*doors} - {"rounds.flower"}):  # an extra, with warnings
        for name, value in offered(door).items():
            homes_of.setdefault(name, {}).setdefault(id(value), door)
    assert len(homes_of) > 400
    several = {n: {*homes.values()} for n, homes in homes_of.items() if len(homes) > 1}
    assert several == SHARED


@pytest.mark.parametrize("old", sorted(OLD))
def test_an_old_address_is_a_door_and_nothing_else(old):
    path = LIBRARY / f"{old}.py"
    docstring, *doors, last = ast.parse(path.read_text(encoding="utf-8")).body
    assert "old address" in docstring.value.value
    assert all(isinstance(door, ast.ImportFrom) for door in doors)
    assert isinstance(last, ast.Assign)
    assert names_of_door(path)[0]
    assert names_of_door(path)[1] == set()


def imports_of_notebooks() -> set[tuple[str, str]]:
    """Room and name of all that the notebooks import from the library."""
    found = set()
    for path in (ROOT / "book").rglob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        texts = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
        lines = r"^from (precode_lib\S*) import (\([^)]*\)|.*)$"
        for room, names in re.findall(lines, "\n".join(texts), re.M):
            plain = re.sub(r" as \w+", "", names)
            found |= {(room, name) for name in re.findall(r"\w+", plain)}
    return found


def test_all_that_notebooks_import_is_where_they_look_for_it():
    found = imports_of_notebooks()
    assert len(found) > 150
    for room, name in sorted(found):
        module = import_module(room)
        assert hasattr(module, name) or import_module(f"{room}.{name}")


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


def test_the_package_lists_its_rooms_and_loads_one_when_it_is_asked_for():
    code = "import sys, precode_lib; print(dir(precode_lib), 'torch' in sys.modules); "
    code += "print(precode_lib.metrics.psnr.__module__); precode_lib.nothing"
    command = [sys.executable, "-c", code]
    output = subprocess.run(command, capture_output=True, text=True)
    rooms, loaded = output.stdout.splitlines()
    assert rooms == f"{sorted([*ROOMS, '__version__'])} False"
    assert "no attribute 'nothing'" in output.stderr
    assert loaded.startswith("precode_lib.metrics")


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


def test_what_is_broken_weekly_is_there_with_its_tests():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    config = tomllib.loads(text)["tool"]["mutmut"]
    tests = config["pytest_add_cli_args_test_selection"]
    assert tests
    for pattern in [*config["only_mutate"], *tests]:
        assert [*ROOT.glob(pattern)], pattern


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


def test_no_formula_lost_a_backslash():
    # "\top" and "\big" in a string that is not raw begin with a tab and a backspace.
    paths = [path for path in tracked() if path.suffix == ".ipynb"]
    assert paths
    for path in paths:
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            text = "".join(cell["source"]) + cell["metadata"].get("slide", "")
            assert not re.search(r"[\x00-\x09\x0b-\x1f]", text), path


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

"""What the manual beside the library shows is run as it stands there.

Also the newcomer's test: a data set, a defense, an attack and a kind of cell of one's
own come into a table from one file, without a change of the library.
"""

import ast
import json
import re
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from precode_lib import experiments
from precode_lib.experiments import (
    ATTACKS,
    DATASETS,
    DEFENSES,
    KINDS,
    MODELS,
    SMOKE,
    Lab,
    Setup,
    Store,
    find,
    reproduce,
    rows,
    seconds,
)
from precode_lib.experiments.cells import from_dict, to_dict
from precode_lib.experiments.shelf import Shelf, side_by_side

MANUAL = Path(experiments.__file__).with_name("README.md")


def block(heading: str) -> str:
    """The Python code under a heading of the manual."""
    text = MANUAL.read_text(encoding="utf-8")
    section = re.split(r"^#+ ", text.split(f" {heading}\n")[1], flags=re.MULTILINE)[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    return code


@pytest.fixture
def newcomer(tmp_path, monkeypatch):
    """Run a block in an empty folder; what it makes known is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    for registry in (ATTACKS, DATASETS, DEFENSES, KINDS, MODELS):
        monkeypatch.setattr(registry, "data", dict(registry.data))

    def follow(heading: str) -> dict:
        names = {"__name__": "newcomer"}
        exec(block(heading), names)
        return names

    return follow


def test_a_defense_of_one_s_own_stands_in_a_table(newcomer, capsys):
    names = newcomer("A defense of your own")
    out = capsys.readouterr().out
    assert out.count("finished ") == 2
    assert "lenet half iga" in out and "not run" not in out
    mine, store = names["mine"], names["store"]
    found = find(mine.all_cells(SMOKE), store)
    heads, body = side_by_side(rows(mine, SMOKE, found))
    titles = [line[heads.index("defense")] for line in body]
    assert titles == ["none", "half of the entries"]
    # Only half of the gradient came: the search ended elsewhere.
    first, second = (found[c].result["objective"] for c in mine.cells(SMOKE))
    assert first != second


def test_a_data_set_of_one_s_own_stands_in_a_table(newcomer, capsys):
    names = newcomer("A data set of your own")
    lines = capsys.readouterr().out.splitlines()
    metrics = ["train_accuracy", "test_accuracy", "mse", "psnr", "ssim", "asr"]
    expected = [(d, m) for part in (metrics[:2], metrics[2:])
                for d in ("none", "precode") for m in part]  # fmt: skip
    assert [tuple(line.split()[:2]) for line in lines] == expected
    assert "None" not in "".join(lines)
    (seen,) = {
        finished.pictures[0]["name"] for finished in names["store"]
    }  # and nothing stood in for it
    assert seen == "stripes"


def test_examples_that_are_no_pictures_stand_in_a_table(newcomer, capsys):
    names = newcomer("Examples that are no pictures")
    out = capsys.readouterr().out
    assert "failed" not in out and "not run" not in out and "ssim" not in out
    mine, store = names["mine"], names["store"]
    del DATASETS["patients"]  # to read, nothing is asked of it
    made = rows(mine, SMOKE, find(mine.all_cells(SMOKE), store))
    told = {(r.attack, r.setup.defense, r.metric): r.mean for r in made}
    assert len(told) == 9
    assert told["divide", "none", "relative_error"] < 1e-4
    assert told["lbfgs", "none", "asr"] == told["lbfgs", "ng-2", "asr"] == 100


def test_without_the_newcomer_s_file_the_results_are_still_read(newcomer, capsys):
    names = newcomer("A defense of your own")
    del DEFENSES["half"]
    mine = names["mine"]
    made = rows(mine, SMOKE, find(mine.all_cells(SMOKE), Store("my_results")))
    assert all(row.mean is not None for row in made)
    assert {line[1] for line in side_by_side(made)[1]} == {"none", "half"}


def test_an_attack_of_one_s_own_is_a_cell(newcomer, lab, store):
    newcomer("An attack of your own")
    cell = SMOKE.attack(SMOKE.setup("cifar10", "smlp", "none"), "iga-layerwise")
    usual = replace(cell, attack="iga")
    ends = [e.state for e in reproduce([cell, usual], store, lab) if e.state]
    assert ends == ["finished"] * 2
    first, second = (find([c], store)[c].result["objective"] for c in (cell, usual))
    assert first != second
    assert seconds(cell) == seconds(usual)


def test_a_kind_of_one_s_own_is_run_kept_read_and_priced(newcomer, lab, store):
    names = newcomer("A kind of cell of your own")
    cell = names["LengthCell"](Setup("photos", "smlp", "precode", width=16), victims=4)
    assert from_dict(to_dict(cell)) == cell
    ends = [e for e in reproduce([cell], store, lab) if e.state]
    assert [(e.state, e.problem) for e in ends] == [("finished", "")]
    (kept,) = store
    assert kept.key.startswith("length-photos-smlp-precode-s0-")
    table = experiments.Table("lengths", "How long", lambda scale: [cell])
    (row,) = rows(table, SMOKE, find([cell], store))
    assert row.metric == "length" and row.mean > 0
    assert row.mean == pytest.approx(sum(kept.result["length"]) / 4)
    heads, body = side_by_side([row])
    assert heads[-1] == "length" and body[0][:2] == ["SMLP", "PRECODE"]
    assert seconds(cell) == 1.5
    told = json.loads(store.file(kept.key).read_text())["units"]
    assert told["length"] == "of the whole gradient; one per victim"
    again = [e.state for e in reproduce([cell], store, lab) if e.state]
    assert again == ["kept"]


def test_a_kind_is_refused_where_its_cells_are_none():
    with pytest.raises(TypeError, match="inherits from Cell"):
        replace(KINDS["noise"], cell=Setup)


def test_a_new_file_among_the_kinds_is_found_by_itself():
    folder = Path(experiments.__file__).parent / "kinds"
    files = {file.stem for file in folder.glob("*.py")} - {"__init__"}
    assert {import_module(f"{experiments.__name__}.kinds.{f}").KIND for f in files} == {
        *KINDS.values()
    }


def test_nobody_asks_a_cell_for_its_kind_by_type():
    """The room has no switch over kinds: what differs stands in the kind's record."""
    folder = Path(experiments.__file__).parent
    kinds = {kind.cell.__name__ for kind in KINDS.values()}
    files = [*folder.rglob("*.py")]
    assert len(files) > 20
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                given = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
                is_switch = node.func.id in ("isinstance", "issubclass", "type")
                assert not (is_switch and given & kinds), (file.name, node.lineno)


def test_the_script_for_slurm_imports_what_is_there():
    tree = ast.parse(block("SLURM"))
    names = [
        alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module == "precode_lib.experiments"
        for alias in node.names
    ]
    assert len(names) == 5
    assert [name for name in names if not hasattr(experiments, name)] == []


def test_a_shelf_and_the_originals_need_no_folder_for_work(tmp_path, monkeypatch):
    from precode_lib.experiments.shelf import originals

    def refuse(*arguments, **options):
        raise AssertionError("a lab was made in order to read")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Lab, "__init__", refuse)
    assert len(Shelf.of(SMOKE, tmp_path).found) == 0
    cell = SMOKE.attack(SMOKE.setup("photos", "smlp", "none"))
    assert originals(cell).shape == (4, 3, 32, 32)
    assert list(tmp_path.iterdir()) == []


def test_contributing_names_the_manual():
    text = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (link,) = {*re.findall(r"\]\((precode_lib/experiments/[^)]*)\)", text)}
    assert Path(__file__).parents[2] / link == MANUAL

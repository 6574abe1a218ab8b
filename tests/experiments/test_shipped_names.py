"""Every shipped result has the name that its own cell gives it, to the last digit."""

import json
from pathlib import Path

import pytest

from precode_lib.experiments import Cell
from precode_lib.experiments.cells import from_dict, key_of, to_dict, version_of

RESULTS = Path(__file__).parents[2] / "data" / "results"
# What `Gallery.digest` finds where the data sets are; here only the photographs are.
# (dataset, victims) or (dataset, training pictures, test pictures)
DIGESTS = {
    ("photos", 10): "bb63a175e9bf9d98",
    ("cifar10", 16): "c8f5ab48f8a68e86",
    ("cifar10", 128): "4fc0883a16dd3ab9",
    ("cifar100", 8): "c67ee65cfa432c7f",
    ("cifar100", 16): "dd6da1e8f2a14e3d",
    ("medical_mnist", 16): "54b980e50a582ea1",
    ("cifar10", 10_000, 2_000): "37804a17c03f3ae1-82bc3ef4b0b1340a",
    ("medical_mnist", 10_000, 2_000): "5ad31f10a466d06c-28678ea102811334",
}


def pictures(cell: Cell) -> tuple:
    """What identifies the pictures of a cell, leaving its training out."""
    if cell.kind == "training":
        return cell.setup.dataset, cell.train_pictures, cell.test_pictures
    return cell.setup.dataset, cell.victims


def digest(cell: Cell) -> str | None:
    """The checksum of a cell's pictures; None where nobody has noted it."""
    parts = [pictures(cell), *([pictures(cell.training)] if cell.training else [])]
    known = [DIGESTS.get(part) for part in parts]
    return None if None in known else "-".join(known)


def shipped() -> dict[str, dict]:
    files = sorted(RESULTS.glob("*/*.json"))
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}


def test_every_shipped_file_has_the_name_of_its_cell():
    wrong, checked = [], 0
    for name, entry in shipped().items():
        cell = from_dict(entry["cell"])
        data = entry.get("data") or digest(cell)  # later files say it themselves
        if data is None:
            wrong += [] if name.rpartition("-")[0] in key_of(cell, "") else [name]
            continue
        checked += 1
        wrong += [] if key_of(cell, data) == name else [name]
    assert wrong == []
    assert checked >= 539  # those that were there when this was written


def test_a_shipped_cell_is_written_again_as_it_was_read():
    for name, entry in shipped().items():
        cell = from_dict(entry["cell"])
        # The first files were written before some fields were there, as they are now.
        assert {**to_dict(cell), **entry["cell"]} == to_dict(cell), name
        assert entry.get("version", 1) == version_of(cell) == 1, name


def test_the_noted_checksum_of_the_photographs_is_theirs(loaded):
    cell = next(
        from_dict(entry["cell"])
        for entry in shipped().values()
        if entry["cell"]["setup"]["dataset"] == "photos"
    )
    assert loaded.digest(cell) == DIGESTS["photos", 10]


@pytest.mark.parametrize("field", ["lr", "victims"])
def test_the_check_sees_a_changed_cell(field):
    name, entry = next(
        (n, e) for n, e in shipped().items() if e["cell"]["kind"] == "attack"
    )
    cell = from_dict({**entry["cell"], field: 2 * entry["cell"][field]})
    assert key_of(cell, digest(from_dict(entry["cell"]))) != name

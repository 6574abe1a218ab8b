"""All finished cells as two sheets: a row for each cell, and one for each victim.

Both hold what the files hold: what a file does not say is empty.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from precode_lib.experiments.cells import (
    Cell,
    kind_of,
    namesake,
    to_dict,
    with_trainings,
)
from precode_lib.experiments.protocol import SCALES
from precode_lib.experiments.store import Finished, Store, rounded
from precode_lib.experiments.tables import TABLES

CELLS, VICTIMS = "cells.csv", "victims.csv"
# What smoke finds means nothing.
LISTED = [name for name, scale in SCALES.items() if scale.stand_in is None]


@dataclass(frozen=True)
class Listed:
    """A finished cell and its place among the others.

    Args:
        scale: the folder that its file lies in.
        finished: what the file holds.
        tables: the names of those that read it, or start from it.
        same_as: the key under which the same work counts, where this is another name.
    """

    scale: str
    finished: Finished
    tables: tuple[str, ...]
    same_as: str


def listed(folder: Path, scales: Iterable[str] = LISTED) -> list[Listed]:
    """Every finished cell of these scales."""
    return [each for scale in scales for each in _of_scale(folder, scale)]


def cells_csv(rows: Sequence[Listed]) -> str:
    """A row for each cell: what it is, what it came to, on what and how."""
    return _as_csv([_cell_row(each) for each in rows])


def victims_csv(rows: Sequence[Listed]) -> str:
    """A row for each victim of each cell."""
    return _as_csv([row for each in rows for row in _victim_rows(each)])


def write_sheets(folder: Path) -> None:
    """Both sheets of a folder of results; a file appears whole or not at all."""
    from precode_lib.basics.files import atomic_file

    rows = listed(folder)
    if not rows:
        return
    for name, text in ((CELLS, cells_csv(rows)), (VICTIMS, victims_csv(rows))):
        with atomic_file(folder / name) as partial:
            partial.write_text(text, encoding="utf-8")


def _of_scale(folder: Path, scale: str) -> Iterator[Listed]:
    tables = _tables_of(scale)
    there = list(Store(folder / scale))
    key_of = {finished.cell: finished.key for finished in there}
    for finished in there:
        other = namesake(finished.cell)
        same_as = key_of.get(other, "") if other is not None else ""
        yield Listed(scale, finished, tuple(tables.get(finished.cell, ())), same_as)


def _tables_of(scale: str) -> dict[Cell, list[str]]:
    """The names of the tables that read each cell, or start from it."""
    names: dict[Cell, dict[str, None]] = {}
    for name, table in TABLES.items():
        for cell in with_trainings(table.all_cells(SCALES[scale])):
            names.setdefault(cell, {})[name] = None
    return {cell: list(each) for cell, each in names.items()}


def _cell_row(each: Listed) -> dict[str, Any]:
    finished = each.finished
    return {
        "scale": each.scale,
        "key": finished.key,
        "tables": " ".join(each.tables),
        "same_as": each.same_as,
        **_flat(_fields(finished.cell)),
        **_flat(_numbers(finished.result)),
        **rounded(kind_of(finished.cell).summary(finished.result)),
        "pictures": "; ".join(map(_described, finished.pictures)),
        "data": finished.data,
        "version": finished.version,
        **_made(finished.made),
    }


def _fields(cell: Cell) -> dict[str, Any]:
    """A cell's fields; of its training only what its own setup doesn't say."""
    entry = to_dict(cell)
    if cell.training is not None and cell.training.setup == cell.setup:
        del entry["training"]["setup"]
    if "training" in entry and entry["training"] is None:
        del entry["training"]
    return entry


def _numbers(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result without its lists, which a kind's summary tells of."""
    return {
        name: value for name, value in result.items() if not isinstance(value, list)
    }


def _made(made: Mapping[str, Any]) -> dict[str, Any]:
    """How it came about, with the columns that the first files leave empty."""
    seconds = made.get("processor_seconds")
    said = {n: v for n, v in made.items() if n != "processor_seconds"}
    return {"seconds": seconds, "commit": "", **said}


def _described(pictures: Mapping[str, Any]) -> str:
    return f"{pictures['number']} of {pictures['name']} ({pictures['fidelity']})"


def _victim_rows(each: Listed) -> Iterator[dict[str, Any]]:
    """One row per victim; what its gradient came to stands in each of its rows."""
    finished = each.finished
    values = {
        name: value
        for name, value in kind_of(finished.cell).values.items()
        if value.per and (name in finished.result or not value.rare)
    }
    held = [len(finished.result[n]) for n in values if n in finished.result]
    indices = _indices(finished.pictures)
    for victim in range(max(held, default=0)):
        yield {
            "scale": each.scale,
            "key": finished.key,
            "victim": victim,
            "index": indices[victim] if indices else None,
            **{
                value.column or name: _of(victim, max(held), finished.result.get(name))
                for name, value in values.items()
            },
        }


def _indices(pictures: Iterable[Mapping[str, Any]]) -> list[int]:
    """Which pictures of their collection the victims are, where a file says so."""
    return next((p["indices"] for p in pictures if "indices" in p), [])


def _of(victim: int, victims: int, values: Sequence[Any] | None) -> Any:
    """A victim's own value, or that of the gradient that it shares with others."""
    if values is None:
        return None
    value = values[victim * len(values) // victims]
    return "inf" if value is None else value  # JSON knows no infinity


def _flat(entry: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Mappings in mappings as one, with dots in the names; tuples as one text."""
    flat: dict[str, Any] = {}
    for name, value in entry.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{before}{name}."))
        else:
            whole = isinstance(value, list | tuple)
            flat[before + name] = " + ".join(map(str, value)) if whole else value
    return flat


def _columns(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The columns of all rows; one that is new follows the one before it in its row."""
    columns: list[str] = []
    for names in dict.fromkeys(map(tuple, rows)):
        place = 0
        for name in names:
            if name not in columns:
                columns.insert(place, name)
            place = columns.index(name) + 1
    return columns


def _as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """CSV with all columns that some row has."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, _columns(rows), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()

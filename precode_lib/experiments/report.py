"""Rows as text, as CSV and as JSON: what the command line prints and the book reads."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from precode_lib.experiments.cells import Cell
from precode_lib.experiments.protocol import Scale
from precode_lib.experiments.store import Finished
from precode_lib.experiments.tables import Row, Table, rows

COLUMNS = (
    "table", "scale", "dataset", "model", "defense", "attack", "condition",
    "metric", "paper", "ours", "spread", "difference", "seeds", "of_seeds",
    "cells", "same_as",
)  # fmt: skip


def as_records(
    table: Table, scale: str, table_rows: Sequence[Row]
) -> list[dict[str, Any]]:
    """Rows as plain dictionaries, a column each, None where there is nothing."""
    return [
        {
            "table": table.name,
            "scale": scale,
            "dataset": row.setup.dataset,
            "model": row.setup.model,
            "defense": row.setup.defense,
            "attack": row.attack,
            "condition": row.condition,
            "metric": row.metric,
            "paper": row.paper,
            "ours": _short(row.mean),
            "spread": _short(row.spread),
            "difference": _short(row.difference),
            "seeds": row.seeds,
            "of_seeds": row.of_seeds,
            "cells": " ".join(row.keys),
            "same_as": " ".join(row.same_as),
        }
        for row in table_rows
    ]


def as_csv(records: Sequence[Mapping[str, Any]]) -> str:
    """Tidy CSV: one line per condition and metric."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return buffer.getvalue()


def as_json(records: Sequence[Mapping[str, Any]]) -> str:
    """The records for other programs; what is not finite becomes null."""
    strict = [{name: _strict(v) for name, v in record.items()} for record in records]
    return json.dumps(strict, indent=1, allow_nan=False)


def as_text(table: Table, scale: str, table_rows: Sequence[Row]) -> str:
    """The table for a terminal: the paper's value, ours, the spread, the difference."""
    heads = ("setup", "metric", "paper", "ours", "spread", "difference", "seeds")
    lines = [heads]
    for row in table_rows:
        ours = "not run" if row.mean is None else _number(row.mean)
        lines.append(
            (
                _who(row),
                row.metric,
                _number(row.paper),
                ours,
                _number(row.spread),
                _number(row.difference, sign="+"),
                f"{row.seeds}/{row.of_seeds}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    body = "\n".join(
        "  ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
    claim = f"\nThe paper: {table.claim}" if table.claim else ""
    return f"{table.name} ({scale}): {table.title}\n{body}{claim}"


def records(
    tables: Iterable[Table], scale: Scale, found: Mapping[Cell, Finished]
) -> list[dict[str, Any]]:
    """The records of several tables, as far as their cells are among the finished."""
    pairs = ((table, rows(table, scale, found)) for table in tables)
    return [record for t, r in pairs for record in as_records(t, scale.name, r)]


def as_page(
    tables: Iterable[Table], scale: Scale, found: Mapping[Cell, Finished]
) -> str:
    """Several tables for a terminal, and what there is to say of their scale."""
    texts = [as_text(t, scale.name, rows(t, scale, found)) for t in tables]
    if scale.stand_in:
        texts.append(
            f"Scale {scale.name} tries everything once, on other pictures "
            f"({scale.stand_in}) and for a few steps: its numbers mean nothing."
        )
    return "".join(f"\n{text}\n" for text in texts)


def write_tables(
    tables: Iterable[Table],
    scale: Scale,
    found: Mapping[Cell, Finished],
    folder: Path,
) -> None:
    """One tidy CSV per table, of all seeds; a file appears whole or not at all."""
    from precode_lib.basics.files import atomic_file

    for table in tables:
        text = as_csv(records([table], scale, found))
        with atomic_file(folder / f"{table.name}-{scale.name}.csv") as partial:
            partial.write_text(text, encoding="utf-8")


def _who(row: Row) -> str:
    setup = row.setup
    parts = [setup.dataset, setup.model, setup.defense, row.attack, row.condition]
    return " ".join(part for part in parts if part)


def _number(value: float | None, sign: str = "") -> str:
    return "" if value is None else f"{value:{sign}.2f}"


def _strict(value: Any) -> Any:
    """JSON knows neither NaN nor infinity."""
    return None if isinstance(value, float) and not isfinite(value) else value


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")

"""Rows as text, as CSV and as JSON: what the command line prints and the book reads."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from precode_lib.experiments.tables import Row, Table

COLUMNS = (
    "table", "scale", "dataset", "model", "defense", "attack", "condition",
    "metric", "paper", "ours", "spread", "difference", "seeds", "of_seeds",
)  # fmt: skip


def as_records(table: Table, scale: str, rows: Sequence[Row]) -> list[dict[str, Any]]:
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
        }
        for row in rows
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


def as_text(table: Table, scale: str, rows: Sequence[Row]) -> str:
    """The table for a terminal: the paper's value, ours, the spread, the difference."""
    heads = ("setup", "metric", "paper", "ours", "spread", "difference", "seeds")
    lines = [heads]
    for row in rows:
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

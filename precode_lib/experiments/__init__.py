"""The paper's tables and figures, reproduced cell by cell, at three scales.

`protocol` says what there is to run, `tables` which cells make which table, `queue`
runs them (here, or on a Dask cluster), `store` keeps them, `report` writes them down.
The command line is `precode reproduce` and `precode results`.
"""

from precode_lib.experiments.cells import (
    AtsCell,
    AttackCell,
    Cell,
    NoiseCell,
    Setup,
    TrainingCell,
)
from precode_lib.experiments.costs import in_words, seconds
from precode_lib.experiments.lab import DATASETS, Lab
from precode_lib.experiments.one_cell import Progress
from precode_lib.experiments.protocol import LITE, PAPER, SCALES, SMOKE, Scale
from precode_lib.experiments.queue import (
    Event,
    Tally,
    Task,
    find,
    plan,
    reproduce,
    reproduce_with,
    with_trainings,
)
from precode_lib.experiments.report import as_csv, as_json, as_records, as_text
from precode_lib.experiments.store import RESULTS, Finished, Store
from precode_lib.experiments.tables import TABLES, Row, Table, rows

__all__ = [
    "DATASETS",
    "LITE",
    "PAPER",
    "RESULTS",
    "SCALES",
    "SMOKE",
    "TABLES",
    "AtsCell",
    "AttackCell",
    "Cell",
    "Event",
    "Finished",
    "Lab",
    "NoiseCell",
    "Progress",
    "Row",
    "Scale",
    "Setup",
    "Store",
    "Table",
    "Tally",
    "Task",
    "TrainingCell",
    "as_csv",
    "as_json",
    "as_records",
    "as_text",
    "find",
    "in_words",
    "plan",
    "reproduce",
    "reproduce_with",
    "rows",
    "seconds",
    "with_trainings",
]

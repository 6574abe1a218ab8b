"""The paper's tables and figures, reproduced cell by cell, at three scales.

`protocol` says what there is to run, `tables` which cells make which table, `kinds` all
about each kind of cell, `names` what the names in a cell stand for. `queue` runs many
cells (here, or on a Dask cluster), `one_cell` one of them, in a `lab`; `store` keeps
them, `shelf`, `report` and `sheets` read them again. The command line is `precode
reproduce` and `precode results`; README.md beside this file is the manual.
"""

import typing

import precode_lib.basics.doors as _doors
from precode_lib.experiments.cells import (
    KINDS,
    Cell,
    Kind,
    Progress,
    Reading,
    Setup,
    Value,
    add_kind,
    with_trainings,
)
from precode_lib.experiments.costs import in_words, seconds
from precode_lib.experiments.kinds.adaptive import AdaptiveCell
from precode_lib.experiments.kinds.ats import AtsCell
from precode_lib.experiments.kinds.attack import AttackCell
from precode_lib.experiments.kinds.noise import NoiseCell
from precode_lib.experiments.kinds.training import TrainingCell
from precode_lib.experiments.names.attacks import ATTACKS, Attack
from precode_lib.experiments.names.datasets import DATASETS, Dataset, Published
from precode_lib.experiments.names.defenses import DEFENSES, Defended
from precode_lib.experiments.names.models import MODELS, Architecture, Pace
from precode_lib.experiments.names.registry import Registry
from precode_lib.experiments.protocol import LITE, PAPER, SCALES, SMOKE, Scale
from precode_lib.experiments.report import (
    as_csv,
    as_json,
    as_page,
    as_records,
    as_text,
    records,
    write_tables,
)
from precode_lib.experiments.sheets import (
    LISTED,
    cells_csv,
    listed,
    victims_csv,
    write_sheets,
)
from precode_lib.experiments.store import (
    RESULTS,
    Finished,
    Store,
    default_folder,
    find,
    make_writable,
    shipped,
)
from precode_lib.experiments.tables import TABLES, Row, Table, cells_of, rows

if typing.TYPE_CHECKING:
    from precode_lib.experiments.bench import Bench, Found
    from precode_lib.experiments.gallery import Gallery
    from precode_lib.experiments.lab import Lab
    from precode_lib.experiments.queue import (
        Event,
        Tally,
        Task,
        plan,
        reproduce,
        reproduce_with,
    )

# What needs torch comes when it is asked for: to read results is quick. What is not in
# the list below is for the command line.
_LATER = {
    "Bench": "bench",
    "Event": "queue",
    "Found": "bench",
    "Gallery": "gallery",
    "Lab": "lab",
    "Tally": "queue",
    "Task": "queue",
    "default_work": "lab",
    "device_named": "lab",
    "forecast": "queue",
    "is_idle": "cluster",
    "lend_client": "cluster",
    "plan": "queue",
    "reproduce": "queue",
    "reproduce_with": "queue",
    "run_on": "cluster",
}

__all__ = [
    "ATTACKS",
    "DATASETS",
    "DEFENSES",
    "KINDS",
    "LITE",
    "MODELS",
    "PAPER",
    "RESULTS",
    "SCALES",
    "SMOKE",
    "TABLES",
    "AdaptiveCell",
    "Architecture",
    "AtsCell",
    "Attack",
    "AttackCell",
    "Bench",
    "Cell",
    "Dataset",
    "Defended",
    "Event",
    "Finished",
    "Found",
    "Gallery",
    "Kind",
    "Lab",
    "NoiseCell",
    "Pace",
    "Progress",
    "Published",
    "Reading",
    "Registry",
    "Row",
    "Scale",
    "Setup",
    "Store",
    "Table",
    "Tally",
    "Task",
    "TrainingCell",
    "Value",
    "add_kind",
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


__getattr__ = _doors.later(__name__, _LATER)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

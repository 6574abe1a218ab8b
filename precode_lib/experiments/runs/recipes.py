"""The recipes behind the names of attacks, before a cell's own settings."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from precode_lib.attacks import (
    CPL_PRECODE,
    DLG,
    IGA_PRECODE,
    UNIT_FREE_DLG,
    Recipe,
    VictimLBFGS,
    known_labels,
)
from precode_lib.attacks.objectives import scaled

RECIPES: Mapping[str, Recipe] = {
    "iga": IGA_PRECODE,
    "cpl": CPL_PRECODE,
    "dlg": DLG,
    "dlg-e3": replace(DLG, name="DLG on 1e3 D", distance=scaled(DLG.distance, 1e3)),
    "dlg-e6": replace(DLG, name="DLG on 1e6 D", distance=scaled(DLG.distance, 1e6)),
    "dlg-free": UNIT_FREE_DLG,
    # The label known, as to IGA, and no pixel moves further than a spread at once.
    "lbfgs": replace(
        UNIT_FREE_DLG,
        name="L-BFGS",
        labels=known_labels,
        optimizer=partial(VictimLBFGS, longest=1.0),
    ),
}

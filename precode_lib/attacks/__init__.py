"""Attacks: from an `Observation` back to the pictures behind it, with torch alone.

`recipes` holds the published searches, `search` the engine under them, `closed_form`
what needs no search, `labels` the ways to the labels.
"""

from precode_lib.attacks.lbfgs import VictimLBFGS
from precode_lib.attacks.progress import progress
from precode_lib.attacks.recipes import (
    CPL,
    CPL_PRECODE,
    DLG,
    IDLG,
    IGA,
    IGA_PRECODE,
    cpl,
    dlg,
    idlg,
    iga,
)
from precode_lib.attacks.search import (
    AttackStep,
    Recipe,
    Reconstruction,
    Search,
    constant,
    step_decay,
)

__all__ = [
    "CPL",
    "CPL_PRECODE",
    "DLG",
    "IDLG",
    "IGA",
    "IGA_PRECODE",
    "AttackStep",
    "Recipe",
    "Reconstruction",
    "Search",
    "VictimLBFGS",
    "constant",
    "cpl",
    "dlg",
    "idlg",
    "iga",
    "progress",
    "step_decay",
]

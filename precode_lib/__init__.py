"""Gradient leakage: pictures, models, PRECODE, attacks, and how to score them.

Importing the package loads nothing heavy. Take names from the room they live in, for
example `from precode_lib.bottleneck import with_precode`; `precode_lib.` and the Tab
key list the rooms.
"""

from importlib import import_module as _import_module
from types import ModuleType as _ModuleType

__version__ = "0.1.0"

# In the order of the sentence that CONTRIBUTING.md begins with.
_ROOMS = (
    *("basics", "data", "models", "bottleneck", "gradients", "defenses", "federated"),
    *("attacks", "metrics", "ats", "training", "rounds", "audit"),
    *("experiments", "plots", "widgets", "marking", "checks", "grading", "cli"),
)


def __getattr__(name: str) -> _ModuleType:
    """A room is loaded when it is first asked for."""
    if name in _ROOMS:
        return _import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*_ROOMS, "__version__"]

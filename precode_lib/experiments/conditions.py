"""What sets a row of a table apart from the paper's main tables, in words."""

from dataclasses import replace

from precode_lib.experiments.cells import Cell, Setup
from precode_lib.experiments.names.defenses import DEFENSES, meant


def meant_by(setup: Setup, **changes) -> Setup:
    """The setup with the paper's defense of which its own is another reading."""
    return replace(setup, defense=meant(setup.defense), **changes)


def is_published(setup: Setup) -> bool:
    """Whether the setup is the one behind the paper's main tables."""
    usual = Setup(setup.dataset, setup.model, setup.defense, setup.seed, setup.width)
    return setup == usual


def of_setup(setup: Setup) -> list[str]:
    """Another initialisation, and whatever the defense listens to."""
    parts = []
    if setup.init != "published":
        parts.append(f"{setup.init} initialisation")
    usual = Setup(setup.dataset, setup.model)
    listens = DEFENSES[setup.defense].options if setup.defense in DEFENSES else ()
    for name in listens:
        value = getattr(setup, name)
        if value == getattr(usual, name):
            continue
        if name == "places":
            parts.append(" and ".join(value).replace("features.", ""))
        else:
            parts.append(f"{name} {value:g}")
    return parts


def of_moment(cell: Cell, batch_size: int = 1) -> list[str]:
    """How many pictures shared a gradient, and after how much training."""
    if batch_size > 1 or cell.epoch > 0:
        return [f"batch {batch_size}", f"epoch {cell.epoch}"]
    return []

"""What a cell will cost, before it is run: seconds of one processor core.

From rates of one laptop-sized processor core, and from the store where it holds cells
like it. A kind of cell is met to a factor of two, one cell not always, for a search may
end early or late: enough to choose between now and tonight.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from precode_lib.experiments.cells import Cell, Setup, kind_of, reseeded
from precode_lib.experiments.names.models import MODELS, Pace

if TYPE_CHECKING:
    from precode_lib.experiments.store import Finished

_START = 0.5  # seconds to build and to judge


def seconds(cell: Cell, known: "Iterable[Finished]" = ()) -> float:
    """One core's seconds for a cell, from its like in `known` where there are any."""
    like = [f.made["processor_seconds"] for f in known if _alike(f.cell, cell)]
    if like:
        return sum(like) / len(like)
    return _START + kind_of(cell).cost(cell)


def in_words(total: float) -> str:
    """Seconds as people say them."""
    if total < 90:
        return f"{total:.0f} seconds"
    if total < 90 * 60:
        return f"{total / 60:.0f} minutes"
    return f"{total / 3600:.1f} hours"


def pace_of(setup: Setup) -> Pace:
    """What the setup's model costs; a guess for one that nobody has measured."""
    return MODELS[setup.model].pace if setup.model in MODELS else Pace()


def grown(setup: Setup) -> float:
    """Times as long as at the width for which the model's pace holds."""
    usual = pace_of(setup).width
    return 1.0 if usual is None else (setup.width / usual) ** 1.5


def _alike(one: Cell, other: Cell) -> bool:
    """Whether two cells do the same amount of work: they differ in the seed at most."""
    return reseeded(one, 0) == reseeded(other, 0)

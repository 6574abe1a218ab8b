"""What a cell will cost, before it is run: seconds of one processor core.

From rates measured once on a two-core laptop processor, and from the store where it
holds cells like it. Good to a factor of two: enough to choose between now and tonight.
"""

from collections.abc import Iterable

from precode_lib.experiments.cells import AtsCell, Cell, NoiseCell, TrainingCell
from precode_lib.experiments.store import Finished
from precode_lib.experiments.tables import reseeded

# Seconds of one core: per search step, and per victim and step on top of it.
_STEP = {"smlp": 0.004, "dmlp": 0.007, "lenet": 0.004}
_VICTIM_STEP = {"smlp": 3e-4, "dmlp": 5e-4, "lenet": 4.5e-4}
# What stays dense (noise) is met entry by entry: per victim and step.
_DENSE_STEP = {"smlp": 2.5e-3, "dmlp": 4.0e-3, "lenet": 6e-4}
# Most searches end on their plateau, long before the last iteration.
_SHARE_OF_ITERATIONS = {"none": 0.6, "precode": 0.4, "ng-2": 0.4, "ng-3": 0.4}
# Pictures trained per second of one core, tests included.
_TRAINED = {"smlp": 2_300.0, "dmlp": 1_500.0, "lenet": 6_000.0}
_START = 0.5  # seconds to build and to judge


def seconds(cell: Cell, known: Iterable[Finished] = ()) -> float:
    """One core's seconds for a cell, from its like in `known` where there are any."""
    like = [f.made["processor_seconds"] for f in known if _alike(f.cell, cell)]
    if like:
        return sum(like) / len(like)
    return _START + _guess(cell)


def in_words(total: float) -> str:
    """Seconds as people say them."""
    if total < 90:
        return f"{total:.0f} seconds"
    if total < 90 * 60:
        return f"{total / 60:.0f} minutes"
    return f"{total / 3600:.1f} hours"


def _guess(cell: Cell) -> float:
    setup = cell.setup
    size = (setup.width / 1024) ** 1.5 if setup.model in ("smlp", "dmlp") else 1
    if isinstance(cell, TrainingCell):
        pictures = cell.train_pictures or 50_000
        return size * cell.epochs * 1.1 * pictures / _TRAINED.get(setup.model, 300.0)
    if isinstance(cell, NoiseCell):
        return size * cell.draws * cell.victims * 0.01
    if isinstance(cell, AtsCell):
        tries = 2.5 if cell.adaptive else 1
        return tries * cell.iterations * cell.victims * 0.055 * (setup.width / 64) ** 2
    steps = cell.iterations
    if setup.model != "lenet":  # lenet goes on improving to the end
        steps *= _SHARE_OF_ITERATIONS.get(setup.defense, 0.6)
    is_dense = setup.defense in ("ng-2", "ng-3")
    per_victim = (_DENSE_STEP if is_dense else _VICTIM_STEP).get(setup.model, 0.05)
    step = _STEP.get(setup.model, 0.01)  # other than the tables' models: a guess
    return size * steps * (step + cell.victims * per_victim)


def _alike(one: Cell, other: Cell) -> bool:
    """Whether two cells do the same amount of work: they differ in the seed at most."""
    return type(one) is type(other) and reseeded(one, 0) == reseeded(other, 0)

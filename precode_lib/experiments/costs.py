"""What a cell will cost, before it is run: seconds of one processor core.

From rates of one laptop-sized processor core, and from the store where it holds cells
like it. A kind of cell is met to a factor of two, one cell not always, for a search may
end early or late: enough to choose between now and tonight.
"""

from collections.abc import Iterable

from precode_lib.attacks import VictimLBFGS
from precode_lib.experiments.cells import AtsCell, Cell, NoiseCell, Setup, TrainingCell
from precode_lib.experiments.lab import RECIPES
from precode_lib.experiments.store import Finished
from precode_lib.experiments.tables import reseeded

# Seconds of one core: per search step, and per victim and step on top of it.
_STEP = {"smlp": 0.004, "dmlp": 0.007, "lenet": 0.004}
_VICTIM_STEP = {"smlp": 3e-4, "dmlp": 5e-4, "lenet": 4.5e-4}
# What stays dense (noise) is met entry by entry: per victim and step.
_DENSE_STEP = {"smlp": 2.5e-3, "dmlp": 4.0e-3, "lenet": 6e-4}
# Most searches end on their plateau, before the last iteration.
_SHARE, _DENSE_SHARE = 0.8, 0.5
# Pictures trained per second of one core, tests included.
_TRAINED = {"smlp": 2_400.0, "dmlp": 1_150.0, "lenet": 8_500.0}
# Times as long: a blurred gradient of an MLP, a pruned one, large pictures for LeNet.
_BLURRED, _PRUNED, _LARGE = 1.5, 2.7, 2.5
_EVALUATIONS = 20  # that L-BFGS makes in a step
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
        rate = _TRAINED.get(setup.model, 300.0) / _times_as_long(setup)
        return size * cell.epochs * 1.1 * pictures / rate
    if isinstance(cell, NoiseCell):
        return size * cell.draws * cell.victims * 0.04
    if isinstance(cell, AtsCell):
        tries = 2.5 if cell.adaptive else 1
        return tries * cell.iterations * cell.victims * 0.1 * (setup.width / 64) ** 2
    is_dense = setup.defense.startswith(("ng-", "gc-"))
    share = _DENSE_SHARE if is_dense else _SHARE
    # lenet goes on improving to the end
    steps = cell.iterations * (1 if setup.model == "lenet" else share)
    per_victim = (_DENSE_STEP if is_dense else _VICTIM_STEP).get(setup.model, 0.05)
    if getattr(RECIPES[cell.attack].optimizer, "func", None) is VictimLBFGS:
        steps *= _EVALUATIONS
    step = _STEP.get(setup.model, 0.01)  # other than the tables' models: a guess
    return size * steps * (step + cell.victims * per_victim)


def _times_as_long(setup: Setup) -> float:
    """A training's cost beside the same without a defense on pictures of 32 pixels."""
    if setup.model == "lenet":
        return _LARGE if setup.dataset == "medical_mnist" else 1
    if setup.defense.startswith("gc"):
        return _PRUNED
    return _BLURRED if setup.defense.startswith("ng-") else 1


def _alike(one: Cell, other: Cell) -> bool:
    """Whether two cells do the same amount of work: they differ in the seed at most."""
    return type(one) is type(other) and reseeded(one, 0) == reseeded(other, 0)

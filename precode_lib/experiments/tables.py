"""The paper's tables and figures: which cells each is made of, and how they are read.

A table turns into rows: one per condition and metric, with the paper's value beside the
mean and the spread over seeds of ours. Cells that were not run leave an empty row; a
number that no file holds cannot appear.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from math import isfinite
from statistics import fmean, stdev
from typing import Any

from precode_lib.experiments import protocol
from precode_lib.experiments.cells import Cell, Setup, kind_of, namesake, reseeded
from precode_lib.experiments.kinds.noise import NoiseCell
from precode_lib.experiments.protocol import Scale
from precode_lib.experiments.questions import questions
from precode_lib.experiments.store import Finished

# Other readings of the paper's defenses, tried one by one.
READINGS = ("ng-2-x10", "ng-3-x10", "gc-90", "gc-99", "gc-90-global")


@dataclass(frozen=True)
class Table:
    """A table or figure of the paper.

    Args:
        name: what to call it on the command line.
        title: what it shows.
        cells: from a scale to what has to be run, with seed 0 only.
        claim: what the paper says about it in words, where it prints no numbers.
    """

    name: str
    title: str
    cells: Callable[[Scale], list[Cell]]
    claim: str = ""

    def all_cells(self, scale: Scale) -> list[Cell]:
        """The cells for every seed, seed by seed, each cell once."""
        once = dict.fromkeys(self.cells(scale))
        return [reseeded(cell, seed) for seed in scale.seeds for cell in once]


@dataclass(frozen=True)
class Row:
    """One metric of one condition: the paper's value and ours.

    Args:
        setup: the condition, with seed 0.
        attack: iga, cpl, or nothing for accuracies; ATS rows name the attacker.
        condition: what else distinguishes the row: batch size, epoch, policy.
        metric: mse, psnr (dB), ssim, asr (%), train_accuracy (%), test_accuracy (%),
            relative_error, of what is no picture, or cosine, of two gradients of one
            picture.
        paper: what the paper prints; None if nothing.
        mean: over the seeds that were run; None if none was.
        spread: sample standard deviation over seeds; None for fewer than two, and if
            one is not finite.
        seeds: how many seeds were run, of how many.
        keys: the names of the cells that it is read from, a seed each.
        same_as: of those under whose name the same work counts, where this is another
            name of it.
    """

    setup: Setup
    attack: str
    condition: str
    metric: str
    paper: float | None
    mean: float | None
    spread: float | None
    seeds: int
    of_seeds: int
    keys: tuple[str, ...] = ()
    same_as: tuple[str, ...] = ()

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's."""
        if self.mean is None or self.paper is None:
            return None
        return self.mean - self.paper


def cells_of(tables: Iterable[Table], scale: Scale) -> list[Cell]:
    """The cells of several tables, for every seed, each cell once."""
    return list(dict.fromkeys(c for table in tables for c in table.all_cells(scale)))


def rows(table: Table, scale: Scale, found: Mapping[Cell, Finished]) -> list[Row]:
    """The table, as far as its cells are among the finished ones."""
    made = []
    for cell in dict.fromkeys(table.cells(scale)):
        keys = _keys(cell, scale, found)
        same_as = _keys(namesake(cell), scale, found) if keys else ()
        results = [found[each].result for each in _seeds(cell, scale) if each in found]
        for row in _rows_of(cell, results, len(scale.seeds), scale):
            made.append(replace(row, keys=keys, same_as=same_as))
    return made


def _seeds(cell: Cell, scale: Scale) -> list[Cell]:
    return [reseeded(cell, seed) for seed in scale.seeds]


def _keys(
    cell: Cell | None, scale: Scale, found: Mapping[Cell, Finished]
) -> tuple[str, ...]:
    """The names of a cell's files, all seeds that were run."""
    seeds = [] if cell is None else _seeds(cell, scale)
    return tuple(found[each].key for each in seeds if each in found)


def _rows_of(
    cell: Cell, results: list[Mapping[str, Any]], of_seeds: int, scale: Scale
) -> list[Row]:
    reading = kind_of(cell).read(cell, scale)
    # A stand-in has no counterpart in the paper.
    printed = reading.printed if scale.stand_in is None else {}
    made = []
    for metric, values in reading.values(results).items():
        made.append(
            Row(
                setup=cell.setup,
                attack=reading.attack,
                condition=reading.condition,
                metric=metric,
                paper=printed.get(metric),
                mean=fmean(values) if values else None,
                spread=_spread(values),
                seeds=len(values),
                of_seeds=of_seeds,
            )
        )
    return made


def _spread(values: list[float]) -> float | None:
    # `stdev` raises where one value is NaN, or the PSNR of an exact copy: infinite.
    return stdev(values) if len(values) > 1 and all(map(isfinite, values)) else None


def _privacy(
    scale: Scale,
    dataset: str,
    models: Iterable[str],
    defenses: Iterable[str],
    attack: str = "iga",
) -> list[Cell]:
    setups = [scale.setup(dataset, m, d) for m in models for d in defenses]
    return [scale.attack(setup, attack) for setup in setups]


def _accuracy(
    scale: Scale, dataset: str, models: Iterable[str], defenses: Iterable[str]
) -> list[Cell]:
    setups = [scale.setup(dataset, m, d) for m in models for d in defenses]
    return [scale.training(setup) for setup in setups]


def _both(scale: Scale, *case) -> list[Cell]:
    return [*_privacy(scale, *case), *_accuracy(scale, *case)]


def _fig5(scale: Scale) -> list[Cell]:
    pairs = [(m, d) for m in ("dmlp", "lenet") for d in protocol.DEFENSES]
    setups = [scale.setup("photos", m, d) for m, d in pairs]
    # Photographs that may be shown, whatever the other tables use.
    return [scale.attack(s, victims=min(10, scale.victims), shows=True) for s in setups]


def _fig7(scale: Scale) -> list[Cell]:
    sizes = [size for size in (1, 8, 16) if scale.victims % size == 0]
    return [
        scale.attack(scale.setup("cifar10", m, d), batch_size=size, epoch=epoch)
        for epoch in scale.marks
        for size in sizes
        for m in ("dmlp", "lenet")
        for d in ("none", "precode")
    ]


def _variants(scale: Scale, changes: Iterable[Mapping[str, Any]]) -> list[Cell]:
    setups = [scale.setup("cifar10", "dmlp", "precode", **each) for each in changes]
    attacks = [scale.attack(setup) for setup in setups]
    return [*attacks, *map(scale.training, setups)]


def _ats(scale: Scale) -> list[Cell]:
    return [
        scale.ats(policy, adaptive=adaptive)
        for policy in protocol.POLICIES
        for adaptive in (False, True)
        if not (adaptive and policy == "-1")  # nothing to adapt to
    ]


def _why(scale: Scale) -> list[Cell]:
    """Small experiments on the cells where we differ from the paper."""
    faster = [
        scale.attack(scale.setup("cifar10", m, d), a, lr=0.1)
        for a, m, d in (
            ("iga", "smlp", "none"),
            ("iga", "smlp", "precode"),
            ("iga", "dmlp", "none"),
            ("iga", "dmlp", "ng-2"),
            ("iga", "dmlp", "ng-3"),
            ("iga", "dmlp", "gc"),
            ("iga", "dmlp", "precode"),
            ("iga", "lenet", "none"),
            ("iga", "lenet", "gc"),
            ("iga", "lenet", "precode"),
            ("cpl", "dmlp", "none"),
            ("cpl", "lenet", "none"),
        )
    ]
    read_otherwise = [
        scale.attack(scale.setup("cifar10", m, d), lr=0.1)
        for m in _TWO
        for d in READINGS
    ]
    # LeNet's rows fit the printed rate better, so there each reading is tried at both.
    at_printed_rate = [
        scale.attack(scale.setup("cifar10", "lenet", d)) for d in READINGS
    ]
    default = scale.setup("cifar10", "lenet", "none", init="pytorch")
    trained = [
        scale.training(scale.setup("cifar10", m, d))
        for m in _TWO
        for d in ("ng-2-x10", "ng-3-x10", "gc-90")
    ]
    return [
        *faster,
        *read_otherwise,
        *at_printed_rate,
        scale.attack(default),
        *trained,
    ]


def _fig7_why(scale: Scale) -> list[Cell]:
    """Small experiments on single pictures and the trained DMLP, one change at a time.

    At the paper's scale some are no change, and are then the same cell.
    """
    setups = [scale.setup("cifar10", "dmlp", defense) for defense in _PAIR]
    usual = [scale.attack(s, epoch=epoch) for epoch in scale.marks for s in setups]
    more = scale.more_epochs
    longest = [
        replace(scale.attack(s, epoch=more), training=scale.longer_training(s))
        for s in setups
    ]
    other_searches = [
        attack(setup, epoch=epoch, **changes)
        for attack, changes in ((scale.attack, {"lr": 0.1}), (scale.longer_attack, {}))
        for epoch in scale.marks[1:]
        for setup in setups
    ]
    noise = [
        NoiseCell(c.setup, c.victims, epoch=c.epoch, training=c.training)
        for c in (*usual, *longest)
        if c.setup.defense == "precode"
    ]
    return [*usual, *longest, *other_searches, *noise]


def _units(scale: Scale) -> list[Cell]:
    """DLG on LeNet with two draws of weights, its distance in several units.

    And the same distance, searched without units, where IGA's row is low.
    """
    steps = {"lr": 1.0, "iterations": min(40, scale.iterations // 6)}
    setups = [scale.setup("cifar10", "lenet", "none", init=i) for i in _INITS]
    attacks = ("dlg", "dlg-e3", "dlg-e6", "dlg-free")
    made = [scale.attack(s, attack, **steps) for s in setups for attack in attacks]
    longer = {**steps, "iterations": min(200, scale.iterations // 6)}
    return [*made, *(scale.attack(s, "lbfgs", **longer) for s in setups)]


def _adapt(scale: Scale) -> list[Cell]:
    return [cell for cells in questions(scale).values() for cell in cells]


_INITS = ("published", "pytorch")
_MLPS, _TWO = ("smlp", "dmlp", "lenet"), ("dmlp", "lenet")
_PAIR, _FIVE, _FOUR = ("none", "precode"), protocol.DEFENSES, protocol.FEW_DEFENSES

_ALL = [
    Table(
        "table1",
        "Three models without and with PRECODE, IGA on CIFAR-10",
        lambda scale: _both(scale, "cifar10", _MLPS, _PAIR),
    ),
    Table(
        "table2",
        "Five defenses, IGA on CIFAR-10",
        lambda scale: _both(scale, "cifar10", _TWO, _FIVE),
    ),
    Table(
        "table3a",
        "Four defenses, IGA on CIFAR-100",
        lambda scale: _both(scale, "cifar100", _TWO, _FOUR),
    ),
    Table(
        "table3b",
        "Four defenses, IGA on Medical MNIST",
        lambda scale: _both(scale, "medical_mnist", _TWO, _FOUR),
    ),
    Table(
        "table4",
        "Four defenses, CPL on CIFAR-10",
        lambda scale: _privacy(scale, "cifar10", _TWO, _FOUR, "cpl"),
    ),
    Table(
        "fig4",
        "SSIM of every reconstruction, without and with PRECODE",
        lambda scale: _privacy(scale, "cifar10", _MLPS, _PAIR),
        "SSIM near 1 for the MLPs, lower for LeNet, near 0 with PRECODE.",
    ),
    Table(
        "fig5",
        "Reconstructions under five defenses",
        _fig5,
        "Recognisable without defense, NG-3 and GC; not with PRECODE.",
    ),
    Table(
        "fig6",
        "Accuracy during training, five defenses on CIFAR-10",
        lambda scale: _accuracy(scale, "cifar10", _TWO, _FIVE),
        "PRECODE trains like the baseline; NG-2 and GC do not.",
    ),
    Table(
        "fig7",
        "Batch size and training progress",
        _fig7,
        "MLP: near 1 always; LeNet: falls with both; PRECODE: below 0.15.",
    ),
    Table(
        "supp-k",
        "PRECODE's code size k",
        lambda scale: _variants(scale, [{"k": k} for k in protocol.CODE_SIZES]),
        "No notable influence on training, accuracy or reconstructions.",
    ),
    Table(
        "supp-beta",
        "PRECODE's weight beta",
        lambda scale: _variants(scale, [{"beta": b} for b in protocol.BETAS]),
        "Only 1e-1 slows training and costs accuracy; no influence on privacy.",
    ),
    Table(
        "supp-placement",
        "Where PRECODE stands, and how often",
        lambda scale: _variants(scale, [{"places": p} for p in protocol.PLACEMENTS]),
        "Too near the input: slightly better reconstructions, still "
        "unrecognisable. More than one: lower accuracy, same privacy.",
    ),
    Table(
        "why",
        "Where we differ from the paper: one change at a time",
        _why,
    ),
    Table(
        "fig7-why",
        "Figure 7 where we differ: other searches, a longer training, the noise",
        _fig7_why,
    ),
    Table(
        "units",
        "LeNet by the squared distance, in several units",
        _units,
    ),
    Table(
        "adapt",
        "Attackers who know the defense, and search for what they were not told",
        _adapt,
    ),
    Table(
        "ats",
        "Transformation policies, plain and adaptive attacker",
        _ats,
        "Gao et al. 2021, not this paper; quoted from its replication.",
    ),
]
TABLES: Mapping[str, Table] = {table.name: table for table in _ALL}

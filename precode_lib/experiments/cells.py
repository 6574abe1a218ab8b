"""What can be run, as data: each cell is one number's worth of work, named by a hash.

A cell holds everything that determines its result except the pictures themselves,
whose digest joins it in `key_of`. Cells are plain values: they travel to other
machines, and two equal ones are the same cell. What there is to know about a kind of
cell is one record, its `Kind`; the library's own lie in `kinds`, one file each.
"""

import hashlib
import json
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from precode_lib.experiments.names.defenses import DEFENSES
from precode_lib.experiments.names.models import MODELS
from precode_lib.experiments.names.registry import Registry

if TYPE_CHECKING:
    from precode_lib.data import Examples
    from precode_lib.experiments.gallery import Gallery

BEFORE_FC = ("before fc",)


@dataclass(frozen=True)
class Setup:
    """A model, what it is fed with, and how it is defended.

    Args:
        dataset: a name in `DATASETS`.
        model: a name in `MODELS`.
        defense: a name in `DEFENSES`.
        seed: of the weights, the noise and the attack's start.
        width: of the hidden layers or, for resnet, of its first stage; None for the
            model's usual one. LeNet has no other.
        init: published or pytorch; they differ for lenet.
        k: size of PRECODE's code.
        beta: weight of the KL in bits, as in the paper.
        places: where PRECODE stands, such as "before fc" or "after features.hidden1".

    Behind a defense that puts nothing into the model, k, beta and places are the usual
    ones whatever was asked for, so that the same work has one name.
    """

    dataset: str
    model: str
    defense: str = "none"
    seed: int = 0
    width: int | None = None
    init: str = "published"
    k: int = 256
    beta: float = 1e-3
    places: tuple[str, ...] = BEFORE_FC

    def __post_init__(self) -> None:
        if isinstance(self.places, str):
            raise TypeError(f'places are several: write ("{self.places}",).')
        if self.init not in ("published", "pytorch"):
            raise ValueError(f"init is published or pytorch, got {self.init!r}.")
        # Equal cells have equal names: 1 == 1.0, but JSON writes them differently.
        object.__setattr__(self, "places", tuple(self.places))
        object.__setattr__(self, "beta", float(self.beta))
        object.__setattr__(self, "width", _width(self.model, self.width))
        for name in _unheard(self.defense):
            object.__setattr__(self, name, getattr(Setup, name))

    def __str__(self) -> str:
        usual = Setup(self.dataset, self.model)
        extra = [
            f"{name}={_plain(value)}"
            for name, value in asdict(self).items()
            if name not in ("dataset", "model", "defense", "seed")
            and value != getattr(usual, name)
        ]
        parts = [self.dataset, self.model, self.defense, *extra, f"seed {self.seed}"]
        return " ".join(parts)


class Cell:
    """One number's worth of work: what every kind of cell is.

    A kind's cells are frozen dataclasses of plain values, whose first field is the
    `setup`, and whose `kind` is a name of their own.
    """

    kind: ClassVar[str]
    setup: Setup
    # What has to be run first, and after how many of its epochs this begins; a kind
    # that starts from a training has fields of these names.
    training: "Cell | None" = None
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a cell is.

    Args:
        done: steps made, in this run or an earlier one.
        total: steps in all, at most.
        note: for people.
    """

    done: int
    total: int
    note: str = ""


# Whoever loops over it owns the bar and the stop button; it returns the result.
Run = Generator[Progress, None, dict[str, Any]]


@dataclass(frozen=True)
class Reading:
    """How the result of a cell becomes rows of a table.

    Args:
        metrics: the name of each row's metric -> from the result to its value, or to
            None where it has none: a metric that no result has makes no row.
        printed: what the paper prints, by metric.
        attack: who attacks; empty where nobody does.
        condition: what else distinguishes the row, in words.
        rare: metrics that make no row where nothing was run either.
    """

    metrics: Mapping[str, Callable[[Mapping[str, Any]], float | None]]
    printed: Mapping[str, float | None]
    attack: str = ""
    condition: str = ""
    rare: frozenset[str] = frozenset()

    def values(self, results: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
        """Each metric that makes a row, with its values in these results."""
        found = {
            metric: [value for value in map(value_of, results) if value is not None]
            for metric, value_of in self.metrics.items()
        }
        left_out = found.keys() if results else self.rare
        return {m: v for m, v in found.items() if v or m not in left_out}


@dataclass(frozen=True)
class Value:
    """What a value in a result is: its file says it, and sheets of all files use it.

    Args:
        unit: in words, with its range.
        per: victim or gradient, of a list with an entry for each; empty for the rest.
        column: in a sheet of victims; its own name where nothing is said.
        rare: whether that column is left out where no cell has the value.
    """

    unit: str
    per: str = ""
    column: str = ""
    rare: bool = False

    def __post_init__(self) -> None:
        if self.per not in ("", "victim", "gradient"):
            raise ValueError(
                f"a value is per victim, per gradient or neither, got {self.per!r}."
            )

    def __str__(self) -> str:
        return f"{self.unit}; one per {self.per}" if self.per else self.unit


def _nothing(result: Mapping[str, Any]) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Kind:
    """All there is to know about a kind of cell.

    Args:
        cell: the class of its cells.
        pictures: (cell, gallery) -> the collections that it works on: they are part of
            its name, and its result says which they were.
        run: (cell, bench) -> its progress, and in the end the result: what JSON keeps,
            without times and dates.
        read: (cell, scale) -> how the result becomes rows of a table.
        cost: cell -> about how many seconds of one processor core.
        version: of its results. Raise it whenever they may change: finished cells of
            the old number are then run anew. A test pins a small result of each kind
            as a reminder.
        values: what each value of a result is, by name.
        summary: result -> what one line can say of the lists in it.
    """

    cell: type[Cell]
    pictures: "Callable[[Any, Gallery], Sequence[Examples]]"
    run: Callable[[Any, Any], Run]
    read: Callable[[Any, Any], Reading]
    cost: Callable[[Any], float]
    version: int = 1
    values: Mapping[str, Value] = field(default_factory=dict, hash=False)
    summary: Callable[[Mapping[str, Any]], dict[str, Any]] = _nothing

    def __post_init__(self) -> None:
        is_cell = isinstance(self.cell, type) and issubclass(self.cell, Cell)
        if not (is_cell and is_dataclass(self.cell) and hasattr(self.cell, "kind")):
            raise TypeError(
                "a kind's cell is a frozen dataclass that inherits from Cell and has "
                f"a `kind` of its own, got {self.cell!r}."
            )


KINDS: Registry[Kind] = Registry("kind of cell", Kind, {})


def add_kind(kind: Kind) -> None:
    """Make a kind of cell known, by the name that its cells carry."""
    KINDS[kind.cell.kind] = kind


def kind_of(cell: Cell) -> Kind:
    """The record of a cell's kind."""
    return KINDS.named(cell.kind)


def to_dict(cell: Cell) -> dict[str, Any]:
    """The cell as JSON knows it, with its kind."""
    return {"kind": cell.kind, **json.loads(json.dumps(asdict(cell)))}


def from_dict(entry: dict[str, Any]) -> Cell:
    """The cell of a `to_dict`; refuses fields and kinds that it does not know."""
    entry = dict(entry)
    kind = KINDS.named(entry.pop("kind"))
    if entry.get("training") is not None:
        # It is written without its kind: only trainings are started from.
        entry["training"] = from_dict({"kind": "training", **entry["training"]})
    return _made(kind.cell, entry, setup=_made(Setup, entry.pop("setup")))


def key_of(cell: Cell, data_digest: str) -> str:
    """The name of a cell's files: readable, and different for different results."""
    decisive = to_dict(cell)
    decisive["version"] = version_of(cell)
    decisive["data"] = data_digest
    text = json.dumps(decisive, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    setup = cell.setup
    words = [cell.kind, setup.dataset, setup.model, setup.defense, f"s{setup.seed}"]
    return "-".join([word.replace("_", "") for word in words] + [digest])


def version_of(cell: Cell) -> int:
    """The number of its results; one that starts from a training counts that one too.

    Both numbers only ever rise, so no sum of them comes twice.
    """
    own = kind_of(cell).version
    return own if cell.training is None else own + version_of(cell.training) - 1


def reseeded(cell: Cell, seed: int) -> Cell:
    """The same cell with another seed, in its training too."""
    return _with_setup(cell, seed=seed)


def namesake(cell: Cell) -> Cell | None:
    """The same work under the name by which it counts, where this is a second name."""
    changes = {}
    known = DEFENSES.get(cell.setup.defense)
    if known is not None and known.same_as is not None:
        changes["defense"] = known.same_as
    if cell.kind == "training":
        # A mode of the clients, or what they keep to themselves, is no way to train.
        model = MODELS.get(cell.setup.model)
        if model is not None and model.trained_as is not None:
            changes["model"] = model.trained_as
        if known is not None and known.keeps_statistics:
            changes["defense"] = "none"
    return _with_setup(cell, **changes) if changes else None


def _with_setup(cell: Cell, **changes: Any) -> Cell:
    """The cell with other fields of its setup, in its training too."""
    parts: dict[str, Any] = {"setup": replace(cell.setup, **changes)}
    if cell.training is not None:
        parts["training"] = _with_setup(cell.training, **changes)
    return replace(cell, **parts)


def with_trainings(cells: Iterable[Cell]) -> list[Cell]:
    """The cells and the trainings that attacks among them start from, each once."""
    once: dict[Cell, None] = {}
    for cell in cells:
        if cell.training is not None:
            once[cell.training] = None
        once[cell] = None
    return list(once)


def check_trained(cell: Cell) -> None:
    """Refuse a cell of a trained model without its training, and the reverse."""
    if (cell.epoch > 0) != (cell.training is not None):
        raise ValueError(
            "a cell of a trained model (epoch > 0) needs its training, and only "
            f"that: got epoch {cell.epoch} and training {cell.training}."
        )


def _width(model: str, width: int | None) -> int:
    """The width as it is, or the model's usual one; refuses what would change nothing.

    Of a model that isn't there nothing is known yet: running it will say so.
    """
    known = MODELS.get(model)
    usual = 1024 if known is None else known.width
    if known is not None and not known.has_widths and width not in (None, usual):
        raise ValueError(
            f"{model} comes in one width, {usual}, got {width}: it would be the same "
            "cell under another name. Leave the width out."
        )
    return usual if width is None else width


def _unheard(defense: str) -> tuple[str, ...]:
    """The fields that nothing reads where a defense puts nothing into the model."""
    known = DEFENSES.get(defense)
    is_outside = known is not None and known.insert is None
    return ("k", "beta", "places") if is_outside else ()


def _made(kind: type, entry: dict[str, Any], **parts: Any) -> Any:
    unknown = entry.keys() - {f.name for f in fields(kind)}
    if unknown:
        raise ValueError(
            f"unknown fields {sorted(unknown)} of a {kind.__name__}; it was written by "
            "another version of the library."
        )
    return kind(**entry, **parts)


def _plain(value: Any) -> str:
    return "+".join(value) if isinstance(value, tuple | list) else f"{value}"

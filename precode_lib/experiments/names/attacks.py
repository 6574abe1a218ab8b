"""The attacks that a cell may name: a recipe, or anything else with its options."""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from precode_lib.experiments.names.registry import Registry

if TYPE_CHECKING:
    from torch import nn

    from precode_lib.attacks import Recipe
    from precode_lib.gradients import Gradients


@dataclass(frozen=True)
class Attack:
    """What the name of an attack in a cell stands for.

    Args:
        title: in tables.
        recipe: makes the recipe of its search; iterations, patience and learning rate
            are the cell's.
        run: (observation, cell, bench) -> its progress, and in the end what it
            `Found`; None to search by the recipe.
        knows_noise: whether it is told what the clients' bottlenecks drew: an oracle,
            which no attacker has.
        unused: the fields of a cell that do not matter to it. They are 0 there, so
            that the same work has one name.
        evaluations: of the model in one step, for the cost.
    """

    title: str
    recipe: "Callable[[], Recipe] | None" = None
    run: Callable[..., Generator] | None = None
    knows_noise: bool = False
    unused: tuple[str, ...] = ()
    evaluations: int = 1

    def __post_init__(self) -> None:
        if self.recipe is None and self.run is None:
            raise ValueError(
                f"the attack {self.title!r} needs a recipe to search by, such as "
                "lambda: IGA, or a run of its own."
            )


def divide(observation, cell, bench) -> Generator:
    """Read the picture off the first layer's gradient: one division, no search."""
    from precode_lib.experiments.runs import division

    return division.run(observation, cell, bench)


def divide_all(observation, cell, bench) -> Generator:
    """The same from all rows at once, which averages noise: total least squares."""
    from precode_lib.attacks import total_least_squares
    from precode_lib.experiments.runs import division

    return division.run(observation, cell, bench, estimate=total_least_squares)


def before_the_noise(gradients: "Gradients") -> "Gradients":
    """What no bottleneck's noise touches; torch is imported when it is wanted."""
    from precode_lib.attacks import before_noise

    return before_noise(gradients)


def _strong(**changes: Any) -> "Callable[[], Recipe]":
    """The strongest search, changed; a change may be a function that makes it."""

    def make() -> "Recipe":
        from dataclasses import replace

        from precode_lib.attacks import STRONG

        return replace(STRONG, **{n: made() for n, made in changes.items()})

    return make


def _from_attacks(name: str, *arguments: Any, **options: Any) -> Callable[[], Any]:
    """A name of the attacks, or what it makes of these."""

    def make() -> Any:
        from precode_lib import attacks

        found = getattr(attacks, name)
        return found(*arguments, **options) if arguments or options else found

    return make


def _changed(name: str, **changes: Any) -> "Callable[[], Recipe]":
    """A recipe of the attacks with these changes."""

    def make() -> "Recipe":
        from dataclasses import replace

        return replace(_from_attacks(name)(), **changes)

    return make


def _imagined(model: "nn.Module") -> "nn.Module":
    """Batch norms that ask for their statistics; torch is imported when wanted."""
    from precode_lib.bottleneck import hold_statistics

    return hold_statistics(model)


def _but_the_last_layer(gradients: "Gradients") -> "Gradients":
    """All but the weight that Soteria prunes."""
    return gradients.drop("fc*.weight")


def _over_entries() -> Any:
    from precode_lib.attacks.objectives import balanced_cosine_distance, where_shared

    return where_shared(balanced_cosine_distance)


def _published(name: str, **changes: Any) -> "Callable[[], Recipe]":
    """One of our recipes; torch is imported when it is wanted."""

    def make() -> "Recipe":
        from dataclasses import replace

        from precode_lib.experiments.runs.recipes import RECIPES

        return replace(RECIPES[name], **changes)

    return make


_DLG = partial(Attack, evaluations=20)  # that L-BFGS makes in a step
_STRONG = partial(_DLG, unused=("patience", "lr"))
ATTACKS: Registry[Attack] = Registry(
    "attack",
    Attack,
    {
        "iga": Attack("IGA", _published("iga")),
        "cpl": Attack("CPL", _published("cpl")),
        # The same search on the same distance, in other units: see the table "units".
        "dlg": _DLG("DLG, D as it is", _published("dlg")),
        "dlg-e3": _DLG("DLG, 1,000 D", _published("dlg-e3")),
        "dlg-e6": _DLG("DLG, 1,000,000 D", _published("dlg-e6")),
        "dlg-free": _DLG("DLG, in any units", _published("dlg-free")),
        "lbfgs": _DLG("L-BFGS, label known", _published("lbfgs")),
        # Attackers who know where the noise is, and one who knows the noise.
        "iga-early": Attack(
            "IGA, layers behind the noise left out",
            _published("iga", layers=before_the_noise),
        ),
        "iga-told": Attack("IGA, told the noise", _published("iga"), knows_noise=True),
        "divide": Attack(
            "division by the bias",
            run=divide,
            unused=("iterations", "patience", "lr"),
        ),
        "divide-all": Attack(
            "division, all rows at once",
            run=divide_all,
            unused=("iterations", "patience", "lr"),
        ),
        # The strongest search, with each answer to what the client draws; and with
        # what is known to break a defense.
        "strong": _STRONG("fresh noise", _strong()),
        "strong-still": _STRONG("no noise", _strong(hidden=_from_attacks("still"))),
        "strong-mean-4": _STRONG(
            "mean of 4 draws",
            _strong(hidden=_from_attacks("mean_of", 4, is_fixed=True)),
            evaluations=80,
        ),
        "strong-mean-16": _STRONG(
            "mean of 16 draws",
            _strong(hidden=_from_attacks("mean_of", 16, is_fixed=True)),
            evaluations=320,
        ),
        "strong-early": _STRONG(
            "layers behind the noise left out",
            _strong(layers=lambda: before_the_noise),
        ),
        # L-BFGS wants an objective that stays what it is: no noise instead of fresh.
        "strong-early-still": _STRONG(
            "layers behind the noise left out, no noise",
            _strong(layers=lambda: before_the_noise, hidden=_from_attacks("still")),
        ),
        "joint": _STRONG("joint search", _from_attacks("JOINT")),
        # The published search in as many evaluations, which fresh noise suits better.
        "iga-fast": Attack(
            "IGA, as many evaluations", _from_attacks("IGA"), unused=("patience", "lr")
        ),
        "iga-fast-early": Attack(
            "IGA, as many evaluations, layers left out",
            _changed("IGA", layers=before_the_noise),
            unused=("patience", "lr"),
        ),
        "strong-told": _STRONG("oracle: told the noise", _strong(), knows_noise=True),
        "joint-statistics": _STRONG(
            "joint search, for batch norms' statistics too",
            _changed("JOINT", imagined=_imagined),
        ),
        "strong-rest": _STRONG(
            "pruned layer left out", _strong(layers=lambda: _but_the_last_layer)
        ),
        "strong-kept": _STRONG("zeros left out", _strong(distance=_over_entries)),
    },
)

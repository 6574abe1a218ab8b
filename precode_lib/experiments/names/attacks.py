"""The attacks that a cell may name: a recipe, or anything else with its options."""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from precode_lib.experiments.names.registry import Registry

if TYPE_CHECKING:
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


def before_the_noise(gradients: "Gradients") -> "Gradients":
    """Up to the first bottleneck's encoder: what runs after it depends on the noise."""
    names = list(gradients)
    first = next((i for i, n in enumerate(names) if "bottleneck" in n), len(names))
    encoder = [name for name in names[first:] if ".encoder." in name][:2]
    return gradients.select(*names[:first], *encoder)


def divide(observation, cell, bench) -> Generator:
    """Read the picture off the first layer's gradient: one division, no search."""
    from precode_lib.experiments.runs import division

    return division.run(observation, cell, bench)


def _published(name: str, **changes: Any) -> "Callable[[], Recipe]":
    """One of our recipes; torch is imported when it is wanted."""

    def make() -> "Recipe":
        from dataclasses import replace

        from precode_lib.experiments.runs.recipes import RECIPES

        return replace(RECIPES[name], **changes)

    return make


_DLG = partial(Attack, evaluations=20)  # that L-BFGS makes in a step
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
    },
)

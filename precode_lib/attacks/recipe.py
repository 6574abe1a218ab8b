"""What a search minimises, over what, and how: everything but the victim."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.optim import Adam

from precode_lib.attacks.hidden import Policy, fresh
from precode_lib.attacks.objectives import (
    Distance,
    LabelTerm,
    Prior,
    cosine_distance,
    squared_label_error,
    total_variation,
)
from precode_lib.attacks.starts import Start, normal
from precode_lib.attacks.unknowns import Unknown
from precode_lib.basics.schedules import OptimizerFactory, constant
from precode_lib.basics.validation import (
    check_count,
    check_function,
    check_range,
    closest,
)
from precode_lib.bottleneck import hold_dropout
from precode_lib.federated import Observation
from precode_lib.gradients import Gradients

ADAM: OptimizerFactory = partial(Adam, lr=0.1)
# Field -> what would do, for whoever gave a name or a tensor.
_FUNCTIONS = {
    "distance": "cosine_distance",
    "optimizer": "partial(torch.optim.Adam, lr=0.1)",
    "start": "normal",
    "prior": "total_variation",
    "label_term": "squared_label_error",
    "schedule": "step_decay",
    "hidden": "fresh",
    "imagined": "hold_dropout",
}
_FUNCTIONS_OR_NONE = {
    "labels": "bias_sign_labels",
    "layers": "lambda gradients: gradients.select('fc.*')",
    "layer_weights": "linear_weights",
}


@dataclass(frozen=True)
class Recipe:
    """What a search minimises, over what, and how: everything but the victim.

    Args:
        name: for people.
        distance: (guess's gradients, shared ones) -> (V,), one number for each
            victim; where `layer_weights` are set it also gets them, as `weights`.
        optimizer: of torch.optim or `VictimLBFGS`, with its options bound.
        iterations: how many steps at most.
        start: where the images begin.
        labels: finds the labels in the observation; None searches for them too.
        hidden: what stands where the client draws something that nobody told: `fresh`
            numbers at every step, `mean_of(n)`, `still`, `searched()`, `given(...)`.
        unknowns: what else is searched for, such as a `shift`.
        imagined: from the model to the one that the attacker runs in its place;
            `hold_dropout` lets `hidden` decide on dropout's masks, `hold_statistics`
            on a batch norm's statistics too.
        prior: penalises implausible images (V, B, C, H, W), with `prior_weight`: (V,).
        stages: factors of `prior_weight`, one after the other, for equal parts of the
            iterations. At each the optimizer begins anew from where it is, and so does
            the best: objectives of different weights don't compare.
        label_term: compares the model's output to the labels, with `label_weight`.
        layers: which parameters are matched; None for all.
        layer_weights: how much each parameter counts, (P,); None for 1.
        schedule: (iteration, iterations) -> factor of the learning rate.
        signed: whether the optimizer sees only the signs of the images' slopes.
        boxed: whether every step ends inside the box of real pictures.
        restarts: how many starts compete for each victim; the best is kept.
        patience: a victim stops after so many steps without a lower objective.
        tolerance: a victim stops when its objective is below this.
    """

    name: str = "search"
    distance: Distance = cosine_distance
    optimizer: OptimizerFactory = ADAM
    iterations: int = 1000
    start: Start = normal
    labels: Callable[[Observation], Tensor] | None = None
    hidden: Policy = fresh
    unknowns: tuple[Unknown, ...] = ()
    imagined: Callable[[nn.Module], nn.Module] = hold_dropout
    prior: Prior = total_variation
    prior_weight: float = 0.0
    stages: tuple[float, ...] = (1.0,)
    label_term: LabelTerm = squared_label_error
    label_weight: float = 0.0
    layers: Callable[[Gradients], Gradients] | None = None
    layer_weights: Callable[[Gradients], Tensor] | None = None
    schedule: Callable[[int, int], float] = constant
    signed: bool = False
    boxed: bool = False
    restarts: int = 1
    patience: int | None = None
    tolerance: float | None = None

    def __post_init__(self) -> None:
        for name, example in _FUNCTIONS.items():
            check_function(getattr(self, name), name, example)
        for name, example in _FUNCTIONS_OR_NONE.items():
            if getattr(self, name) is not None:
                check_function(getattr(self, name), name, example)
        for each in self.unknowns:
            if not isinstance(each, Unknown):
                kind = type(each).__name__
                raise TypeError(f"unknowns are Unknown, such as shift(), got {kind}.")
        check_count(self.iterations, "iterations")
        check_count(self.restarts, "restarts")
        check_range(self.prior_weight, "prior_weight", 0)
        check_count(len(self.stages), "the number of stages")
        for factor in self.stages:
            check_range(factor, "each of the stages", 0)
        check_range(self.label_weight, "label_weight", 0)
        if self.patience is not None:
            check_count(self.patience, "patience")
        if self.tolerance is not None:
            check_range(self.tolerance, "tolerance", 0)

    def stage(self, iteration: int) -> int:
        """Which of the stages this iteration belongs to."""
        return iteration * len(self.stages) // self.iterations


def varied(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    """The recipe with these fields changed; refuses names that it does not have."""
    names = [field.name for field in fields(Recipe)]
    for name in changes:
        if name not in names:
            raise TypeError(
                f"a search has no option {name!r}.{closest(name, names)} Options of "
                "the optimizer: optimizer=partial(torch.optim.Adam, lr=0.1)."
            )
    return replace(recipe, **changes)


def check_recipe(recipe: Recipe) -> None:
    """Refuse the name of a recipe, or the function that starts it."""
    if not isinstance(recipe, Recipe):
        kind = type(recipe).__name__
        raise TypeError(f"recipe must be a Recipe such as IGA, got {kind}.")


def check_per_victim(values: Tensor, name: str, num_victims: int) -> None:
    """Refuse what no search can follow: a mean of victims, or a constant."""
    is_tensor = isinstance(values, Tensor)
    if not is_tensor or values.shape != (num_victims,):
        came = f"shape {tuple(values.shape)}" if is_tensor else type(values).__name__
        raise ValueError(
            f"{name} must return one number for each of {num_victims} victims, (V,); "
            f"got {came}."
        )
    if not values.requires_grad:
        raise ValueError(
            f"{name} does not depend on the images: compute it with torch, without "
            "detach() or item()."
        )

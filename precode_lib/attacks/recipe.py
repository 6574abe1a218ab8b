"""What a search minimises, over what, and how: everything but the victim."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor
from torch.optim import Adam

from precode_lib.attacks.objectives import (
    Distance,
    LabelTerm,
    Prior,
    cosine_distance,
    squared_label_error,
    total_variation,
)
from precode_lib.attacks.optimizers import OptimizerFactory
from precode_lib.attacks.starts import Start, normal
from precode_lib.federated import Observation
from precode_lib.gradients import Gradients
from precode_lib.validation import check_count, check_range

ADAM: OptimizerFactory = partial(Adam, lr=0.1)


def constant(iteration: int, iterations: int) -> float:
    """The learning rate stays what it is."""
    return 1.0


def step_decay(iteration: int, iterations: int) -> float:
    """A tenth of the learning rate after 3/8, 5/8 and 7/8 of the iterations each."""
    # The divisors and the rounding are those of the reference implementation.
    milestones = (iterations // divisor for divisor in (2.667, 1.6, 1.142))
    return 0.1 ** sum(iteration >= milestone for milestone in milestones)


@dataclass(frozen=True)
class Recipe:
    """What a search minimises, over what, and how: everything but the victim.

    Args:
        name: for people.
        distance: between the guess's gradients and the shared ones.
        optimizer: of torch.optim or `VictimLBFGS`, with its options bound.
        iterations: how many steps at most.
        start: where the images begin.
        labels: finds the labels in the observation; None searches for them too.
        prior: penalises implausible images, with `prior_weight`.
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
    prior: Prior = total_variation
    prior_weight: float = 0.0
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
        check_count(self.iterations, "iterations")
        check_count(self.restarts, "restarts")
        check_range(self.prior_weight, "prior_weight", 0)
        check_range(self.label_weight, "label_weight", 0)
        if self.patience is not None:
            check_count(self.patience, "patience")
        if self.tolerance is not None:
            check_range(self.tolerance, "tolerance", 0)

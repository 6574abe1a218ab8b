"""How fast to go: what attacks and trainings say of their optimizers alike."""

from collections.abc import Callable, Iterable

from torch import Tensor
from torch.optim import Optimizer

OptimizerFactory = Callable[[Iterable[Tensor]], Optimizer]
Schedule = Callable[[int, int], float]  # (step, steps), from 0, -> factor of the rate


def constant(step: int, steps: int) -> float:
    """One learning rate for all steps."""
    return 1.0


def step_decay(step: int, steps: int) -> float:
    """A tenth of the rate after 3/8, 5/8 and 7/8 of the steps: 74, 124, 175 of 200."""
    # Geiping et al. 2020 and, after them, Gao et al. 2021 divide by these floats, which
    # is why it is 124 and not 125.
    return 0.1 ** sum(step >= steps // part for part in (2.667, 1.6, 1.142))

"""What a search is after: the pictures, and beside them whatever nobody told.

Each unknown has a start, steps of its own, and a way into the client that the attacker
imagines. Row s of its values belongs to search s, as with the pictures.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from precode_lib.basics.validation import check_function, check_range
from precode_lib.federated import Observation
from precode_lib.gradients import first_parameter


@dataclass
class Trial:
    """What the imagined client is given: S searches side by side.

    Args:
        images: (S, B, ...).
        labels: (S, B, ...), as the loss takes them.
        draws: what its layers draw, in the order in which they ask: (S, B, ...) each.
    """

    images: Tensor
    labels: Tensor
    draws: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True)
class Unknown:
    """Something that a search looks for beside the pictures.

    Args:
        name: under which the result has it.
        start: (observation, S, generator) -> the first values, (S, ...).
        enter: (guess, values) changes the guess: the way into the client.
        signed: whether the optimizer sees only the signs of its slopes.
        rate: how far it moves where a pixel moves by 1.
        box: (low, high), within which every step ends; None for anywhere.
        prior: values (S, ...) -> (S,), added to the objective with `prior_weight`.
    """

    name: str
    start: Callable[[Observation, int, Generator], Tensor]
    enter: Callable[[Trial, Tensor], None]
    signed: bool = False
    rate: float = 1.0
    box: tuple[float | Tensor, float | Tensor] | None = None
    prior: Callable[[Tensor], Tensor] | None = None
    prior_weight: float = 0.0

    def __post_init__(self) -> None:
        check_function(self.start, "start", "drawn((2,))")
        check_function(self.enter, "enter", "lambda guess, values: ...")
        check_range(self.rate, "rate", 0, open_low=True)
        check_range(self.prior_weight, "prior_weight", 0)

    def first(self, observation: Observation, count: int, generator) -> Tensor:
        """Where its variable begins: the values in units of its rate."""
        values = self.start(observation, count, generator)
        if not isinstance(values, Tensor) or len(values) != count:
            came = getattr(values, "shape", type(values).__name__)
            raise ValueError(
                f"the start of {self.name!r} must give ({count}, ...), a row for each "
                f"search; got {came}."
            )
        return values / self.rate

    def bounds(self) -> tuple[float | Tensor, float | Tensor] | None:
        """The box of its variable."""
        return (
            None if self.box is None else tuple(side / self.rate for side in self.box)
        )


def like_model(observation: Observation) -> Tensor:
    """A parameter: searches run in its precision, and where it is."""
    return first_parameter(observation.model)


def drawn(
    shape: Sequence[int], law: Callable[..., Tensor] = torch.randn
) -> Callable[[Observation, int, Generator], Tensor]:
    """A start: values (S, *shape), by default standard normal."""

    def start(observation: Observation, count: int, generator: Generator) -> Tensor:
        values = law((count, *shape), generator=generator, device=generator.device)
        return values.to(like_model(observation))

    return start


def searched_labels() -> Unknown:
    """The labels, as the logits of a softmax: (S, B, classes)."""

    def start(observation: Observation, count: int, generator: Generator) -> Tensor:
        if observation.num_classes is None:
            raise ValueError(
                "a search for the labels needs a model that returns logits (N, "
                "classes); here the labels have another form: search with "
                "labels=known_labels."
            )
        shape = observation.num_examples, observation.num_classes
        return drawn(shape)(observation, count, generator)

    def enter(guess: Trial, logits: Tensor) -> None:
        guess.labels = logits.softmax(-1)

    return Unknown("labels", start, enter)


def shift(most: float = 4.0, *, rate: float = 1.0) -> Unknown:
    """By how many pixels each picture was moved before its gradient: (S, B, 2).

    Right and down; black comes in from the edges. The search then finds the picture as
    it was before, as far as it stayed in the frame.

    Args:
        most: pixels, either way.
    """
    check_range(most, "most", 0, open_low=True)

    def start(observation: Observation, count: int, generator: Generator) -> Tensor:
        return torch.zeros(count, observation.num_examples, 2).to(
            like_model(observation)
        )

    def enter(guess: Trial, pixels: Tensor) -> None:
        guess.images = moved(guess.images, pixels)

    return Unknown("shift", start, enter, rate=rate, box=(-most, most))


def moved(images: Tensor, pixels: Tensor) -> Tensor:
    """Pictures (V, B, C, H, W) moved right and down by pixels (V, B, 2), linearly.

    What comes in from outside is 0, the mean colour of normalised pictures.
    """
    if images.dim() != 5:
        raise ValueError(
            f"only pictures (V, B, C, H, W) can be moved, got {tuple(images.shape)}."
        )
    height, width = images.shape[-2:]
    # grid_sample's frame goes from -1 to 1.
    part = pixels.flatten(0, 1) * 2 / pixels.new_tensor([width, height])
    theta = torch.eye(2, 3).to(images).repeat(len(part), 1, 1)
    theta = torch.cat([theta[..., :2], -part[..., None]], 2)
    flat = images.flatten(0, 1)
    grid = F.affine_grid(theta, flat.shape, align_corners=False)
    return F.grid_sample(flat, grid, align_corners=False).view_as(images)

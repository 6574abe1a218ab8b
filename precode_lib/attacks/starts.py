"""Where a search begins: functions (shape, generator) -> images of that shape.

They draw on the generator's device in the normalised space, where 0 is the mean colour;
all but `patterned` serve examples that are no pictures as well.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

Start = Callable[[Sequence[int], Generator], Tensor]


def normal(shape: Sequence[int], generator: Generator) -> Tensor:
    """Standard normal pixels."""
    return torch.randn(tuple(shape), generator=generator, device=generator.device)


def uniform(shape: Sequence[int], generator: Generator) -> Tensor:
    """Pixels uniform in [-1, 1]."""
    draw = torch.rand(tuple(shape), generator=generator, device=generator.device)
    return 2 * draw - 1


def zeros(shape: Sequence[int], generator: Generator) -> Tensor:
    """The mean colour everywhere."""
    return torch.zeros(tuple(shape), device=generator.device)


def patterned(size: int) -> Start:
    """A start that repeats one random `size` x `size` patch over each picture.

    The patch is uniform in [0, 1] (Wei et al. 2020); a picture whose side is not a
    multiple of `size` gets a part of it at the edge.
    """
    if size < 1:
        raise ValueError(f"the patch needs at least one pixel, got size {size}.")

    def start(shape: Sequence[int], generator: Generator) -> Tensor:
        *lead, height, width = shape
        patch = torch.rand(
            (*lead, size, size), generator=generator, device=generator.device
        )
        repeats = (-(-height // size), -(-width // size))
        return patch.repeat(*[1] * len(lead), *repeats)[..., :height, :width]

    start.is_of_pictures = True  # a search refuses it for anything else
    return start

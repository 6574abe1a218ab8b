"""The noise an attacker's bottlenecks draw: per step, whatever runs in which order."""

from collections.abc import Callable

import torch
from torch import Tensor


class SharedNoise:
    """Noise for all searches, drawn once per step and handed out in pieces.

    A search gets the same noise however many others are still active and however the
    evaluation is cut into chunks; and the same again when a step evaluates twice.
    """

    def __init__(self, generator: torch.Generator):
        self.generator = generator
        self._drawn: list[Tensor] = []  # (searches, B, ...) for each bottleneck run
        self._next = 0

    def next_step(self) -> None:
        """Forget the noise of this step."""
        self._drawn.clear()

    def rewind(self) -> None:
        """Begin handing out from the first bottleneck again."""
        self._next = 0

    def of(self, searches: Tensor, count: int) -> Callable[[Tensor], Tensor]:
        """The noise source of these of `count` searches, for `noise_from`."""
        self.rewind()

        def draw(mean: Tensor) -> Tensor:
            pictures = len(mean) // len(searches)
            shape = (count, pictures, *mean.shape[1:])
            if self._next == len(self._drawn):
                self._drawn.append(self._draw(shape, mean))
            drawn = self._drawn[self._next]
            self._next += 1
            return drawn[searches].flatten(0, 1)

        return draw

    def _draw(self, shape: tuple[int, ...], mean: Tensor) -> Tensor:
        noise = torch.randn(
            shape, generator=self.generator, device=self.generator.device
        )
        return noise.to(mean)

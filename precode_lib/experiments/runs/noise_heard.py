"""An attacker who is told the noise that the clients' bottlenecks drew: an oracle.

No real attacker knows it. With it one sees what PRECODE owes to the noise, and what to
the layers that it adds.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from precode_lib.attacks import Search


def remembering(
    generator: torch.Generator, drawn: list[Tensor]
) -> Callable[[Tensor], Tensor]:
    """A source of noise for `noise_from` that notes what it gave.

    The numbers are those that the generator itself would have given.
    """

    def draw(mean: Tensor) -> Tensor:
        noise = torch.randn(
            mean.shape, generator=generator, device=generator.device, dtype=mean.dtype
        )
        drawn.append(noise)
        return noise

    return draw


class Told(Search):
    """A search whose bottlenecks draw what the clients' have drawn.

    Args:
        heard: the noise in the order in which it was drawn: of one group of victims
            after the other, each time one tensor (V * B, ...) for each bottleneck.
        options: of a `Search`.
    """

    def __init__(self, observation, recipe, *, generator, heard, **options):
        super().__init__(observation, recipe, generator=generator, **options)
        size = observation.num_victims * observation.num_examples
        rows = [
            whole.unflatten(0, (-1, observation.num_examples))
            for whole in _whole(heard, size)
        ]
        self._noise = _Known(generator, rows)


class _Known:
    """What `Search` asks for its noise, which here is always the same."""

    def __init__(self, generator: torch.Generator, rows: Sequence[Tensor]):
        self.generator, self._rows, self._next = generator, rows, 0

    def next_step(self) -> None:
        """Nothing is drawn anew."""

    def rewind(self) -> None:
        """Begin handing out from the first bottleneck again."""
        self._next = 0

    def of(self, searches: Tensor, count: int) -> Callable[[Tensor], Tensor]:
        """The noise of these of `count` searches: each of its own victim."""
        self.rewind()

        def draw(mean: Tensor) -> Tensor:
            rows = self._rows[self._next]
            self._next += 1
            return rows[searches % len(rows)].flatten(0, 1).to(mean)

        return draw


def _whole(heard: Sequence[Tensor], size: int) -> list[Tensor]:
    """The noise of all victims, one tensor for each bottleneck."""
    bottlenecks = sum(map(len, heard)) // size
    whole = [torch.cat(list(heard[i::bottlenecks])) for i in range(bottlenecks)]
    if sum(map(len, heard)) != bottlenecks * size or {*map(len, whole)} - {size}:
        raise ValueError(
            f"the noise of {size} pictures is wanted, bottleneck by bottleneck, got "
            f"tensors of {[*map(len, heard)]}: was the model run more than once?"
        )
    return whole

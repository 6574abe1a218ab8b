"""Local training: what a client does with its pictures before it shares anything."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer

from precode_lib.basics.validation import check_count, check_function, check_range

from .updates import Update, update_of


@dataclass(frozen=True)
class LocalTraining:
    """Steps on the client's own pictures, before it shares the sum of them.

    Args:
        steps: how many; the pictures are used in turn, mini-batch after mini-batch,
            from the start again when they are used up. The last mini-batch of a turn
            may be smaller.
        lr: the client's learning rate, known to the server.
        batch_size: pictures of one step; None takes all of them.
        optimizer: of torch.optim, called with the parameters and `lr=`: SGD, Adam or
            AdamW, such as ``partial(SGD, momentum=0.9, weight_decay=1e-4)``. It begins
            anew in every round.
        order: of the pictures, by number, in one epoch after the other, for a client
            that shuffles them; None takes them as they come, in every epoch.

    >>> from functools import partial
    >>> from torch.optim import SGD
    >>> from precode_lib.federated import LocalTraining
    >>> local = LocalTraining.of_epochs(2, 10, lr=0.1, batch_size=4)
    >>> local.steps, local.batches(10)[2]
    (6, slice(8, 10, None))
    >>> heavy = LocalTraining(5, lr=0.1, optimizer=partial(SGD, momentum=0.9))
    """

    steps: int
    lr: float
    batch_size: int | None = None
    optimizer: Callable[..., Optimizer] = SGD
    order: Sequence[Sequence[int]] | None = None

    def __post_init__(self) -> None:
        check_count(self.steps, "steps")
        check_range(self.lr, "lr", 0, open_low=True)
        if self.batch_size is not None:
            check_count(self.batch_size, "batch_size")
        check_function(self.optimizer, "optimizer", "partial(SGD, momentum=0.9)")
        if self.order is not None and not all(self.order):
            raise ValueError("order names the pictures of each epoch, got none of one.")
        self.update()

    @classmethod
    def of_epochs(
        cls, epochs: int, num_pictures: int, lr: float, **options
    ) -> "LocalTraining":
        """As many steps as it takes to see so many pictures so often."""
        check_count(epochs, "epochs")
        one = cls(1, lr, **options)
        return cls(epochs * len(one._turn(num_pictures)), lr, **options)

    def batches(self, num_pictures: int) -> list[slice | list[int]]:
        """Which pictures each step sees."""
        turns = self._turn(num_pictures)
        if self.order is not None:
            turns = self._in_order(num_pictures)
        return [turns[step % len(turns)] for step in range(self.steps)]

    def started(self, parameters: Iterable[Tensor]) -> Optimizer:
        """Its optimizer, for a client that trains in torch's own way."""
        return self.optimizer(parameters, lr=self.lr)

    @property
    def gain(self) -> float | None:
        """By how many times a constant slope it moves a weight of 0, such as steps·lr.

        None where its steps are not in proportion to the slope, as Adam's are not.
        """
        one, two = (self._moved(torch.full((), slope)) for slope in (1.0, 2.0))
        return one if abs(two - 2 * one) <= 1e-6 * abs(two) else None

    def update(self) -> Update:
        """What its optimizer does with one parameter, as a function of its slopes."""
        return update_of(self.started([torch.zeros(1, requires_grad=True)]))

    def _moved(self, slope: Tensor) -> float:
        update, weight, state = self.update(), torch.zeros(()).double(), {}
        for step in range(1, self.steps + 1):
            weight, state = update(weight, slope.double(), state, step)
        return -weight.item()

    def _in_order(self, num_pictures: int) -> list[list[int]]:
        """The mini-batches of all epochs of `order`, each cut by itself."""
        found = []
        for epoch in self.order:
            epoch = [int(index) for index in epoch]
            if min(epoch) < 0 or max(epoch) >= num_pictures:
                raise ValueError(
                    f"order names pictures {min(epoch)} to {max(epoch)}, the client "
                    f"has {num_pictures}, counted from 0."
                )
            found += [epoch[piece] for piece in self._turn(len(epoch))]
        return found

    def _turn(self, num_pictures: int) -> list[slice]:
        check_count(num_pictures, "num_pictures")
        size = self.batch_size or num_pictures
        starts = range(0, num_pictures, size)
        return [slice(s, min(s + size, num_pictures)) for s in starts]

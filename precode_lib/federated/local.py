"""Local training: what a client does with its pictures before it shares anything."""

from dataclasses import dataclass

from precode_lib.basics.validation import check_count, check_range


@dataclass(frozen=True)
class LocalTraining:
    """Plain SGD on the client's own pictures, before it shares the sum of its steps.

    Args:
        steps: how many SGD steps; the pictures are used in turn, mini-batch after
            mini-batch, from the start again when they are used up.
        lr: the client's learning rate, known to the server.
        batch_size: pictures of one step; None takes all of them.
    """

    steps: int
    lr: float
    batch_size: int | None = None

    def __post_init__(self) -> None:
        check_count(self.steps, "steps")
        check_range(self.lr, "lr", 0, open_low=True)
        if self.batch_size is not None:
            check_count(self.batch_size, "batch_size")

    def batches(self, num_pictures: int) -> list[slice]:
        """Which pictures each step sees."""
        size = self.batch_size or num_pictures
        if size > num_pictures or num_pictures % size:
            raise ValueError(
                f"batch_size {size} does not divide the client's {num_pictures} "
                "pictures; choose one that does, so that every step weighs the same."
            )
        starts = range(0, num_pictures, size)
        return [
            slice(s, s + size)
            for s in (starts[i % len(starts)] for i in range(self.steps))
        ]

"""Draw inputs until they tell right from wrong, and no right answer can be unlucky."""

from collections.abc import Callable
from typing import TypeVar

Case = TypeVar("Case")
MOST_TRIES = 2000


def drawn(draw: Callable[[], Case], is_clear: Callable[[Case], bool]) -> Case:
    """The first draw that is clear.

    Where rounding decides (a tie, a probability of 1, two quotients that agree by
    chance), right answers differ: a marker asks about other inputs.
    """
    for _ in range(MOST_TRIES):
        case = draw()
        if is_clear(case):
            return case
    raise RuntimeError(f"none of {MOST_TRIES} draws is clear; ask for less.")

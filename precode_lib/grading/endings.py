"""How a cell ended, and why a hand-in was stopped: codes, which marks go by.

The words beside them are for people, and may change without changing a mark.
"""

from typing import Literal, NamedTuple, get_args

# Of a cell, as the driver in the box says: it ended by itself, an error of its own
# ended it, its time was over, it printed too much, or the kernel's process had ended.
Ending = Literal["well", "raised", "late", "flood", "died"]
ENDINGS: tuple[Ending, ...] = get_args(Ending)
# Of a hand-in: what it took too much of, who stopped it, or what went wrong.
Cause = Literal[
    "",
    "time",
    "clock",
    "memory",
    "processes",
    "output",
    "files",
    "sockets",
    "descriptors",
    "questions",
    "driver",
    "interrupted",
    "machine",
    "examiner",
    "failed",
]
CAUSES: tuple[Cause, ...] = get_args(Cause)
# No fault of the hand-in's, so it is not kept, and the next call tries again.
OF_THE_MACHINE = ("interrupted", "machine", "examiner", "failed")


class Stop(NamedTuple):
    """Why a hand-in was stopped before its end.

    Args:
        cause: empty if it was not.
        words: for people.
    """

    cause: Cause = ""
    words: str = ""

"""What a marker says of an answer: solved, or what to do."""

import os
import traceback
from dataclasses import dataclass
from typing import Literal

_LIBRARY = os.path.dirname(os.path.dirname(__file__))
# Whose lines are none of a learner's: the machinery's, and the chapters'.
_OURS = tuple(os.path.join(_LIBRARY, room, "") for room in ("marking", "checks"))
# What begins the remark on an answer that no marker can judge.
HANDED_IN = "handed in, for a person to read."

State = Literal["right", "unanswered", "wrong", "raised"]
# How a verdict came about, in words that stay as they are; messages may be reworded.
Code = Literal[
    "judged",  # a marker looked at the answer
    "handed_in",  # a text, for a person to read
    "raised",  # the learner's function stopped with an error
    "nothing_came",  # its process was silent, gone, or spoke otherwise
    "cut_short",  # the judgement ended before its verdict
    "unjudged",  # no marker could look at the answer
]


class RaisedElsewhere(Exception):  # noqa: N818  it is the learner's
    """What a learner's function did in another process instead of returning data."""

    def __init__(self, message: str, state: State = "raised", code: Code = "raised"):
        super().__init__(message)
        self.state, self.code = state, code


class NotSolved(Exception):  # noqa: N818  it is no error of the program
    """An answer that is missing or not right yet; the message says what to do."""

    def __init__(self, message: str, state: State = "wrong", code: Code = "judged"):
        super().__init__(message)
        self.state, self.code = state, code

    def _render_traceback_(self) -> list[str]:
        """What Jupyter shows instead of a traceback: the learner did not write ours."""
        return [f"NotSolved: {self}"]


class HandedIn(str):
    """What a marker returns of an answer that it cannot judge: a person will."""

    __slots__ = ()


@dataclass(frozen=True)
class Verdict:
    """What a marker said of the answers to one exercise.

    Args:
        name: chapter and exercise, such as "labels.row_sums".
        state: "right", "unanswered", "wrong", or "raised" when the learner's own code
            stopped with an error.
        message: for the learner; of a right answer, what is worth knowing besides.
        code: how the verdict came about.
    """

    name: str
    state: State
    message: str
    code: Code = "judged"

    @property
    def is_right(self) -> bool:
        """Whether the exercise is solved."""
        return self.state == "right"


def unanswered() -> NotSolved:
    """What to raise where an answer is still missing."""
    return NotSolved(
        "not answered yet. Replace TODO in the cell above, run it, then this one.",
        "unanswered",
    )


def describe_error(error: Exception) -> str:
    """One sentence on an error in a learner's function, with its line."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith(_OURS)]
    place = f" in line {theirs[0].lineno} ({theirs[0].line})" if theirs else ""
    return (
        f"your function stopped with {type(error).__name__}: {error}{place}. "
        "Call it yourself in a new cell to see where."
    )

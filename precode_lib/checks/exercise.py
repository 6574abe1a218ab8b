"""What makes a function a marker: it gets the answers at arm's length and may refuse.

Written with `@exercise`, a marker receives each answer as plain data, or as a function
that passes only plain data, and a generator for fresh inputs. It returns when all is
right and calls `expect...` on the way, which raises `NotSolved`.
"""

import os
import secrets
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Literal

import torch

from .plain import TODO, Todo, UnplainError, copy

__all__ = ["TODO", "Marker", "NotSolved", "Verdict", "exercise", "judge"]

# Names the socket of an examiner, while `precode grade` runs a notebook.
EXAMINER = "PRECODE_EXAMINER"
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
Marker = Callable[..., None]


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


def exercise(marker: Marker) -> Marker:
    """Turn `marker(*answers, generator)` into what a learner calls on the answers.

    The result prints that the answer is right, or raises `NotSolved`. Inputs are fresh
    each time, unless a `generator` is given. Its `judge` returns a `Verdict` instead.
    """
    name = f"{marker.__module__.rpartition('.')[2]}.{marker.__name__}"

    def judge_answers(
        *answers: Any, generator: torch.Generator | None = None
    ) -> Verdict:
        return judge(name, marker, answers, generator or _fresh_generator())

    @wraps(marker)
    def check(*answers: Any, generator: torch.Generator | None = None) -> None:
        if os.environ.get(EXAMINER):
            _say(_ask(name, answers))
        else:
            _say(judge_answers(*answers, generator=generator))

    check.judge = judge_answers
    check.exercise = name
    return check


def asking(name: str) -> Callable[..., None]:
    """A marker that knows nothing: it asks the examiner about the exercise."""

    def check(*answers: Any) -> None:
        if not os.environ.get(EXAMINER):
            raise RuntimeError(
                f"{name} is judged elsewhere, but {EXAMINER} is not set."
            )
        _say(_ask(name, answers))

    check.exercise = name
    check.__name__ = name.rpartition(".")[2]
    return check


def _ask(name: str, answers: tuple) -> Verdict:
    from .examined import ask

    return ask(name, answers, os.environ[EXAMINER])


def _say(verdict: Verdict) -> None:
    short = verdict.name.rpartition(".")[2]
    if not verdict.is_right:
        raise NotSolved(f"{short}: {verdict.message}", verdict.state, verdict.code)
    print(f"{short}: {verdict.message}")


def judge(
    name: str, marker: Marker, answers: tuple, generator: torch.Generator
) -> Verdict:
    """Let the marker look at the answers, each behind the border of plain data."""
    try:
        remark = marker(*map(_at_arms_length, answers), generator)
    except NotSolved as refusal:
        return Verdict(name, refusal.state, str(refusal), refusal.code)
    remark = remark or ""
    if isinstance(remark, HandedIn):
        return Verdict(name, "right", str(remark), "handed_in")
    return Verdict(name, "right", f"correct. {remark}".strip())


def _fresh_generator() -> torch.Generator:
    return torch.Generator().manual_seed(secrets.randbits(63))


def _at_arms_length(answer: Any) -> Any:
    if isinstance(answer, Todo):
        raise unanswered()
    if callable(answer):
        return lambda *inputs: _call(answer, inputs)
    return _plain(answer, "the answer")


def _call(function: Callable, inputs: tuple) -> Any:
    # Copies: a function that changes its inputs must not change the marker's.
    inputs = copy(inputs)
    try:
        output = function(*inputs)
    except RaisedElsewhere as error:
        raise NotSolved(str(error), error.state, error.code) from None
    except Exception as error:
        raise NotSolved(describe_error(error), "raised", "raised") from error
    return answered(_plain(output, "the function's result"))


def answered(output: Any) -> Any:
    """The output of a learner's function, unless it says that none was written."""
    if isinstance(output, Todo):
        raise unanswered()
    if output is None:
        raise NotSolved(
            "your function returned None. Where to look: does every way through it end "
            "with `return` and a value?"
        )
    return output


def unanswered() -> NotSolved:
    """What to raise where an answer is still missing."""
    return NotSolved(
        "not answered yet. Replace TODO in the cell above, run it, then this one.",
        "unanswered",
    )


def describe_error(error: Exception) -> str:
    """One sentence on an error in a learner's function, with its line."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = os.path.dirname(__file__)
    theirs = [frame for frame in frames if not frame.filename.startswith(ours)]
    place = f" in line {theirs[0].lineno} ({theirs[0].line})" if theirs else ""
    return (
        f"your function stopped with {type(error).__name__}: {error}{place}. "
        "Call it yourself in a new cell to see where."
    )


def _plain(value: Any, what: str) -> Any:
    try:
        return copy(value)
    except UnplainError as problem:
        raise NotSolved(f"{what}: {problem}.", "wrong") from None

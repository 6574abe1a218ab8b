"""What makes a function a marker: it gets the answers at arm's length and may refuse.

Written with `@exercise`, a marker receives each answer as plain data, or as a function
that passes only plain data, and a generator for fresh inputs. It returns when all is
right and calls `expect...` on the way, which raises `NotSolved`.
"""

import os
import secrets
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch

from .examined import ask
from .plain import Todo, UnplainError, copy
from .verdicts import (
    HandedIn,
    NotSolved,
    RaisedElsewhere,
    Verdict,
    describe_error,
    unanswered,
)

# Names the socket of an examiner, while `precode grade` runs a notebook.
EXAMINER = "PRECODE_EXAMINER"
Marker = Callable[..., None]


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
            _say(ask(name, answers, os.environ[EXAMINER]))
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
        _say(ask(name, answers, os.environ[EXAMINER]))

    check.exercise = name
    check.__name__ = name.rpartition(".")[2]
    return check


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


def _plain(value: Any, what: str) -> Any:
    try:
        return copy(value)
    except UnplainError as problem:
        raise NotSolved(f"{what}: {problem}.", "wrong") from None

"""The exercises' own markers: they say what was expected, what came, where to look.

One module per chapter, one function per exercise. A learner calls it on an answer:

    from precode_lib.checks import what_a_gradient_knows as check
    check.closed_form(closed_form)

Answers are plain data (numbers, text, tensors, lists of them) or functions from plain
data to plain data. Functions are tried on fresh random inputs each time, so nothing can
be learned by heart, and what they return is copied before anyone looks at it. That
border lets `precode grade` run a learner's code in one process and judge it in another.
"""

from precode_lib.marking import (
    TODO,
    HandedIn,
    NotSolved,
    Verdict,
    exercise,
    expect,
    expect_choice,
    expect_close,
    expect_number,
    open_question,
)

__all__ = [
    "TODO",
    "HandedIn",
    "NotSolved",
    "Verdict",
    "exercise",
    "expect",
    "expect_choice",
    "expect_close",
    "expect_number",
    "open_question",
]

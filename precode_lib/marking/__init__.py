"""How answers are marked: what a marker is, what it may expect, and who asks it.

A chapter in `checks` writes its markers with what this door gives. `markers` turns a
function into one, `verdicts` is what it says, `expectations` and `texts` what it may
expect; all that passes is `plain` data. In `precode grade` an `examiner` in a process
of its own judges, the notebook's side is `examined`, and `frames` go between them.
Doors of their own are `notebooks`, how exercises are written down, `stubs`, what a
hand-in sees of the markers, and `examiner`, a program.
"""

from .draws import drawn
from .expectations import (
    expect,
    expect_choice,
    expect_close,
    expect_number,
    expect_repeatable,
    expect_sequence,
    listed,
    numbers_of,
    whole,
)
from .markers import exercise
from .plain import TODO
from .texts import open_question
from .verdicts import HANDED_IN, HandedIn, NotSolved, Verdict

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

"""How a cell ended, from what the driver in the box says of it."""

import re
from collections.abc import Mapping
from typing import Any, Literal

Ending = Literal["well", "raised", "late", "flood", "died"]
# nbval's own sentences, whole, and those of `inside`: an error of the student's may
# hold any word, such as "NameError: name 'timeout' is not defined".
_LATE = re.compile(
    r"Timeout of (?P<seconds>[0-9.e+]+) seconds exceeded "
    r"(?:while executing cell|executing cell|waiting for output)\b.*"
)
_FLOOD = re.compile(r"it printed more than [0-9]+ MB")
_DIED = {"the kernel died", "Kernel dead on test start"}


def ending(cell: Mapping[str, Any]) -> Ending:
    """How a cell ended.

    Args:
        cell: its error, and the seconds that it took.
    """
    error = cell["error"]
    if not error:
        return "well"
    if error in _DIED:
        return "died"
    if _FLOOD.fullmatch(error):
        return "flood"
    late = _LATE.fullmatch(error)
    # Whoever writes the sentence into an error of their own has not taken the time.
    if late and cell["seconds"] >= 0.9 * _number(late["seconds"]):
        return "late"
    return "raised"


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("inf")

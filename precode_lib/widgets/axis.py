"""What a slider offers, and whether a page or a kernel will move it."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Axis:
    """One slider: the values it offers and what the reader sees of them.

    Args:
        name: the keyword under which `render` receives the value.
        values: what the slider steps through, from left to right.
        label: the slider's name on the page; `name` if empty.
        unit: written behind the value.
        text: turns a value into its text; a format string or a function.
        start: index of the value shown first.
        play: offer a button that runs through the values, for iterations.
        choice: the values have no order: offer a menu, not a slider.
    """

    name: str
    values: Sequence[Any]
    label: str = ""
    unit: str = ""
    text: str | Callable[[Any], str] = "{:g}"
    start: int = 0
    play: bool = False
    choice: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.start < len(self.values):
            raise ValueError(
                f"axis {self.name!r}: start must be an index into its "
                f"{len(self.values)} values, got {self.start}."
            )

    @property
    def title(self) -> str:
        """The slider's name as the reader sees it."""
        return self.label or self.name

    def texts(self) -> list[str]:
        """The values as the reader sees them, with their unit."""
        write = self.text.format if isinstance(self.text, str) else self.text
        return [f"{write(value)} {self.unit}".rstrip() for value in self.values]


def is_static(static: bool | None) -> bool:
    """Whether to draw for a page: as told, or else as PRECODE_STATIC says."""
    return os.environ.get("PRECODE_STATIC") == "1" if static is None else static

"""The library's own code, shown in a chapter."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, repr=False)
class Source:
    """A function's source code, highlighted wherever Markdown is."""

    code: str

    def __repr__(self) -> str:
        return self.code

    def _repr_markdown_(self) -> str:
        return f"```python\n{self.code}```"


def show_source(function: Callable) -> Source:
    """Show a function or class as it stands in the installed library."""
    return Source(inspect.getsource(function))

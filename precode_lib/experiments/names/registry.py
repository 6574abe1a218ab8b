"""A list of names that a cell may carry, open to names of one's own."""

from collections import UserDict
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Generic, TypeVar

T = TypeVar("T")


class Registry(UserDict, Generic[T]):
    """What each name in a cell stands for; write your own into it, as into a dict.

    A name is part of what results are found by, what it stands for is not. So a name of
    the library cannot be given another meaning; one's own can, by the next run of the
    notebook that made it.

    Args:
        what: one entry, in words.
        entry: the class of the entries.
        shipped: the library's own.
    """

    def __init__(self, what: str, entry: type[T], shipped: Mapping[str, T]):
        super().__init__()
        self.what, self.entry, self.shipped = what, entry, frozenset()
        self.update(shipped)
        self.shipped = frozenset(shipped)

    def __setitem__(self, name: str, value: T) -> None:
        if not isinstance(value, self.entry):
            raise TypeError(
                f"a {self.what} is a {self.entry.__name__}, got {type(value).__name__}."
            )
        if name in self.shipped:
            raise ValueError(
                f"{name!r} is a {self.what} of the library, by which results are "
                "found; give yours another name."
            )
        super().__setitem__(name, value)

    def named(self, name: str) -> T:
        """The entry of this name; a name that is not here is told with its like."""
        if name not in self:
            close = get_close_matches(name, list(self), n=1, cutoff=0.5)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(
                f"no {self.what} {name!r}; there are {', '.join(self)}.{hint}"
            )
        return self[name]

    def title(self, name: str) -> str:
        """What tables call it; the name itself where nobody has said."""
        return self[name].title if name in self else name

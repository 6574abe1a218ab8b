"""What `help(iga)` says of an attack's settings: what its recipe says, and no less."""

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from inspect import cleandoc, getclosurevars, isfunction
from typing import TypeVar

from precode_lib.attacks.recipe import Recipe

F = TypeVar("F", bound=Callable)

_SETTINGS = """
Every field of `Recipe` is an option. By default they are as there, except for:
"""


def telling(recipe: Recipe) -> Callable[[F], F]:
    """Let a function's docstring end with the settings of its recipe."""

    def told(function: F) -> F:
        if function.__doc__ is not None:  # python -OO takes it away
            lines = [cleandoc(function.__doc__), _SETTINGS, *_settings(recipe)]
            function.__doc__ = "\n".join(lines)
        return function

    return told


def _settings(recipe: Recipe) -> list[str]:
    """Where the recipe differs from `Recipe()`."""
    usual = Recipe()
    # Compared as written: two partials of the same are not equal.
    written = {
        f.name: [_written(getattr(each, f.name)) for each in (recipe, usual)]
        for f in fields(Recipe)
        if f.name != "name"
    }
    return [
        f"- ``{n}={own}``" for n, (own, default) in written.items() if own != default
    ]


def _written(value: object) -> str:
    """As one would write it in a call."""
    if isinstance(value, partial):
        options = [f"{name}={_written(v)}" for name, v in value.keywords.items()]
        return f"partial({', '.join([_written(value.func), *options])})"
    if isfunction(value) and value.__closure__:  # such as what patterned(16) returns
        bound = getclosurevars(value).nonlocals.values()
        return f"{value.__qualname__.split('.')[0]}({', '.join(map(repr, bound))})"
    return getattr(value, "__name__", repr(value))

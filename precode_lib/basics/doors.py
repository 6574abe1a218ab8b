"""Doors that load a file only when somebody asks for what is in it (PEP 562)."""

import importlib
import sys
from collections.abc import Callable, Mapping


def later(door: str, homes: Mapping[str, str]) -> Callable[[str], object]:
    """The `__getattr__` of a door: names to the files behind it that they come from."""

    def find(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {door!r} has no attribute {name!r}")
        found = getattr(importlib.import_module(f"{door}.{homes[name]}"), name)
        setattr(sys.modules[door], name, found)
        return found

    return find

"""Docstrings are plain text with backticks; keep reST from reading more.

Bars, stars and trailing underscores are signs of formulas there, not markup,
and the first line of a property is a sentence even if it has a colon.
"""

import dataclasses
import re

_CODE = re.compile(r"(``.+?``|:\w+:`[^`]+`|`[^`]+`)")
_SIGNS = re.compile(r"(?<!\\)([|*]|(?<=\w)_(?!\w))")
_ARGUMENT = re.compile(r"\s+\*{1,2}\w+:")  # *args: and **changes: of a list
_COLON = "\ue000"  # stands for a colon while napoleon looks for types


def escape(line: str) -> str:
    """The line with formulas' signs escaped, except in backticks."""
    if _ARGUMENT.match(line):
        return line
    parts = _CODE.split(line)  # text, code, text, ...
    parts[::2] = [_SIGNS.sub(r"\\\1", text) for text in parts[::2]]
    return "".join(parts)


def before_napoleon(app, what, name, obj, options, lines) -> None:
    """Escape, and hide a property's colons."""
    lines[:] = map(escape, lines)
    if what in ("attribute", "property", "data"):
        lines[:] = [line.replace(":", _COLON) for line in lines]


def after_napoleon(app, what, name, obj, options, lines) -> None:
    """Bring the colons back."""
    lines[:] = [line.replace(_COLON, ":") for line in lines]


def fields_only(app, what, name, obj, options, signature, returns):
    """A dataclass by its fields' names; the list below explains them."""
    if what != "class" or not dataclasses.is_dataclass(obj):
        return None
    names = [field.name for field in dataclasses.fields(obj) if field.init]
    return f"({', '.join(names)})", None


def no_aliases(app, what, name, obj, skip, options):
    """Leave out a named tuple's fields: Python says only their numbers."""
    text = getattr(obj, "__doc__", None) or ""
    return True if text.startswith("Alias for field number") else None


def setup(app):
    """Register the hooks; napoleon's own has priority 500."""
    app.connect("autodoc-process-docstring", before_napoleon, priority=400)
    app.connect("autodoc-process-docstring", after_napoleon, priority=600)
    app.connect("autodoc-process-signature", fields_only)
    app.connect("autodoc-skip-member", no_aliases)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""The book's pages of the library name all of it, seen without building the book."""

import re
from importlib import import_module
from pathlib import Path

import pytest

PAGES = Path(__file__).resolve().parents[1] / "book" / "api"
# Rooms that are explained whole; of the others, the pages pick what a reader needs.
ROOMS = [
    *(
        "attacks",
        "ats",
        "ats.evaluation",
        "audit",
        "bottleneck",
        "checks",
        "data",
        "defenses",
    ),
    *("experiments", "federated", "gradients", "metrics", "models", "rounds"),
    *("training", "widgets"),
]
DIRECTIVE = re.compile(r"^\.\. ([a-z]+):: *([\w.]+)", re.MULTILINE)


@pytest.fixture(scope="module")
def explained() -> set[str]:
    """The full names that have an entry on a page."""
    names = set()
    for page in PAGES.glob("*.md"):
        module = ""
        for directive, name in DIRECTIVE.findall(page.read_text(encoding="utf-8")):
            if directive in ("module", "currentmodule"):
                module = name
            else:
                names.add(f"{module}.{name}")
    return names


def public(module) -> list[str]:
    """What a module offers: its list, or else all that it defines itself."""
    return getattr(module, "__all__", None) or [
        name
        for name, value in vars(module).items()
        if getattr(value, "__module__", None) == module.__name__ and name[0] != "_"
    ]


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_has_an_entry(room, explained):
    module = import_module(f"precode_lib.{room}")
    full = [f"{module.__name__}.{name}" for name in public(module)]
    assert full
    assert [name for name in full if name not in explained] == [], (
        f"add them to a page in {PAGES}"
    )

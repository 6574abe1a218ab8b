"""The former address of `shelf`, which chapters go on to use; and titles by name."""

from collections.abc import Iterator, Mapping

from precode_lib.experiments.names import attacks, defenses, models
from precode_lib.experiments.names.registry import Registry
from precode_lib.experiments.shelf import (
    METRICS,
    Ends,
    Shelf,
    nearest,
    originals,
    pictures_of,
    side_by_side,
)

__all__ = [
    "ATTACKS",
    "DEFENSES",
    "METRICS",
    "MODELS",
    "Ends",
    "Shelf",
    "nearest",
    "originals",
    "pictures_of",
    "side_by_side",
]


class _Titles(Mapping[str, str]):
    """The titles of a registry's entries, of those included that are added later."""

    def __init__(self, registry: Registry):
        self._registry = registry

    def __getitem__(self, name: str) -> str:
        return self._registry[name].title

    def __iter__(self) -> Iterator[str]:
        return iter(self._registry)

    def __len__(self) -> int:
        return len(self._registry)


MODELS = _Titles(models.MODELS)
DEFENSES = _Titles(defenses.DEFENSES)
ATTACKS = _Titles(attacks.ATTACKS)

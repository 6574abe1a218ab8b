"""The pictures that cells work on: found, loaded once, chosen, and told apart."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from precode_lib.data import Examples, MissingDataError, Splits, victim_indices
from precode_lib.experiments.names.datasets import DATASETS, files_of


@dataclass(eq=False)
class Gallery:
    """Where pictures, or other examples, come from; each collection is loaded once.

    Args:
        data: a folder that holds the data sets' files, or one path per data set; what
            is in neither is looked for in the cache folder.
    """

    data: Path | Mapping[str, Path] | None = None
    loaded: dict = field(default_factory=dict, repr=False)

    def __getstate__(self) -> dict:
        """What travels to other processes: where pictures are, not the pictures."""
        return {**vars(self), "loaded": {}}

    def path_of(self, name: str) -> Path | None:
        """The file or folder of a data set, where the user has named one."""
        if isinstance(self.data, Mapping):
            return self.data.get(name)
        if self.data is None:
            return None
        folder = Path(self.data)
        found = (path for p in files_of(name) for path in sorted(folder.glob(p)))
        return next(found, None)

    def splits(self, dataset: str, train: int | None, test: int | None) -> Splits:
        """So many pictures to learn from and to test with; None for all."""
        whole = self._whole(dataset)
        _check_enough(whole.train, train or DATASETS.named(dataset).size)
        return self._once(
            ("splits", dataset, train, test),
            lambda: Splits(_some(whole.train, train), _some(whole.test, test)),
        )

    def some(
        self,
        dataset: str,
        train: int | None,
        test: int | None,
        *,
        part: str,
        number: int,
    ) -> Examples:
        """Some of the pictures that a training learns from, or is tested with.

        Args:
            train: how many it learns from, as for `splits`.
            test: likewise.
            part: "train" or "test".
        """
        whole = getattr(self.splits(dataset, train, test), part)
        return self._chosen((dataset, train, test, part), whole, number)

    def victims(self, dataset: str, number: int) -> Examples:
        """The pictures under attack: published ones, or some of the training part."""
        return self._chosen((dataset,), self._published(dataset), number)

    def _chosen(self, name: tuple, source: Examples, number: int) -> Examples:
        """So many of these, of every class alike; `about` says which."""
        _check_enough(source, number)
        rows = self._once(
            ("rows", *name, number), lambda: victim_indices(source, number)
        )
        chosen = self._once(("victims", *name, number), lambda: source[rows])
        self.loaded["indices", id(chosen)] = rows
        return chosen

    def about(self, pictures: Examples) -> dict[str, Any]:
        """What a result says of a collection from here; of victims also which ones."""
        known = {
            "name": pictures.name,
            "number": len(pictures),
            "shape": list(pictures.image_shape),
            "fidelity": pictures.fidelity,
        }
        indices = self.loaded.get(("indices", id(pictures)))
        return known if indices is None else {**known, "indices": indices}

    def digest(self, parts: Sequence[Examples]) -> str:
        """A checksum of collections that were taken from here."""
        # An id names these pictures as long as they are held here, which is for good.
        names = [("digest", id(p)) for p in parts]
        pairs = zip(names, parts, strict=True)
        return "-".join(self._once(name, partial(_digest, p)) for name, p in pairs)

    def _whole(self, name: str) -> Splits:
        known = DATASETS.named(name)
        return self._once(name, lambda: known.load(self.path_of(name)))

    def _published(self, dataset: str) -> Examples:
        """The published victims; without their file, pictures of the training part."""
        published = DATASETS.named(dataset).victims
        if published is None:
            return self._whole(dataset).train

        def load() -> Examples:
            try:
                return published.load(self.path_of(published.name))
            except MissingDataError:
                return self._whole(dataset).train

        return self._once(("published", published.name), load)

    def _once(self, name: object, build: Callable[[], Any]) -> Any:
        if name not in self.loaded:
            self.loaded[name] = build()
        return self.loaded[name]


def _check_enough(pictures: Examples, wanted: int) -> None:
    if len(pictures) < wanted:
        raise MissingDataError(
            f"{wanted:,} pictures are wanted, {pictures.name} has {len(pictures):,}; "
            "name a complete copy of the data set."
        )


def _some(pictures: Examples, number: int | None) -> Examples:
    if number is None or number >= len(pictures):
        return pictures
    return pictures[victim_indices(pictures, number, seed=0)]


def _digest(pictures: Examples) -> str:
    digest = hashlib.sha256(str(tuple(pictures.stored.shape)).encode())
    digest.update(pictures.stored.contiguous().numpy().tobytes())
    if not pictures.is_classified:
        # The same bytes may be other labels.
        form = pictures.labels.dtype, tuple(pictures.labels.shape)
        digest.update(str(form).encode())
    digest.update(pictures.labels.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]

"""Labelled examples of any shape, whose labels are classes or anything else."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from precode_lib.basics.validation import check_finite

Some = TypeVar("Some", bound="Examples")


@dataclass(frozen=True, eq=False, repr=False)
class Examples:
    """N labelled examples: rows of a table, sounds, tokens; of pictures, `Pictures`.

    Indexing with a number, a slice, a list or a tensor gives the same again. Cells of
    the experiments take them where they take pictures, and judge them by their relative
    error: what pixels mean (a box, PSNR, SSIM) they have not.

    Args:
        stored: (N, ...), floating point, as a model takes them; or tokens, int64.
        labels: (N,) classes, int64, or (N, ...) in any form that the loss takes: masks,
            several labels, numbers.
        classes: what a model's outputs stand for; None where they have no names.
        name: of the collection.
        fidelity: what happened to the values on the way.

    >>> import torch
    >>> from precode_lib.data import Examples
    >>> rows, ages = torch.randn(100, 6), torch.rand(100)
    >>> Examples(rows, ages, None, "patients")[:20]
    Examples(patients: 20 of 6, lossless)
    """

    stored: Tensor
    labels: Tensor
    classes: tuple[str, ...] | None
    name: str
    fidelity: str = "lossless"

    def __post_init__(self) -> None:
        if self.classes is not None:
            object.__setattr__(self, "classes", tuple(self.classes))
        self._check()

    @property
    def images(self) -> Tensor:
        """A copy (N, ...) as a model takes it: float32, or int64 of tokens."""
        whole = self.stored.dtype == torch.int64
        return self.stored.to(torch.int64 if whole else torch.float32, copy=True)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """The shape of every example."""
        return tuple(self.stored.shape[1:])

    @property
    def normalisation(self) -> None:
        """None: only pictures have a box, and a way back to pixels."""
        return

    @property
    def num_classes(self) -> int | None:
        """How many classes there are, also those without an example here."""
        return None if self.classes is None else len(self.classes)

    @property
    def is_classified(self) -> bool:
        """Whether every example has one class, which a model can guess."""
        is_one_each = self.labels.dtype == torch.int64 and self.labels.dim() == 1
        return is_one_each and self.classes is not None

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self: Some, index: int | slice | Sequence[int] | Tensor) -> Some:
        rows = torch.arange(len(self))[index].reshape(-1)
        if len(rows) == 0:
            raise ValueError(f"Nothing of {self!r} is left under this index.")
        # A slice is a view; anything else copies.
        chosen = index if isinstance(index, slice) else rows
        return replace(self, stored=self.stored[chosen], labels=self.labels[chosen])

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.image_shape)) or "a number"
        classes = "" if self.classes is None else f"{self.num_classes} classes, "
        kind = type(self).__name__
        return f"{kind}({self.name}: {len(self)} of {shape}, {classes}{self.fidelity})"

    def _check(self) -> None:
        _check_stored(self.stored)
        check_count_of_labels(self.labels, len(self.stored), "examples")
        if self.is_classified:
            check_classes(self.labels, len(self.classes))


def _check_stored(stored: Tensor) -> None:
    if stored.dim() < 1 or stored.numel() == 0:
        raise ValueError(
            f"examples must be (N, ...) with at least one of them, got shape "
            f"{tuple(stored.shape)}; for one example use example[None]."
        )
    if not stored.is_floating_point() and stored.dtype != torch.int64:
        raise TypeError(
            f"examples must be floating point, or tokens in int64, got {stored.dtype}: "
            "use examples.float(), or Pictures for 8-bit levels."
        )
    check_finite(stored, "examples")


def check_count_of_labels(labels: Tensor, count: int, what: str) -> None:
    """Refuse labels of which there is not one for each."""
    if labels.dim() < 1 or len(labels) != count:
        raise ValueError(
            f"{count} {what} need labels ({count}, ...), got {tuple(labels.shape)}."
        )


def check_classes(labels: Tensor, num_classes: int) -> None:
    """Refuse labels that no class has."""
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"labels must lie in 0..{num_classes - 1} for {num_classes} classes, got "
            f"{labels.min()} to {labels.max()}."
        )

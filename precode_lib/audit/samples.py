"""The examples that clients hold: pictures, rows, tokens, whatever a model takes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from precode_lib.basics.validation import check_finite
from precode_lib.data import Examples, Pictures

# One tensor, or several for a model with several inputs; each (N, ...).
Inputs = Tensor | tuple[Tensor, ...] | dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Sample:
    """N labelled examples as a model takes them.

    Args:
        inputs: (N, ...), or a tuple or dict of such for a model of several inputs.
        labels: (N, ...) in any form that the loss takes.
        pixels: (N, C, H, W) in [0, 1] where the examples are pictures.
        normalisation: from pixels to inputs.
        classes: the names of the labels, if they are classes with names.
        name: of the collection.
        notes: what a reader should know of it, a sentence each.
        is_labelled: whether the labels say anything; False where they were drawn.
    """

    inputs: Inputs
    labels: Tensor
    pixels: Tensor | None = None
    normalisation: Any = None
    classes: tuple[str, ...] | None = None
    name: str = "examples"
    notes: tuple[str, ...] = ()
    is_labelled: bool = True

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def kind(self) -> str:
        """What an example is: "picture", "tokens", "row", or "example"."""
        if self.pixels is not None:
            return "picture"
        if not isinstance(self.inputs, Tensor):
            return "example"
        if not self.inputs.is_floating_point():
            return "tokens"
        return "row" if self.inputs.dim() == 2 else "example"

    @property
    def has_classes(self) -> bool:
        """Whether every example has one class as its label."""
        return self.labels.dtype == torch.int64 and self.labels.dim() == 1

    def grouped(self, clients: int, batch: int) -> "tuple[Inputs, Tensor]":
        """The first examples as the batches of so many clients: (V, B, ...) each."""

        def cut(values: Tensor) -> Tensor:
            return values[: clients * batch].unflatten(0, (clients, batch))

        return mapped(self.inputs, cut), cut(self.labels)

    def after(self, count: int) -> "Sample | None":
        """What is left behind the first `count`: nobody's secret; None if nothing."""
        if count >= len(self):
            return None
        return self._cut(slice(count, None))

    def first(self, count: int) -> "Sample":
        """The first so many."""
        return self._cut(slice(count))

    def _cut(self, rows: slice) -> "Sample":
        return replace(
            self,
            inputs=mapped(self.inputs, lambda values: values[rows]),
            labels=self.labels[rows],
            pixels=None if self.pixels is None else self.pixels[rows],
        )


def mapped(inputs: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    """Each tensor of the inputs, changed."""
    if isinstance(inputs, Mapping):
        return {name: change(each) for name, each in inputs.items()}
    if isinstance(inputs, tuple):
        return tuple(change(each) for each in inputs)
    return change(inputs)


def leaves(inputs: Inputs) -> list[Tensor]:
    """The tensors of the inputs, in order."""
    if isinstance(inputs, Mapping):
        return list(inputs.values())
    return list(inputs) if isinstance(inputs, tuple) else [inputs]


def sample(examples: object, *, name: str | None = None) -> Sample:
    """What a user gives as examples, whichever form it has.

    Args:
        examples: `Pictures`, `Examples`, a `Sample`, or (inputs, labels).
    """
    if isinstance(examples, Sample):
        made = examples
    elif isinstance(examples, Pictures):
        made = Sample(
            examples.images,
            examples.labels,
            examples.pixels,
            examples.normalisation,
            examples.classes,
            examples.name,
            (f"Pictures: {examples.fidelity}.",),
        )
    elif isinstance(examples, Examples):
        made = Sample(
            examples.images,
            examples.labels,
            classes=examples.classes,
            name=examples.name,
        )
    elif isinstance(examples, tuple | list) and len(examples) == 2:
        inputs, labels = examples
        inputs = tuple(inputs) if isinstance(inputs, list) else inputs
        made = Sample(inputs, labels, name=name or "examples")
    else:
        raise TypeError(
            "examples are (inputs, labels), Pictures or Examples; got "
            f"{type(examples).__name__}."
        )
    _check(made)
    return made


def _check(made: Sample) -> None:
    named = [("labels", made.labels)]
    named += [("each of the inputs", each) for each in leaves(made.inputs)]
    for what, each in named:
        if not isinstance(each, Tensor):
            raise TypeError(
                f"{what} must be torch.Tensor (N, ...), got {type(each).__name__}."
            )
        if each.dim() < 1 or len(each) != len(made.labels) or len(each) == 0:
            raise ValueError(
                f"{what} must be (N, ...) with one for each of the "
                f"{len(made.labels) if made.labels.dim() else 0} labels, got "
                f"{tuple(each.shape)}."
            )
        if each.is_floating_point():
            check_finite(each, what)

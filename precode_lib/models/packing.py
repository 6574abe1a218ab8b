"""Models of several inputs, as models of one: a row that holds them end to end."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

import torch
from torch import Tensor, nn

from precode_lib.basics.validation import check_model

# Several inputs: in the order of the model's arguments, or by their names.
Inputs = tuple[Tensor, ...] | Mapping[str, Tensor]


@dataclass(frozen=True)
class Piece:
    """One of a model's inputs.

    Args:
        name: of the argument; None for one that goes by its place.
        shape: of one example.
        dtype: as the model takes it.
    """

    name: str | None
    shape: torch.Size
    dtype: torch.dtype

    @property
    def is_whole(self) -> bool:
        """Whether it is of whole numbers, such as tokens or a mask."""
        return not self.dtype.is_floating_point


@dataclass(frozen=True)
class Packing:
    """How the inputs of a model lie in one row (D,), and how they come out again.

    >>> import torch
    >>> from precode_lib.models import Packing
    >>> inputs = {"picture": torch.rand(2, 1, 3, 4, 4), "age": torch.rand(2, 1, 1)}
    >>> packing = Packing.of(inputs)
    >>> rows = packing.pack(inputs)
    >>> rows.shape, torch.equal(packing.unpack(rows)["age"], inputs["age"])
    (torch.Size([2, 1, 49]), True)
    """

    pieces: tuple[Piece, ...]

    @classmethod
    def of(cls, inputs: Inputs) -> "Packing":
        """Of inputs (V, B, ...) each, victims x examples."""
        if not isinstance(inputs, tuple | Mapping) or not inputs:
            raise TypeError(
                "several inputs are a tuple of tensors or a dict of them by name, got "
                f"{type(inputs).__name__}."
            )
        named = isinstance(inputs, Mapping)
        pairs = inputs.items() if named else enumerate(inputs)
        leads = set()
        for name, each in pairs:
            if not isinstance(each, Tensor) or each.dim() < 2:
                came = getattr(each, "shape", type(each).__name__)
                raise TypeError(
                    f"input {name!r} must be a Tensor (V, B, ...), got {came}."
                )
            leads.add(tuple(each.shape[:2]))
        if len(leads) > 1:
            raise ValueError(
                f"all inputs must be of the same victims and examples (V, B), got "
                f"{sorted(leads)}."
            )
        names = inputs if named else [None] * len(inputs)
        return cls(
            tuple(
                Piece(name, each.shape[2:], each.dtype)
                for name, each in zip(names, _listed(inputs), strict=True)
            )
        )

    @property
    def sizes(self) -> list[int]:
        """How many entries of the row each input has."""
        return [piece.shape.numel() for piece in self.pieces]

    def pack(self, inputs: Inputs) -> Tensor:
        """(..., D), of inputs (..., *shape) each.

        Floating point, unless all of them are whole numbers.
        """
        parts = self._flat(inputs)
        kinds = [p.dtype for p in self.pieces if not p.is_whole] or [torch.int64]
        common = kinds[0]
        for dtype in kinds[1:]:
            common = torch.promote_types(common, dtype)
        rows = torch.cat([part.to(common) for part in parts], -1)
        for before, after in zip(parts, self._flat(self.unpack(rows)), strict=True):
            if not (before.is_floating_point() or torch.equal(before, after)):
                raise ValueError(
                    f"the row is {common} and cannot hold whole numbers up to "
                    f"{int(before.abs().max())}: give the other inputs as float64."
                )
        return rows

    def unpack(self, rows: Tensor) -> Inputs:
        """The inputs (..., *shape) of rows (..., D), in the form that they came in."""
        parts = rows.split(self.sizes, -1)
        found = [
            _as(part.unflatten(-1, p.shape) if p.shape else part[..., 0], p.dtype)
            for part, p in zip(parts, self.pieces, strict=True)
        ]
        names = [piece.name for piece in self.pieces]
        return tuple(found) if None in names else dict(zip(names, found, strict=True))

    def __call__(
        self, model: nn.Module, args: tuple, options: dict[str, Any]
    ) -> tuple[tuple, dict[str, Any]]:
        """As the hook of a model that is given rows."""
        (rows,) = args
        if rows.shape[-1:] != (sum(self.sizes),):
            raise ValueError(
                f"this model takes its {len(self.pieces)} inputs packed into rows "
                f"(N, {sum(self.sizes)}), got {tuple(rows.shape)}: see pack(...)."
            )
        inputs = self.unpack(rows)
        return (inputs, options) if isinstance(inputs, tuple) else ((), inputs)

    def _flat(self, inputs: Inputs) -> list[Tensor]:
        """Each as (..., size)."""
        given = _listed(inputs)
        if isinstance(inputs, Mapping):
            given = [inputs[piece.name] for piece in self.pieces]
        pairs = zip(given, self.pieces, strict=True)
        return [g.flatten(g.dim() - len(p.shape)) if p.shape else g[..., None]
                for g, p in pairs]  # fmt: skip


def packed(model: nn.Module, packing: Packing) -> nn.Module:
    """A copy of the model that takes rows; its parameters keep their names.

    A hook unpacks the rows, so copies of it, and whatever lends it other weights, do
    the same.
    """
    check_model(model)
    model = copy.deepcopy(model)
    model.register_forward_pre_hook(packing, with_kwargs=True, prepend=True)
    return model


@dataclass(frozen=True)
class PackedNormalisation:
    """The boxes of several inputs, as the box of their row.

    Args:
        packing: how the inputs lie in a row.
        each: of every input the normalisation, or None where it has no box.
    """

    packing: Packing
    each: tuple[Any, ...]

    @classmethod
    def of(cls, packing: Packing, given: object) -> "PackedNormalisation":
        """From a tuple in the order of the inputs, or a dict of some of them."""
        names = [piece.name for piece in packing.pieces]
        if isinstance(given, Mapping) and set(given) <= set(names):
            return cls(packing, tuple(given.get(name) for name in names))
        if isinstance(given, tuple) and len(given) == len(names):
            return cls(packing, given)
        raise TypeError(
            f"several inputs need several normalisations, or None, one for each of "
            f"{len(names)}: a tuple, or a dict by name; got {type(given).__name__}."
        )

    @property
    def box(self) -> tuple[Tensor, Tensor]:
        """The lowest and highest values of the row: (D,) each."""
        low, high = zip(*map(self._sides, self.each, self.packing.pieces), strict=True)
        return torch.cat(low), torch.cat(high)

    def denormalise(self, rows: Tensor) -> Tensor:
        """Rows of pixels, where the inputs have any."""
        inputs = self.packing.unpack(rows)
        changed = [
            value if own is None else own.denormalise(value)
            for value, own in zip(_listed(inputs), self.each, strict=True)
        ]
        return torch.cat(
            [c.flatten(rows.dim() - 1) if c.dim() >= rows.dim() else c[..., None]
             for c in changed], -1
        )  # fmt: skip

    def _sides(self, own: Any, piece: Piece) -> tuple[Tensor, Tensor]:
        sides = (-inf, inf) if own is None else own.box
        return tuple(
            torch.as_tensor(side, dtype=torch.float32).expand(piece.shape).reshape(-1)
            for side in sides
        )


def _as(part: Tensor, dtype: torch.dtype) -> Tensor:
    """Whole numbers rounded; others in the dtype of the row, which a model may have."""
    if not dtype.is_floating_point:
        return part.round().to(dtype) if part.is_floating_point() else part.to(dtype)
    return part if part.is_floating_point() else part.to(dtype)


def _listed(inputs: Inputs) -> list[Tensor]:
    return [*inputs.values()] if isinstance(inputs, Mapping) else [*inputs]

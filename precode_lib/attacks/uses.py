"""What a run of a model shows of each parameter: products, lookups and additions."""

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from precode_lib.gradients import Outer, Term, dense

LINEAR, CONVOLUTION, LOOKUP = "linear", "convolution", "lookup"


@dataclass(frozen=True)
class Window:
    """The part of a parameter that took part in a product, as a matrix (M, K)."""

    shape: tuple[int, int]
    strides: tuple[int, int]
    offset: int = 0

    @property
    def turned(self) -> "Window":
        """The transposed matrix."""
        return Window(self.shape[::-1], self.strides[::-1], self.offset)


def whole(shape: torch.Size) -> Window:
    """A parameter as it is, its first axis the rows."""
    columns = shape[1:].numel()
    return Window((shape[0], columns), (columns, 1))


@dataclass(eq=False)
class Use:
    """One product of a parameter with what came in: output = input @ matrix^T + bias.

    Args:
        parameter: its name.
        kind: LINEAR, CONVOLUTION or LOOKUP; a lookup's rows are K wide.
        window: which part of the parameter, as (M, K): outputs by inputs.
        num_positions: how many inputs one example has (tokens, patches): N.
        x: what came in: (N, K); of a convolution its maps; of a lookup its indices;
            None if it was large.
        output: what came out, the bias included; None if it was large.
        unfold: of a convolution: what makes (N, K) of its maps.
        bias: the name of the parameter that was added to each output, if one was.
        is_whole: whether the matrix is the parameter itself, outputs first.
    """

    parameter: str
    kind: str
    window: Window
    num_positions: int
    x: Tensor | None
    output: Tensor | None
    unfold: dict[str, tuple] | None = None
    bias: str | None = None
    is_whole: bool = True

    @property
    def num_inputs(self) -> int:
        """How many numbers come in at each position: K."""
        return self.window.shape[1]

    @property
    def width(self) -> int:
        """How many come out."""
        return self.window.shape[1 if self.kind == LOOKUP else 0]

    def inputs(self) -> Tensor | None:
        """What came in as (N, K), one row for each position; None if it is unknown."""
        if self.x is None or self.kind == LOOKUP:
            return None
        return self.x if self.kind == LINEAR else self._unfolded()

    def _unfolded(self) -> Tensor | None:
        maps, geometry = self.x, self.unfold
        if self.num_positions == 1 and maps.numel() == self.num_inputs:
            return maps.reshape(1, -1)
        if maps.dim() == 3:  # of sound: pictures of height 1
            maps = maps.unsqueeze(2)
            geometry = {n: (int(n != "padding"), *p) for n, p in geometry.items()}
        return F.unfold(maps, **geometry)[0].mT if maps.dim() == 4 else None

    def matrices(self, term: Term) -> Term:
        """A gradient of the parameter as matrices (V, M, K), like the product's."""
        if isinstance(term, Outer):
            shape = torch.Size(self.window.shape)
            if self.window == whole(term.shape):
                return Outer(term.left, term.right, shape)
            if self.window == whole(term.shape).turned:
                return Outer(term.right, term.left, shape)
        built = dense(term)
        flat = built.reshape(len(built), -1)
        across, along = self.window.strides
        rows, columns = (torch.arange(n, device=flat.device) for n in self.window.shape)
        at = self.window.offset + rows[:, None] * across + columns * along
        return flat[:, at]


@dataclass(frozen=True, eq=False)
class Addition:
    """A parameter, or a row looked up for each position, added to what came in."""

    parameter: str
    rows: Tensor | None  # (T,): which rows of the parameter; None for all of it
    other: Tensor | None  # what it was added to, such as (1, T, D); None if large


@dataclass(eq=False)
class Trace:
    """All that one run showed.

    Args:
        example: what went in, with its first axis.
        uses: products and lookups in the order in which they ran.
        additions: see `Addition`.
        others: how often each parameter was read in any other way.
        order: the parameters as they were first read.
    """

    example: Tensor
    uses: list[Use] = field(default_factory=list)
    additions: list[Addition] = field(default_factory=list)
    others: Counter = field(default_factory=Counter)
    order: dict[str, None] = field(default_factory=dict)

    @cached_property
    def ordered(self) -> tuple[Tensor, Tensor]:
        """The example's numbers, sorted, and where each of them stands."""
        return self.example.flatten().sort()

    def of(self, parameter: str) -> list[Use]:
        """The uses of one parameter."""
        return [use for use in self.uses if use.parameter == parameter]

    def is_alone(self, use: Use) -> bool:
        """Whether its parameters were read here and nowhere else."""
        read = self._reads()
        return read[use.parameter] == 1 and (use.bias is None or read[use.bias] == 1)

    def is_added_once(self, addition: Addition) -> bool:
        """Whether its parameter, or the rows looked up in it, were added only here."""
        looked_up = any(u.kind == LOOKUP for u in self.of(addition.parameter))
        return self._reads()[addition.parameter] == 1 + looked_up

    def _reads(self) -> Counter:
        read = Counter(self.others)
        read.update(u.parameter for u in self.uses)
        read.update(u.bias for u in self.uses)
        read.update(a.parameter for a in self.additions)
        return read

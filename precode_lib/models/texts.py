"""A small network for texts, and adapters that leave most of it as it is."""

import copy
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from precode_lib.basics.validation import (
    check_count,
    check_generator,
    check_model,
    closest,
)

from .initialisation import pytorch_default

__all__ = ["Adapter", "Writer", "adapted", "writer"]


class Writer(nn.Module):
    """One layer of causal attention that predicts the next word; see `writer`."""

    def __init__(self, num_words: int, width: int, length: int, *, tied: bool):
        super().__init__()
        self.words = nn.Embedding(num_words, width)
        self.places = nn.Embedding(length, width)
        self.query, self.key, self.value = (
            nn.Linear(width, width, bias=False) for _ in range(3)
        )
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.out = nn.Linear(width, num_words, bias=False)
        if tied:
            self.out.weight = self.words.weight

    def forward(self, words: Tensor) -> Tensor:
        """Map words (B, T), int64, to logits (B, T, num_words) of the words after."""
        length = words.shape[1]
        if length > self.places.num_embeddings:
            raise ValueError(
                f"this model takes texts of at most {self.places.num_embeddings} words,"
                f" got {length}."
            )
        places = torch.arange(length, device=words.device)
        x = self.words(words) + self.places(places)
        scores = self.query(x) @ self.key(x).mT / x.shape[-1] ** 0.5
        later = torch.ones_like(scores, dtype=torch.bool).triu(1)
        weights = scores.masked_fill(later, -torch.inf).softmax(-1)
        x = x + weights @ self.value(x)
        return self.out(x + self.down(self.up(x).relu()))


def writer(
    num_words: int,
    *,
    width: int = 64,
    length: int = 16,
    tied: bool = False,
    generator: torch.Generator | None = None,
) -> Writer:
    """A transformer of one layer and one head, without norms, that predicts words.

    Args:
        num_words: of the vocabulary.
        width: d, the numbers of each word's vector.
        length: of the longest text; each place has a vector that is learned.
        tied: whether the output's weight is the words' table.
        generator: of the weights; by default torch's global one.

    >>> import torch
    >>> from precode_lib.models import writer
    >>> writer(100)(torch.tensor([[3, 14, 15]])).shape
    torch.Size([1, 3, 100])
    """
    for value, name in ((num_words, "num_words"), (width, "width"), (length, "length")):
        check_count(value, name)
    if generator is not None:
        check_generator(generator)
    with nullcontext() if generator is None else torch.random.fork_rng(devices=[]):
        model = Writer(num_words, width, length, tied=tied)  # filled below
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            pytorch_default(layer, generator)
    for table, size in ((model.places, 0.1), (model.words, 1.0)):
        nn.init.normal_(table.weight, std=size, generator=generator)
    return model


class Adapter(nn.Module):
    """A frozen Linear layer and a change of low rank beside it: W x + B A x (LoRA).

    Args:
        layer: it is frozen in place.
        rank: of the change.
        generator: of A. B begins as zeros, so that the model begins as it was.
    """

    def __init__(
        self, layer: nn.Linear, rank: int, generator: torch.Generator | None = None
    ):
        super().__init__()
        check_count(rank, "rank")
        self.layer = layer.requires_grad_(False)
        like, bound = layer.weight, layer.in_features**-0.5
        self.A = nn.Parameter(like.new_empty(rank, layer.in_features))
        self.B = nn.Parameter(like.new_zeros(layer.out_features, rank))
        nn.init.uniform_(self.A, -bound, bound, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        return self.layer(x) + x @ self.A.mT @ self.B.mT


def adapted(
    model: nn.Module,
    *layers: str,
    rank: int = 4,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """A copy of the model of which only adapters of these layers are trained.

    Hu et al. 2022. A gradient of it has none of the frozen parameters.

    Args:
        layers: names of Linear layers, such as "query".
        rank: of each adapter.
        generator: of their weights.
    """
    check_model(model)
    names = [n for n, m in model.named_modules() if isinstance(m, nn.Linear)]
    if not layers:
        raise ValueError(f"give the layers to adapt, such as of {names}.")
    model = copy.deepcopy(model).requires_grad_(False)
    for name in layers:
        parent, _, last = name.rpartition(".")
        if name not in dict(model.named_modules()):
            hint = closest(name, names)
            raise ValueError(f"no layer {name!r}; Linear are {names}.{hint}")
        layer = model.get_submodule(name)
        if not isinstance(layer, nn.Linear):
            kind = type(layer).__name__
            raise TypeError(f"an adapter is of a Linear layer; {name!r} is a {kind}.")
        holder = model.get_submodule(parent)
        setattr(holder, last, Adapter(layer, rank, generator))
    return model

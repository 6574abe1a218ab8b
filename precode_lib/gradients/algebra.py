"""What a gradient is: V victims, one term per parameter, factored where possible.

A linear layer's gradient for one picture is an outer product, and for a batch a sum of
them. `Outer` keeps the two factors and never builds the matrix, so the inner products
that every matching objective needs cost a few vector products. Everything here is
differentiable, changes nothing in place and knows no model.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

import torch
from torch import Tensor

from precode_lib.basics.validation import closest

from .terms import (
    Outer,
    Term,
    concatenate_terms,
    dense,
    inner_of,
    map_term,
    num_victims_of,
    products_of,
    shape_of,
    squared_distance_of,
)


class Gradients(Mapping[str, Term]):
    """The gradients of V victims: parameter name -> term, in the model's own order."""

    def __init__(self, terms: Mapping[str, Term]):
        self._terms = dict(terms)
        self._squared_norms: Tensor | None = None
        if not self._terms:
            raise ValueError("a gradient needs at least one term, got none.")
        counts = {name: num_victims_of(term) for name, term in self._terms.items()}
        if len(set(counts.values())) != 1:
            raise ValueError(f"every term needs the same number of victims: {counts}.")

    def __getitem__(self, name: str) -> Term:
        try:
            return self._terms[name]
        except KeyError:
            close = closest(str(name), self._terms)
            raise KeyError(f"no parameter {name!r}.{close}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._terms)

    def __len__(self) -> int:
        return len(self._terms)

    def __repr__(self) -> str:
        factored = sum(isinstance(term, Outer) for term in self.values())
        return (
            f"Gradients({self.num_victims} victims, {len(self)} parameters, "
            f"{factored} factored)"
        )

    @property
    def num_victims(self) -> int:
        """V: every term has this many."""
        return num_victims_of(next(iter(self.values())))

    @property
    def requires_grad(self) -> bool:
        """Whether any tensor does."""
        return any(tensor.requires_grad for tensor in self.tensors())

    @property
    def shapes(self) -> dict[str, torch.Size]:
        """The shape of each parameter, without the victims."""
        return {name: shape_of(term) for name, term in self.items()}

    def tensors(self) -> Iterator[Tensor]:
        """The dense terms, and both factors of the others."""
        for term in self.values():
            yield from (term.left, term.right) if isinstance(term, Outer) else (term,)

    def map(self, change: Callable[[Tensor], Tensor]) -> "Gradients":
        """Apply `change` to every term, (V, *shape); factored ones are built for it."""
        return Gradients({name: change(dense(term)) for name, term in self.items()})

    def _map_factors(self, change: Callable[[Tensor], Tensor]) -> "Gradients":
        # Only for what changes no value: half of both factors would be a quarter.
        return Gradients({name: map_term(term, change) for name, term in self.items()})

    def detach(self) -> "Gradients":
        """The same values, cut off from whatever made them."""
        return self._map_factors(Tensor.detach)

    def nothing(self) -> "Gradients":
        """Zeros, in the same layout."""
        return self.detach()._map_factors(torch.zeros_like)

    def to(self, *args, **kwargs) -> "Gradients":
        """Move or convert every tensor, as `Tensor.to`."""
        return self._map_factors(lambda tensor: tensor.to(*args, **kwargs))

    def take(self, victims: Tensor | slice | int) -> "Gradients":
        """Keep these victims, by index, mask or slice."""
        rows = keeping_axis(victims)
        return self._map_factors(lambda tensor: tensor[rows])

    def squared_norms(self) -> Tensor:
        """(V, P); kept when constant, for a target is compared at every step."""
        if self._squared_norms is not None:
            return self._squared_norms
        squares = inners(self, self)
        if not self.requires_grad:  # within no_grad no squares do, later ones may
            self._squared_norms = squares
        return squares

    def dense(self) -> "Gradients":
        """Build every factored term."""
        return Gradients({name: dense(term) for name, term in self.items()})

    def select(self, *patterns: str) -> "Gradients":
        """Keep the parameters whose names match a pattern, such as `"fc.*"`."""
        kept = matching(self, patterns)
        return Gradients({name: term for name, term in self.items() if name in kept})

    def drop(self, *patterns: str) -> "Gradients":
        """Leave out the parameters whose names match a pattern."""
        dropped = matching(self, patterns)
        kept = {name: term for name, term in self.items() if name not in dropped}
        if not kept:
            raise ValueError(f"{patterns} drop every parameter; keep at least one.")
        return Gradients(kept)


def check_gradients(gradients: object) -> None:
    """Refuse a list, a dict or a tensor, and say how Gradients are made of one."""
    if not isinstance(gradients, Gradients):
        raise TypeError(
            f"gradients must be Gradients, got {type(gradients).__name__}; "
            "from_list(names, [p.grad for p in ...]) makes them."
        )


def keeping_axis(victims: Tensor | slice | int) -> Tensor | slice | list[int]:
    """An index that picks the same and leaves the axis of victims, also for one."""
    if isinstance(victims, int):
        return [victims]
    single = isinstance(victims, Tensor) and victims.dim() == 0
    return victims.reshape(1) if single else victims


def matching(names: Sequence[str] | Mapping, patterns: Sequence[str]) -> set[str]:
    """The names that match at least one shell-style pattern; each must match some."""
    found: set[str] = set()
    for pattern in patterns:
        hits = {name for name in names if fnmatchcase(name, pattern)}
        if not hits:
            close = get_close_matches(pattern, list(names), n=1, cutoff=0)
            raise ValueError(
                f"no parameter matches {pattern!r}; the closest name is {close[0]!r}."
            )
        found |= hits
    return found


def from_list(names: Sequence[str], tensors: Sequence[Tensor]) -> Gradients:
    """One victim's gradient from an ordinary list, such as `[p.grad for p in ...]`."""
    if len(names) != len(tensors):
        raise ValueError(f"got {len(names)} names for {len(tensors)} tensors.")
    missing = [name for name, t in zip(names, tensors, strict=True) if t is None]
    if missing:
        raise ValueError(f"these parameters have no gradient: {missing}.")
    return Gradients(
        {n: t.detach().unsqueeze(0) for n, t in zip(names, tensors, strict=True)}
    )


def to_list(gradients: Gradients, victim: int = 0) -> list[Tensor]:
    """One victim's gradient as an ordinary list of dense tensors."""
    one = gradients.take(slice(victim, victim + 1 or None))
    if one.num_victims == 0:
        raise IndexError(f"no victim {victim}: there are {gradients.num_victims}.")
    return [dense(term)[0] for term in one.values()]


def concatenate(parts: Sequence[Gradients]) -> Gradients:
    """Put the victims of several gradients one after another."""
    if not parts:
        raise ValueError("nothing to concatenate.")
    for part in parts[1:]:
        check_pair(parts[0], part, victims=False)
    return Gradients(
        {name: concatenate_terms([p[name] for p in parts]) for name in parts[0]}
    )


def inners(a: Gradients, b: Gradients) -> Tensor:
    """The inner product of each parameter's gradients: (V, P)."""
    check_pair(a, b)
    return torch.stack([inner_of(a[name], b[name]) for name in a], dim=1)


def inner(a: Gradients, b: Gradients) -> Tensor:
    """The inner product over all parameters: (V,)."""
    return inners(a, b).sum(1)


def squared_norms(a: Gradients) -> Tensor:
    """The squared Euclidean norm of each parameter's gradient: (V, P)."""
    return a.squared_norms()


def squared_norm(a: Gradients) -> Tensor:
    """The squared Euclidean norm over all parameters: (V,)."""
    return squared_norms(a).sum(1)


def cosine_similarity(
    a: Gradients, b: Gradients, *, weights: Tensor | None = None
) -> Tensor:
    """One cosine over all parameters together: (V,); zero where either norm is zero.

    Args:
        weights: (P,), a factor for each parameter's share of all three products; or
            (V, P), of each victim's own.

    >>> import torch
    >>> from precode_lib.gradients import Gradients, cosine_similarity
    >>> a = Gradients({"bias": torch.tensor([[1.0, 0.0], [2.0, 2.0]])})
    >>> b = Gradients({"bias": torch.tensor([[0.0, 3.0], [5.0, 5.0]])})
    >>> cosine_similarity(a, b)
    tensor([0., 1.])
    """
    return _cosine(*(_weigh(p, weights).sum(1) for p in _three_products(a, b)))


def layer_cosines(a: Gradients, b: Gradients) -> Tensor:
    """The cosine of each parameter's gradients: (V, P); zero where a norm is zero."""
    return _cosine(*_three_products(a, b))


def squared_distances(a: Gradients, b: Gradients) -> Tensor:
    """The squared Euclidean distance of each parameter's gradients: (V, P).

    Does not cancel when the two nearly agree: dense terms are subtracted entry by
    entry, factored ones are multiplied out in float64 where the device has it.
    """
    check_pair(a, b)
    return torch.stack([squared_distance_of(a[n], b[n]) for n in a], dim=1)


def squared_distance(
    a: Gradients, b: Gradients, *, weights: Tensor | None = None
) -> Tensor:
    """The squared Euclidean distance over all parameters: (V,)."""
    return _weigh(squared_distances(a, b), weights).sum(1)


def _three_products(a: Gradients, b: Gradients) -> tuple[Tensor, Tensor, Tensor]:
    """<a, b>, <a, a> and <b, b> for each parameter: (V, P) each."""
    check_pair(a, b)
    if a.requires_grad and not b.requires_grad:
        pairs = [products_of(a[name], b[name]) for name in a]
        product, own = (torch.stack(p, dim=1) for p in zip(*pairs, strict=True))
        return product, own, b.squared_norms()
    return inners(a, b), a.squared_norms(), b.squared_norms()


def _cosine(product: Tensor, squares_a: Tensor, squares_b: Tensor) -> Tensor:
    # `where` before the root keeps its infinite slope at zero out of autograd; two
    # roots, because the product of two small squares underflows. NaN is not silent.
    silent = (squares_a <= 0) | (squares_b <= 0)
    roots = (s.masked_fill(silent, 1).sqrt() for s in (squares_a, squares_b))
    for root in roots:
        product = product / root
    return product.masked_fill(silent, 0)


def _weigh(products: Tensor, weights: Tensor | None) -> Tensor:
    if weights is None:
        return products
    if weights.shape not in (products.shape, products.shape[1:]):
        raise ValueError(
            f"weights need one entry for each of {products.shape[1]} parameters, "
            f"got shape {tuple(weights.shape)}."
        )
    return products * weights.to(products)


def check_pair(a: Gradients, b: Gradients, *, victims: bool = True) -> None:
    """Refuse two that are not of the same parameters, in the same order."""
    if a.shapes != b.shapes:
        odd = set(a.shapes.items()) ^ set(b.shapes.items())
        names = sorted({name for name, _ in odd}) or "their order"
        raise ValueError(f"the two gradients belong to different models: {names}.")
    if list(a) != list(b):
        raise ValueError("the two gradients list their parameters in different orders.")
    if victims and a.num_victims != b.num_victims:
        raise ValueError(
            f"one gradient has {a.num_victims} victims, the other {b.num_victims}."
        )

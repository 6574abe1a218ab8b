"""What a gradient is: V victims, one term per parameter, factored where possible.

A linear layer's gradient for one picture is an outer product, and for a batch a sum of
them. `Outer` keeps the two factors and never builds the matrix, so the inner products
that every matching objective needs cost a few vector products. Everything here is
differentiable, changes nothing in place and knows no model.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase

import torch
from torch import Tensor

# Largest temporary that a single operation may build, in bytes; see `_victim_chunks`.
CHUNK_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Outer:
    """V matrices as sums of R outer products: G[v] = sum_r left[v, r] right[v, r]^T.

    Args:
        left: (V, R, rows).
        right: (V, R, columns).
        shape: of the parameter, (rows, ...) with `columns` entries in a row.
    """

    left: Tensor
    right: Tensor
    shape: torch.Size

    def __post_init__(self) -> None:
        columns = self.shape[1:].numel() if len(self.shape) > 1 else 1
        expected = (*self.left.shape[:2], columns)
        if self.left.dim() != 3 or tuple(self.right.shape) != expected:
            raise ValueError(
                f"left (V, R, rows) and right (V, R, {columns}) do not fit: got "
                f"{tuple(self.left.shape)} and {tuple(self.right.shape)}."
            )
        if self.left.shape[2] != self.shape[0]:
            raise ValueError(
                f"left has {self.left.shape[2]} rows, the parameter {self.shape[0]}."
            )

    def dense(self) -> Tensor:
        """Build the matrices: (V, *shape)."""
        matrices = self.left.transpose(1, 2) @ self.right
        return matrices.reshape(len(self.left), *self.shape)

    def map(self, change: Callable[[Tensor], Tensor]) -> "Outer":
        """Apply `change` to both factors."""
        return Outer(change(self.left), change(self.right), self.shape)


Term = Tensor | Outer  # of V victims; dense ones are (V, *parameter.shape)


class Gradients(Mapping[str, Term]):
    """The gradients of V victims: parameter name -> term, in the model's own order."""

    def __init__(self, terms: Mapping[str, Term]):
        self._terms = dict(terms)
        self._squared_norms: Tensor | None = None
        if not self._terms:
            raise ValueError("a gradient needs at least one term, got none.")
        counts = {name: _count(term) for name, term in self._terms.items()}
        if len(set(counts.values())) != 1:
            raise ValueError(f"every term needs the same number of victims: {counts}.")

    def __getitem__(self, name: str) -> Term:
        return self._terms[name]

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
        return _count(next(iter(self.values())))

    @property
    def shapes(self) -> dict[str, torch.Size]:
        """The shape of each parameter, without the victims."""
        return {name: _shape(term) for name, term in self.items()}

    def map(self, change: Callable[[Tensor], Tensor]) -> "Gradients":
        """Apply `change` to every tensor, factors included."""
        return Gradients({name: _map(term, change) for name, term in self.items()})

    def detach(self) -> "Gradients":
        """The same values, cut off from whatever made them."""
        return self.map(Tensor.detach)

    def to(self, *args, **kwargs) -> "Gradients":
        """Move or convert every tensor, as `Tensor.to`."""
        return self.map(lambda tensor: tensor.to(*args, **kwargs))

    def take(self, victims: Tensor | slice) -> "Gradients":
        """Keep these victims, by index, mask or slice."""
        return self.map(lambda tensor: tensor[victims])

    def squared_norms(self) -> Tensor:
        """(V, P); kept when constant, for a target is compared at every step."""
        if self._squared_norms is not None:
            return self._squared_norms
        squares = inners(self, self)
        if not squares.requires_grad:
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
        _check_pair(parts[0], part, victims=False)
    return Gradients(
        {name: _concatenate([p[name] for p in parts]) for name in parts[0]}
    )


def dense(term: Term) -> Tensor:
    """(V, *shape), whatever the layout."""
    return term.dense() if isinstance(term, Outer) else term


# --- products ---------------------------------------------------------------------


def inners(a: Gradients, b: Gradients) -> Tensor:
    """The inner product of each parameter's gradients: (V, P)."""
    _check_pair(a, b)
    return torch.stack([_inner(a[name], b[name]) for name in a], dim=1)


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
        weights: (P,), a factor for each parameter's share of all three products.
    """
    products = (inners(a, b), squared_norms(a), squared_norms(b))
    return _cosine(*(_weigh(p, weights).sum(1) for p in products))


def layer_cosines(a: Gradients, b: Gradients) -> Tensor:
    """The cosine of each parameter's gradients: (V, P); zero where a norm is zero."""
    return _cosine(inners(a, b), squared_norms(a), squared_norms(b))


def squared_distances(a: Gradients, b: Gradients) -> Tensor:
    """The squared Euclidean distance of each parameter's gradients: (V, P).

    Does not cancel when the two nearly agree: dense terms are subtracted entry by
    entry, factored ones are multiplied out in float64 where the device has it.
    """
    _check_pair(a, b)
    return torch.stack([_squared_distance(a[n], b[n]) for n in a], dim=1)


def squared_distance(
    a: Gradients, b: Gradients, *, weights: Tensor | None = None
) -> Tensor:
    """The squared Euclidean distance over all parameters: (V,)."""
    return _weigh(squared_distances(a, b), weights).sum(1)


# --- factoring --------------------------------------------------------------------


def factor(gradients: Gradients, ranks: Mapping[str, int]) -> Gradients:
    """Write matrices that have at most the expected rank as sums of outer products.

    What crosses the wire is dense. Undefended, a linear layer's gradient has at most
    the rank of its batch (a convolution's: pictures times positions), and this finds
    factors again, to rounding error. A matrix of higher rank (noise, pruning) stays
    as it came, and so does one that would not get smaller. For the first linear layer
    and one picture, `right` is the picture up to a factor: this step already is the
    closed-form leak.

    Args:
        ranks: the expected rank of some parameters' gradients, by name; see `ranks`.
    """
    for name, rank in ranks.items():
        if name not in gradients or rank < 1:
            raise ValueError(f"no parameter {name!r}, or its rank {rank} is below 1.")
    return Gradients(
        {
            name: _factor(term, ranks[name]) if name in ranks else term
            for name, term in gradients.items()
        }
    )


def ranks(gradients: Gradients) -> dict[str, int]:
    """How many outer products each factored parameter has."""
    return {n: t.left.shape[1] for n, t in gradients.items() if isinstance(t, Outer)}


def prefers_factors(rank: int, shape: Sequence[int]) -> bool:
    """Whether `rank` outer products are smaller than the matrix they add up to."""
    rows, columns = shape[0], torch.Size(shape[1:]).numel()
    return rank * (rows + columns) < rows * columns


def _factor(term: Term, rank: int) -> Term:
    if isinstance(term, Outer) or not prefers_factors(rank, term.shape[1:]):
        return term
    matrices = _matrix(term)
    left, right = _low_rank(matrices, rank)
    # 64 eps: rounding of the sums that made the matrix and of the two projections.
    tolerance = 64 * torch.finfo(term.dtype).eps
    residual = _residual_squares(left, right, matrices).sqrt()
    if (residual > tolerance * term.flatten(1).norm(dim=1)).any():
        return term
    return Outer(left, right, term.shape[1:])


def _low_rank(matrices: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Project on the range that one subspace iteration finds: (V, R, rows|columns)."""
    generator = torch.Generator().manual_seed(0)  # any fixed start will do
    start = torch.randn(matrices.shape[1], rank, generator=generator).to(matrices)
    row_space = torch.linalg.qr(matrices.transpose(1, 2) @ start).Q
    columns = torch.linalg.qr(matrices @ row_space).Q.transpose(1, 2)
    return columns.contiguous(), columns @ matrices


# --- one term ---------------------------------------------------------------------


def _count(term: Term) -> int:
    return len(term.left) if isinstance(term, Outer) else len(term)


def _shape(term: Term) -> torch.Size:
    return term.shape if isinstance(term, Outer) else term.shape[1:]


def _map(term: Term, change: Callable[[Tensor], Tensor]) -> Term:
    return term.map(change) if isinstance(term, Outer) else change(term)


def _matrix(term: Tensor) -> Tensor:
    return term.flatten(2) if term.dim() > 2 else term.unsqueeze(2)


def _concatenate(terms: Sequence[Term]) -> Term:
    ranks = {t.left.shape[1] if isinstance(t, Outer) else None for t in terms}
    if len(ranks) > 1 or None in ranks:
        return torch.cat([dense(term) for term in terms])
    left = torch.cat([term.left for term in terms])
    return Outer(left, torch.cat([term.right for term in terms]), terms[0].shape)


def _inner(a: Term, b: Term) -> Tensor:
    if isinstance(a, Outer) and isinstance(b, Outer):
        grams = (a.left @ b.left.transpose(1, 2)) * (a.right @ b.right.transpose(1, 2))
        return grams.sum((1, 2))
    if isinstance(b, Outer):
        a, b = b, a
    if isinstance(a, Outer):
        matrix = _matrix(b)
        if not matrix.requires_grad:
            return _Sandwich.apply(a.left, a.right, matrix)
        return ((a.left @ matrix) * a.right).sum((1, 2))
    if a.requires_grad or b.requires_grad or a[0].numel() < 2**16:
        return (a * b).flatten(1).sum(1)
    pairs = zip(a.flatten(1), b.flatten(1), strict=True)
    return torch.stack([x @ y for x, y in pairs])  # no temporary of their size


def _squared_distance(a: Term, b: Term) -> Tensor:
    if isinstance(a, Outer) and isinstance(b, Outer):
        return _outer_distance(a, b)
    if isinstance(b, Outer):
        a, b = b, a
    if isinstance(a, Outer) and not b.requires_grad:
        return _ResidualSquares.apply(a.left, a.right, _matrix(b))
    return (dense(a) - dense(b)).square().flatten(1).sum(1)


def _outer_distance(a: Outer, b: Outer) -> Tensor:
    a64, b64 = a.map(_widest), b.map(_widest)
    squares = _inner(a64, a64) - 2 * _inner(a64, b64) + _inner(b64, b64)
    return squares.clamp_min(0).to(a.left.dtype)


def _widest(tensor: Tensor) -> Tensor:
    # Apple's GPUs have no float64; there the distance floors at about 1e-7 relative.
    return tensor if tensor.device.type == "mps" else tensor.double()


class _Sandwich(torch.autograd.Function):
    """Sum of left_r^T matrix right_r per victim, reading the matrices just once.

    Its two derivatives are the half-products; both are made while a matrix is in the
    cache. A batched product with one row is far from memory speed on CPUs.
    """

    @staticmethod
    def forward(ctx, left: Tensor, right: Tensor, matrices: Tensor) -> Tensor:
        if matrices.is_cuda or matrices[0].numel() < 2**16:
            grad_right = left @ matrices
            grad_left = right @ matrices.transpose(1, 2)
        else:
            grad_right, grad_left = torch.empty_like(right), torch.empty_like(left)
            for v, matrix in enumerate(matrices):
                torch.mm(left[v], matrix, out=grad_right[v])
                torch.mm(right[v], matrix.t(), out=grad_left[v])
        ctx.save_for_backward(grad_left, grad_right)
        return (grad_right * right).sum((1, 2))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream: Tensor) -> tuple[Tensor, Tensor, None]:
        grad_left, grad_right = ctx.saved_tensors
        scale = upstream[:, None, None]
        return scale * grad_left, scale * grad_right, None


class _ResidualSquares(torch.autograd.Function):
    """Sum of (left^T right - target)^2 per victim, without keeping the residual."""

    @staticmethod
    def forward(ctx, left: Tensor, right: Tensor, target: Tensor) -> Tensor:
        wanted = any(ctx.needs_input_grad)
        squares, grads = left.new_empty(len(left)), []
        for part in _victim_chunks(target):
            residual = torch.baddbmm(
                target[part], left[part].transpose(1, 2), right[part], beta=-1
            )
            squares[part] = residual.square().sum((1, 2))
            if wanted:
                pair = right[part] @ residual.transpose(1, 2), left[part] @ residual
                grads.append(pair)
        if wanted:
            ctx.save_for_backward(*(2 * torch.cat(g) for g in zip(*grads, strict=True)))
        return squares

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream: Tensor) -> tuple[Tensor, Tensor, None]:
        left, right = ctx.saved_tensors
        scale = upstream[:, None, None]
        return scale * left, scale * right, None


def _residual_squares(left: Tensor, right: Tensor, target: Tensor) -> Tensor:
    with torch.no_grad():
        return _ResidualSquares.apply(left, right, target)


def _victim_chunks(tensor: Tensor) -> Iterator[slice]:
    """Slices of victims that together hold at most CHUNK_BYTES, one at least."""
    per_victim = max(1, tensor[0].numel() * tensor.element_size())
    step = max(1, CHUNK_BYTES // per_victim)
    return (slice(i, i + step) for i in range(0, len(tensor), step))


def _cosine(product: Tensor, squares_a: Tensor, squares_b: Tensor) -> Tensor:
    # `where` before the root keeps its infinite slope at zero out of autograd; two
    # roots, because the product of two small squares underflows.
    positive = (squares_a > 0) & (squares_b > 0)
    roots = (s.where(positive, 1).sqrt() for s in (squares_a, squares_b))
    for root in roots:
        product = product / root
    return product.where(positive, 0)


def _weigh(products: Tensor, weights: Tensor | None) -> Tensor:
    if weights is None:
        return products
    if weights.shape != products.shape[1:]:
        raise ValueError(
            f"weights need one entry for each of {products.shape[1]} parameters, "
            f"got shape {tuple(weights.shape)}."
        )
    return products * weights.to(products)


def _check_pair(a: Gradients, b: Gradients, *, victims: bool = True) -> None:
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

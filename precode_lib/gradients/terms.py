"""One parameter's gradients of V victims: a dense tensor, or outer products.

Both layouts have the same inner products, distances and dense form; `gradients` adds
them up over a model's parameters. Derivatives are written out where autograd would
build a matrix, read one twice, or cancel.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Largest temporary that a single operation may build, in bytes; see `victim_chunks`.
TEMPORARY_BYTES = 64 * 2**20

# From so many entries on, terms are worked through victim by victim on a CPU.
LARGE = 65_536


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
        columns = self.shape[1:].numel()
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


def dense(term: Term) -> Tensor:
    """(V, *shape), whatever the layout."""
    return term.dense() if isinstance(term, Outer) else term


def prefers_factors(rank: int, shape: Sequence[int]) -> bool:
    """Whether `rank` outer products are smaller than the matrix they add up to."""
    rows, columns = shape[0], torch.Size(shape[1:]).numel()
    return rank * (rows + columns) < rows * columns


def num_victims_of(term: Term) -> int:
    """V."""
    return len(term.left) if isinstance(term, Outer) else len(term)


def shape_of(term: Term) -> torch.Size:
    """The shape of the parameter."""
    return term.shape if isinstance(term, Outer) else term.shape[1:]


def map_term(term: Term, change: Callable[[Tensor], Tensor]) -> Term:
    """Apply `change` to the tensor or to both factors."""
    return term.map(change) if isinstance(term, Outer) else change(term)


def _matrix(term: Tensor) -> Tensor:
    return term.reshape(*term.shape[:2], -1)


def concatenate_terms(terms: Sequence[Term]) -> Term:
    """Put the victims one after another; factored only if all have one rank."""
    ranks = {t.left.shape[1] if isinstance(t, Outer) else None for t in terms}
    if len(ranks) > 1 or None in ranks:
        return torch.cat([dense(term) for term in terms])
    left = torch.cat([term.left for term in terms])
    return Outer(left, torch.cat([term.right for term in terms]), terms[0].shape)


def rows_of(term: Tensor) -> Tensor:
    """The entries of each victim: (V, *shape) -> (V, n)."""
    # reshape, not flatten: a scalar parameter's term is (V,), which has no axis 1.
    return term.reshape(len(term), -1)


def inner_of(a: Term, b: Term) -> Tensor:
    """The inner product of each victim: (V,)."""
    if isinstance(a, Outer) and isinstance(b, Outer):
        return (_gram(a.left, b.left) * _gram(a.right, b.right)).sum((1, 2))
    if isinstance(b, Outer):
        a, b = b, a
    if isinstance(a, Outer):
        return ((a.left @ _matrix(b)) * a.right).sum((1, 2))
    return _dots(rows_of(a), rows_of(b))


def products_of(guess: Term, target: Term) -> tuple[Tensor, Tensor]:
    """The guess's inner product with the target, and with itself: (V,) each.

    What every matching objective needs, in one pass. Derivatives are those of the
    guess: the target counts as constant.
    """
    if isinstance(guess, Outer):
        factors = guess.left, guess.right
        if isinstance(target, Outer):
            return _FactoredProducts.apply(*factors, target.left, target.right)
        return _MixedProducts.apply(*factors, _matrix(target))
    flat = rows_of(guess)
    return _DenseProducts.apply(flat, rows_of(dense(target)))


def squared_distance_of(a: Term, b: Term) -> Tensor:
    """The squared distance of each victim, without cancellation: (V,)."""
    if isinstance(a, Outer) and isinstance(b, Outer):
        return _outer_distance(a, b)
    if isinstance(b, Outer):
        a, b = b, a
    if isinstance(a, Outer) and not b.requires_grad:
        return _ResidualSquares.apply(a.left, a.right, _matrix(b))
    return rows_of(dense(a) - dense(b)).square().sum(1)


def _outer_distance(a: Outer, b: Outer) -> Tensor:
    a64, b64 = a.map(_widest), b.map(_widest)
    squares = inner_of(a64, a64) - 2 * inner_of(a64, b64) + inner_of(b64, b64)
    return squares.clamp_min(0).to(a.left.dtype)


def _widest(tensor: Tensor) -> Tensor:
    # Apple's GPUs have no float64; there the distance floors at about 1e-7 relative.
    return tensor if tensor.device.type == "mps" else tensor.double()


class _FactoredProducts(torch.autograd.Function):
    """Both products from small Gram matrices of the factors."""

    @staticmethod
    def forward(ctx, left, right, target_left, target_right):
        grams = _gram(left, target_left), _gram(right, target_right)
        own = _gram(left, left), _gram(right, right)
        ctx.save_for_backward(left, right, target_left, target_right, *grams, *own)
        return (grams[0] * grams[1]).sum((1, 2)), (own[0] * own[1]).sum((1, 2))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, up, up_own):
        left, right, to_left, to_right, gl, gr, nl, nr = ctx.saved_tensors
        up, twice = up[:, None, None], 2 * up_own[:, None, None]
        grad_left = _mix(up * gr, to_left) + _mix(twice * nr, left)
        grad_right = _mix(up * gl, to_right) + _mix(twice * nl, right)
        return grad_left, grad_right, None, None


class _MixedProducts(torch.autograd.Function):
    """Both products with a dense target, whose entries are read just once.

    The half-products with a matrix are the derivatives; both are made while it is in
    the cache. A batched product with one row is far from memory speed on CPUs.
    """

    @staticmethod
    def forward(ctx, left, right, matrices):
        if matrices.is_cuda or matrices[0].numel() < LARGE:
            to_right = left @ matrices
            to_left = right @ matrices.transpose(1, 2)
        else:
            to_right, to_left = torch.empty_like(right), torch.empty_like(left)
            for v, matrix in enumerate(matrices):
                torch.mm(left[v], matrix, out=to_right[v])
                torch.mm(right[v], matrix.t(), out=to_left[v])
        own = _gram(left, left), _gram(right, right)
        ctx.save_for_backward(left, right, to_left, to_right, *own)
        return (to_right * right).sum((1, 2)), (own[0] * own[1]).sum((1, 2))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, up, up_own):
        left, right, to_left, to_right, nl, nr = ctx.saved_tensors
        up, twice = up[:, None, None], 2 * up_own[:, None, None]
        grad_left = up * to_left + _mix(twice * nr, left)
        return grad_left, up * to_right + _mix(twice * nl, right), None


class _DenseProducts(torch.autograd.Function):
    """Both products of entries (V, N), without a temporary of their size."""

    @staticmethod
    def forward(ctx, guess, target):
        ctx.save_for_backward(guess, target)
        return _dots(guess, target), _dots(guess, guess)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, up, up_own):
        guess, target = ctx.saved_tensors
        grad = (up[:, None] * target).addcmul_(2 * up_own[:, None], guess)
        return grad, None


def _gram(a: Tensor, b: Tensor) -> Tensor:
    """Inner products of the rows of (V, R, N) with those of (V, S, N): (V, R, S)."""
    if a.shape[1] == b.shape[1] == 1:  # a batched product of vectors is slow
        return torch.linalg.vecdot(a, b).unsqueeze(2)
    return a @ b.transpose(1, 2)


def _mix(weights: Tensor, rows: Tensor) -> Tensor:
    """Sums of the rows: (V, R, S) and (V, S, N) give (V, R, N)."""
    return weights * rows if weights.shape[1:] == (1, 1) else weights @ rows


def _dots(a: Tensor, b: Tensor) -> Tensor:
    """(V, N), (V, N) -> (V,)."""
    if a.requires_grad or b.requires_grad or a.shape[1] < LARGE:
        return torch.linalg.vecdot(a, b)
    return torch.stack([x @ y for x, y in zip(a, b, strict=True)])


class _ResidualSquares(torch.autograd.Function):
    """Sum of (left^T right - target)^2 per victim, without keeping the residual."""

    @staticmethod
    def forward(ctx, left: Tensor, right: Tensor, target: Tensor) -> Tensor:
        wanted = any(ctx.needs_input_grad)
        squares, grads = left.new_empty(len(left)), []
        for part in victim_chunks(target):
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


def victim_chunks(tensor: Tensor, limit: int | None = None) -> Iterator[slice]:
    """Slices of victims that together hold at most TEMPORARY_BYTES, one at least."""
    limit = TEMPORARY_BYTES if limit is None else limit
    per_victim = max(1, tensor[0].numel() * tensor.element_size())
    step = max(1, limit // per_victim)
    return (slice(i, i + step) for i in range(0, len(tensor), step))


def factor_term(term: Term, rank: int) -> Term:
    """Outer products, if the matrices have at most this rank and get smaller."""
    if isinstance(term, Outer) or not prefers_factors(rank, term.shape[1:]):
        return term
    if term.dtype.itemsize < 4:  # rounded to half precision, a matrix has full rank
        return term
    matrices = _matrix(term)
    left, right = _low_rank(matrices, rank)
    # 64 eps: rounding of the sums that made the matrix and of the two projections.
    tolerance = 64 * torch.finfo(term.dtype).eps
    residual = _ResidualSquares.apply(left, right, matrices).sqrt()
    if (residual > tolerance * rows_of(term).norm(dim=1)).any():
        return term
    return Outer(left, right, term.shape[1:])


def _low_rank(matrices: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Project on the range that one subspace iteration finds: (V, R, rows|columns)."""
    generator = torch.Generator().manual_seed(0)  # any fixed start will do
    start = torch.randn(matrices.shape[1], rank, generator=generator).to(matrices)
    row_space = torch.linalg.qr(matrices.transpose(1, 2) @ start).Q
    columns = torch.linalg.qr(matrices @ row_space).Q.transpose(1, 2)
    return columns.contiguous(), columns @ matrices

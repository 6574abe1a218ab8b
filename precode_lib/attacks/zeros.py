"""Directions in which a matrix has many zeros.

Of the products of a tall matrix with a vector nearly all have as many zeros as somebody
who draws rows can force; those with far more tell what the matrix was made of.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

_WITNESSES = 64  # rows on which most tries are refused already
_FIRST_CHUNK, _LARGEST_CHUNK = 64, 8192  # tries at a time
_ROUNDS = 4  # until no more rows join
_MOST_KEPT = 256  # of a chunk's tries; a direction comes back again and again


@dataclass(frozen=True)
class Directions:
    """What has been found so far, most zeros first.

    Args:
        vectors: (N, R), of norm 1, no two alike.
        num_zeros: (N,) int64.
        tries: (N,) int64, the try that found each first, counted from 1.
        num_tries: how many there were.
    """

    vectors: Tensor
    num_zeros: Tensor
    tries: Tensor
    num_tries: int


def sparse_directions(
    rows: Tensor, room: Tensor, *, tries: int, generator: torch.Generator
) -> Iterator[Directions]:
    """Vectors q for which far more of rows @ q are zero than could be forced.

    A try draws R - 1 rows and takes the q at right angles to them. Yields what there
    is after every chunk of tries.

    Args:
        rows: (M, R), orthonormal columns; none of them all rounding.
        room: (M,), up to where rows @ q counts as zero.
    """
    num_rows, rank = rows.shape
    order = torch.randperm(num_rows, generator=generator)
    rows, room = rows[order], room[order]
    found = Directions(rows[:0], order[:0], order[:0], 0)
    if rank == 1:  # nothing is mixed
        one = rows.new_ones(1, 1)
        yield Directions(one, order.new_zeros(1), order.new_zeros(1), 0)
        return
    size = _FIRST_CHUNK
    while num_rows >= rank and found.num_tries < tries:
        size = min(size, tries - found.num_tries)
        drawn = _subsets(num_rows, rank - 1, size, generator)
        vectors = _at_right_angles(rows[drawn])
        hits = _promising(vectors, drawn, rows, room)
        found = _merged(found, vectors[hits], hits + found.num_tries, rows, room, size)
        yield found
        size = min(2 * size, _LARGEST_CHUNK)


def independent(directions: Directions, room: float) -> Tensor:
    """Which to take for a basis, those with most zeros first: (K,) indices, K <= R.

    Args:
        room: how far from the others' span a direction has to be.
    """
    vectors = directions.vectors
    chosen, basis = [], vectors[:0]
    for index, vector in enumerate(vectors):
        rest = vector - basis.mT @ (basis @ vector)
        rest = rest - basis.mT @ (basis @ rest)
        if rest.norm() > room:
            chosen.append(index)
            basis = torch.cat([basis, (rest / rest.norm())[None]])
        if len(chosen) == vectors.shape[1]:
            break
    return torch.tensor(chosen, dtype=torch.int64)


def _subsets(num: int, size: int, count: int, generator: torch.Generator) -> Tensor:
    """Rows to draw, no row twice in a try: (count, size) int64."""
    if 4 * size > num:
        return torch.rand(count, num, generator=generator).topk(size).indices
    drawn = torch.randint(num, (count, size), generator=generator)
    while True:
        ordered = drawn.sort(1).values
        twice = (ordered[:, 1:] == ordered[:, :-1]).any(1).nonzero().flatten()
        if not len(twice):
            return drawn
        again = torch.randint(num, (len(twice), size), generator=generator)
        drawn[twice] = again


def _at_right_angles(rows: Tensor) -> Tensor:
    """To all of rows (T, R - 1, R), of norm 1: (T, R); NaN where that is not one."""
    count, _, rank = rows.shape
    # Any further equation will do that fixes the length; these are at no right angle.
    last = torch.linspace(1, 2, rank).sqrt().to(rows).expand(count, 1, -1)
    right = rows.new_zeros(count, rank, 1)
    right[:, -1] = 1
    solved, _ = torch.linalg.solve_ex(torch.cat([rows, last], 1), right)
    vectors = solved.squeeze(2)
    return vectors / vectors.norm(dim=1, keepdim=True)


def _promising(vectors: Tensor, drawn: Tensor, rows: Tensor, room: Tensor) -> Tensor:
    """The tries with more zeros among the first rows than they forced: indices."""
    num = min(_WITNESSES, len(rows))
    values = (vectors @ rows[:num].mT).abs()
    zeros = (values <= _loose(rows, room)[:num]).sum(1)
    forced = (drawn < num).sum(1)
    hits = (zeros - forced >= _enough(num)).nonzero().flatten()
    return hits[:_MOST_KEPT]


def _enough(num_rows: int) -> int:
    """How many zeros of so many rows no chance gives."""
    return max(2, num_rows // 10)


def _loose(rows: Tensor, room: Tensor) -> Tensor:
    """Room for a q of R - 1 rows, each of them rounded: (M,)."""
    return torch.minimum(30 * room, 0.05 * rows.norm(dim=1))


def _merged(
    found: Directions,
    vectors: Tensor,
    hits: Tensor,
    rows: Tensor,
    room: Tensor,
    size: int,
) -> Directions:
    """The same and a chunk's: sharpened, and each direction once."""
    num_tries, rank = found.num_tries + size, rows.shape[1]
    kept, zeros, tries = list(found.vectors), [*found.num_zeros], [*found.tries]
    loose = _loose(rows, room)
    closest = (loose / rows.norm(dim=1)).median().clamp(1e-9, 1e-2)
    for vector, hit in zip(vectors, hits, strict=True):
        if _is_known(vector, kept, 10 * closest):
            continue
        vector, count = _sharpened(vector, rows, room, loose)
        enough = count - (rank - 1) >= _enough(len(rows))
        if enough and not _is_known(vector, kept, closest):
            kept.append(vector)
            zeros.append(count)
            tries.append(hit + 1)
    if not kept:
        return Directions(found.vectors, found.num_zeros, found.tries, num_tries)
    zeros = torch.stack(zeros)
    order = zeros.argsort(descending=True, stable=True)[: 8 * rank]
    vectors, tries = torch.stack(kept), torch.stack(tries)
    return Directions(vectors[order], zeros[order], tries[order], num_tries)


def _is_known(vector: Tensor, kept: list[Tensor], closest: Tensor) -> bool:
    """Whether it is one of these, or its opposite, within an angle."""
    if not kept:
        return False
    known = torch.stack(kept)
    along = known @ vector
    return bool(((vector - along[:, None] * known).norm(dim=1) < closest).any())


def _sharpened(
    vector: Tensor, rows: Tensor, room: Tensor, loose: Tensor
) -> tuple[Tensor, Tensor]:
    """From all the rows that vanish, not only those drawn; and how many do."""
    limits = [loose] * _ROUNDS + [room] * 2
    for limit in limits:
        vanish = (rows @ vector).abs() <= limit
        if not vanish.any():
            break
        small = torch.linalg.qr(rows[vanish], mode="r").R
        vector = torch.linalg.svd(small)[2][-1]
    return vector, ((rows @ vector).abs() <= room).sum()

"""Markers for the exercises on words in gradients."""

from functools import cache

import torch
from torch import Tensor

from precode_lib.marking import (
    exercise,
    expect,
    expect_close,
    expect_number,
    listed,
    open_question,
)

NOTEBOOKS_USE = ["false_hits"]

# The batch of the exercise by hand.
TEXTS = [[0, 3, 3, 1], [1, 5]]
VOCABULARY = 6


@exercise
def by_hand(rows, directions, missing, generator):
    """Count in two texts of a vocabulary of six words."""
    own = {word for text in TEXTS for word in text}
    heard = {word for text in TEXTS for word in text[1:]}
    _expect_words(
        rows,
        own,
        "the rows that move",
        {
            "a word's row moves once, however often the word occurs.": None,
            "these rows are exactly zero: their words do not occur.": (
                set(range(VOCABULARY)) - own
            ),
        },
    )
    places = sum(map(len, TEXTS))
    expect_number(
        directions,
        places,
        what="the number of directions",
        secret=True,
        hint="what goes into the layer is a word's vector plus its place's.",
        mistakes={
            "the same word at another place is another vector.": len(own),
            "of a text of four and one of two words.": max(map(len, TEXTS)),
            "that is for queries: the values lack nobody.": places - len(TEXTS),
        },
    )
    _expect_words(
        missing,
        own - heard,
        "the missing words",
        {
            "1 stands at a later place as well.": {1},
            "who stands first in a text, and nowhere else?": None,
        },
    )


def _expect_words(came, right: set[int], what: str, hints) -> None:
    numbers = listed(came)
    if numbers is None and isinstance(came, int | float):
        numbers = [came]
    expect(
        numbers is not None,
        f"{what} should be a list of numbers; got {came!r:.40}.",
        hint="write it as [2, 4].",
    )
    came_set = {int(n) for n in numbers if _is_whole(n)}
    if came_set == right and len(came_set) == len([*numbers]):
        return
    hint = next(
        (h for h, wrong in hints.items() if wrong and came_set & wrong),
        next(h for h, wrong in hints.items() if wrong is None),
    )
    expect(False, f"{what} are not {came!r:.40}.", hint=hint)


def _is_whole(number) -> bool:
    try:
        return float(number) == int(number)
    except (TypeError, ValueError):
        return False


@exercise
def outside(learner, generator):
    """Try gradients of few directions, with rows of all lengths."""
    for units, width, rank, count in ((9, 7, 3, 5), (6, 20, 4, 8), (30, 12, 1, 6)):
        x = torch.randn(rank, width, generator=generator, dtype=torch.float64)
        delta = torch.randn(units, rank, generator=generator, dtype=torch.float64)
        G = delta @ x
        strangers = torch.randn(
            count - 2, width, generator=generator, dtype=torch.float64
        )
        mixed = torch.tensor([[1.5] + [-0.5] * (rank - 1)]).double() @ x
        X = torch.cat([x[:1], strangers, mixed])
        basis = torch.linalg.svd(x, full_matrices=False).Vh
        inside = X @ basis.mT @ basis
        right = (X - inside).norm(dim=1) / X.norm(dim=1)
        expect_close(
            learner(G.clone(), X.clone()),
            right,
            what="the distances",
            given={"G": G, "X": X},
            hint="subtract from each candidate its part within the rows' span.",
            atol=1e-6,
            mistakes={
                "a share: divide by the candidate's own length.": (
                    (X - inside).norm(dim=1)
                ),
                "that is the part inside; what is outside?": (
                    inside.norm(dim=1) / X.norm(dim=1)
                ),
                "the square of it.": right.square(),
                "the rows are not orthonormal: take a basis of their span.": (
                    (X - X @ G.mT @ G).norm(dim=1) / X.norm(dim=1)
                ),
                "a basis has as many directions as the gradient's rank, not as many "
                "as it has rows or numbers.": torch.zeros_like(right),
            },
        )


@exercise
def order(learner, generator):
    """Try texts with words that repeat, and tables in any order."""
    for length, width in ((4, 6), (7, 9), (5, 5)):
        P = torch.randn(length, width, generator=generator, dtype=torch.float64)
        at = torch.randint(3, (length,), generator=generator)
        at[: min(3, length)] = torch.randperm(3, generator=generator)
        R = torch.zeros(3, width, dtype=torch.float64).index_add(0, at, P)
        near = torch.cdist(P, R).argmin(1)
        mistakes = {
            "that is, for each word, one place; for each place its word is asked.": (
                torch.linalg.lstsq(P.mT, R.mT).solution.argmax(0)
            ),
            "a row may be the sum of several places: solve for all at once.": near,
        }
        expect_close(
            learner(P.clone(), R.clone()),
            at,
            what="the words at the places",
            given={"P": P, "R": R},
            hint="R = S P with a matrix S of zeros and ones: solve for S.",
            mistakes={
                text: value
                for text, value in mistakes.items()
                if value.shape != at.shape or not torch.equal(value, at)
            },
        )


@cache
def _strangers(width: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(width)
    basis = torch.randn(width, width, generator=generator, dtype=torch.float64)
    words = torch.randn(2000, width, generator=generator, dtype=torch.float64)
    return torch.linalg.qr(basis).Q, words / words.norm(dim=1, keepdim=True)


def false_hits(directions: int, width: int, tolerance: float = 0.1) -> int:
    """How many of 2,000 words that do not occur lie near a span, by chance."""
    basis, words = _strangers(width)
    left = words @ basis[:, directions:]
    return int((left.norm(dim=1) <= tolerance).sum())


@exercise
def room(first_32, first_128, generator):
    """Count, for both widths, from where on a stranger is taken for a word."""
    for came, width in ((first_32, 32), (first_128, 128)):
        right = next(r for r in range(width + 1) if false_hits(r, width))
        expect_number(
            came,
            right,
            what=f"the number of directions of {width}",
            secret=True,
            hint="try false_hits(directions, width) for all directions up to width.",
            mistakes={
                "there the last number without a false word is; one more.": right - 1,
                "that many directions are left; how many are taken?": width - right,
                "that is where all 2,000 are inside.": width,
            },
        )


@exercise
def keyboard(text, generator):
    """Leave the judgement to a person."""
    return open_question(
        text,
        mentions="that a frozen table stops the reading of rows and nothing else; that "
        "the candidates are public and can be tried in the span of the adapter's "
        "gradients; that rank 8 and many words fill that span, so that this test "
        "ends, which is no proof; short messages and small last batches; and noise "
        "with a promise, or at least a measurement with a control.",
        mistakes=[
            '"rank 8 is safe": it stops one attack on texts of eight words or more.',
            '"A is silent in the first round": B is sent with it.',
        ],
    )

"""Markers for the exercises on batches that come apart."""

from functools import cache

import torch
from torch import Tensor

from precode_lib.attacks import isolated_inputs, spear
from precode_lib.data import Pictures
from precode_lib.federated import Observation, observe
from precode_lib.marking import (
    drawn,
    exercise,
    expect_close,
    expect_number,
    numbers_of,
    open_question,
)
from precode_lib.models import smlp

NOTEBOOKS_USE = ["WIDTHS", "apart", "single"]
WIDTHS = [12, 16, 24, 32, 64, 128, 256, 512, 1024, 2048]
MOST_TRIES = 20_000  # of a width, and a moment


@exercise
def by_hand(zeros, pictures, generator):
    """From the shares and pictures that the matrices of the text were made of."""
    images = torch.tensor([[1.0, 2.0], [3.0, 1.0]])
    shares = torch.tensor([[2.0, 1, 0, 0, -1], [0, 1, -1, 3, 0]])
    G = shares.T @ images
    directions = torch.stack([G[:3, 1], -G[:3, 0]])  # at right angles to each row
    counts = ((G @ directions).abs() < 1e-6).sum(0).float()
    expect_close(
        zeros,
        counts,
        what="zeros",
        secret=True,
        hint="the direction of unit 1 is (1, -1/2). Multiply it with all five rows.",
        mistakes={
            "the zero of the drawn unit itself counts, too.": counts - 1,
            "these are the entries that are not zero.": 5 - counts,
        },
    )
    right = images.flip(0)  # unit 1 is silent on the second
    unscaled = torch.linalg.inv(directions[:, [0, 2]] / directions[0, [0, 2]])
    expect_close(
        pictures,
        right,
        what="pictures",
        secret=True,
        hint="q_1 = (1, -1/2) and q_3 = (1, -3), and the lengths are in the entries of "
        "g_b where only one of G q_1 and G q_3 is not zero.",
        mistakes={
            "the order: first the picture of unit 1's direction.": images,
            "the lengths c are missing: multiply each q by its own.": unscaled,
            "pictures are the *rows* of the inverse.": right.T,
        },
    )


@exercise
def kept(learner, generator):
    """Count zeros, of units loud and quiet, for directions long and short."""
    for batch, num_units in ((4, 40), (5, 60), (6, 80)):
        L, Q = drawn(lambda b=batch, n=num_units: _tries(b, n, generator), _is_clear)
        right = _kept(L, Q).double()
        came = learner(L, Q)
        numbers = numbers_of(came)
        lengths = Q.norm(dim=0)
        zero = (L @ Q).abs() <= 1e-6 * L.norm(dim=1)[:, None] * lengths
        absolute = (L @ Q).abs() <= 1e-6
        counts = L.norm(dim=1) > 1e-9 * L.norm(dim=1).max()
        expect_close(
            came if numbers is None else numbers.double(),
            right,
            what="which are kept",
            given={"units": num_units, "pictures": batch, "tries": Q.shape[1]},
            hint="for each column of Q: of the units that count, which part is zero?",
            mistakes={
                "units that are silent on all pictures count here.": (
                    (zero.double().mean(0) >= 1 / 3).double()
                ),
                "silent units are no zeros here, but are among the units.": (
                    (zero & counts[:, None]).double().mean(0) >= 1 / 3
                ).double(),
                "all that have more zeros than were forced are kept here; mixtures "
                "have that, too.": (zero[counts].sum(0) > batch - 1).double(),
                "an entry is small or not beside its unit's row and the direction.": (
                    (absolute[counts].double().mean(0) >= 1 / 3).double()
                ),
                "these are the ones to throw away.": 1 - right,
            },
        )


def _kept(L: Tensor, Q: Tensor) -> Tensor:
    """(N,) bool, of the columns of Q."""
    lengths = L.norm(dim=1)
    loud = lengths > 1e-9 * lengths.max()
    unit_rows = L[loud] / lengths[loud, None]
    size = (unit_rows @ (Q / Q.norm(dim=0))).abs()
    return 3 * (size <= 1e-6).sum(0) >= len(unit_rows)


def _shares(batch: int, num_units: int, generator: torch.Generator) -> Tensor:
    """(units, B) in float64, each picture silent on half of the units."""
    values = torch.randn(num_units, batch, generator=generator).double()
    order = torch.rand(num_units, batch, generator=generator).argsort(0)
    return values * (order < num_units // 2)


def _mixing(batch: int, generator: torch.Generator) -> Tensor:
    """(B, B), a rotation with lengths, in float64."""
    square = torch.randn(batch, batch, generator=generator).double()
    sizes = 0.5 + torch.rand(batch, generator=generator).double()
    return torch.linalg.qr(square).Q * sizes


def _tries(
    batch: int, num_units: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """L of loud, quiet and silent units; pictures' directions, mixtures, misses."""
    mixing = _mixing(batch, generator)
    rows = _shares(batch, num_units, generator) @ torch.linalg.inv(mixing)
    rows = rows * 10.0 ** torch.randint(-5, 2, (num_units, 1), generator=generator)
    L = torch.cat([rows, torch.zeros(num_units // 2, batch, dtype=rows.dtype)])
    L = L[torch.randperm(len(L), generator=generator)]
    mixtures = 1e3 * (mixing[:, :1] + mixing[:, 1:2])
    misses = 1e-4 * torch.randn(batch, 2, generator=generator).double()
    own = mixing * 10.0 ** torch.randint(-3, 4, (1, batch), generator=generator)
    Q = torch.cat([own, mixtures, misses], 1)
    return L, Q[:, torch.randperm(Q.shape[1], generator=generator)]


def _is_clear(case: tuple[Tensor, Tensor]) -> bool:
    """Whether rounding decides nothing, and silent units would change the answer."""
    L, Q = case
    lengths = L.norm(dim=1)
    loud = lengths > 0
    size = (L @ Q).abs()[loud] / lengths[loud, None] / Q.norm(dim=0)
    between = (size > 1e-9) & (size < 1e-4)
    share = (size <= 1e-6).double().mean(0)
    near = ((share > 0.28) & (share < 0.38)).any()
    quiet = lengths[loud].min() > 1e-7 * lengths.max()
    return bool(not between.any() and not near and quiet)


@exercise
def unmix(learner, generator):
    """Pictures mixed by another matrix each time."""
    for batch, num_units, size in ((1, 5, 3), (3, 20, 4), (5, 30, 6)):
        images = torch.randn(batch, size, generator=generator).double()
        shares = _shares(batch, num_units, generator)
        shares = torch.where(shares.abs() < 1e-12, 0, shares)
        mixing = _mixing(batch, generator)
        L, R = shares @ torch.linalg.inv(mixing), mixing @ images
        signs = torch.randint(2, (batch,), generator=generator) * 2 - 1
        sizes = signs * (0.5 + 2 * torch.rand(batch, generator=generator).double())
        Q, g_b = mixing / sizes, shares.sum(1)
        expect_close(
            learner(L, R, Q, g_b),
            images,
            what="the pictures",
            given={"L": L, "R": R, "Q": Q, "g_b": g_b},
            hint="solve L Q c = g_b for c; the pictures are (Q diag(c))^-1 R.",
            mistakes={
                "the directions have wrong lengths: find c first.": (
                    torch.linalg.solve(Q, R)
                ),
                "here each direction is divided by its length; multiply.": (
                    torch.linalg.solve(Q / sizes, R)
                ),
                "c belongs to the columns of Q, not to its rows.": (
                    torch.linalg.solve(Q * sizes[:, None], R)
                ),
                "the matrix itself stands here where its inverse belongs.": (
                    (Q * sizes) @ R
                ),
            },
        )


def _batch(own: Pictures, width: int) -> Observation:
    model = smlp(width=width, generator=torch.Generator().manual_seed(0))
    return observe(
        model,
        own.images[None],
        own.labels[None],
        labels_known=False,
        normalisation=own.normalisation,
    )


def apart(own: Pictures, width: int) -> Tensor:
    """Certified pictures (N, C, H, W), from all rows of one gradient."""
    generator = torch.Generator().manual_seed(0)
    (found,) = spear(_batch(own, width), generator=generator, tries=MOST_TRIES)
    images = found.images[found.certified]
    return own.normalisation.denormalise(images).clamp(0, 1)


def single(own: Pictures, width: int) -> Tensor:
    """Pictures (N, C, H, W) that units of one gradient saw alone."""
    images = isolated_inputs(_batch(own, width))[0].images
    return own.normalisation.denormalise(images).clamp(0, 1)


@cache
def _counts() -> dict[int, tuple[int, int]]:
    """For each width, how many of the eight come back in both ways."""
    from precode_lib.data import victims

    eight = victims("photos", 8, seed=1)
    return {w: (len(apart(eight, w)), len(single(eight, w))) for w in WIDTHS}


@exercise
def widths(together, alone, generator):
    """Attack every width in both ways."""
    for place, (came, what) in enumerate(((together, "together"), (alone, "alone"))):
        found = {width: both[place] for width, both in _counts().items()}
        first = next(width for width in WIDTHS if found[width] == 8)
        some = next(width for width in WIDTHS if found[width] > 0)
        expect_number(
            came,
            first,
            what=what,
            secret=True,
            hint="move to the first width at which 8 of 8 are found.",
            mistakes={
                "one further: not all are found here.": WIDTHS[WIDTHS.index(first) - 1],
                "some are found here; asked is where all are.": some,
                "all are found here, but that begins earlier.": WIDTHS[-1],
            },
        )


@exercise
def hospitals(text, generator):
    """Leave the judgement to a person."""
    return open_question(
        text,
        mentions="that the sum of ten gradients is the gradient of a batch of ten; "
        "that behind a fully connected first layer with ReLU it comes apart exactly, "
        "in less than a second; that dropout makes this cheaper; that late noise "
        "changes shares and not zeros; and what would help: many more clients, another "
        "first layer, noise on the gradient with a stated epsilon.",
        mistakes=[
            "the sum is an average, and nobody can take an average apart.",
            "what one attack does not find is not in the gradient.",
            "the sum protects nothing: nobody knows any more whose picture it is.",
        ],
    )

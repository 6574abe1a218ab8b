"""Markers for the exercises on a server that changes the model."""

import torch
from torch import Tensor

from precode_lib.attacks import expected_hits
from precode_lib.marking import (
    exercise,
    expect,
    expect_close,
    expect_number,
    listed,
    open_question,
)

NOTEBOOKS_USE = []

# The crowd of the exercise by hand.
THRESHOLDS = torch.tensor([0.2, 0.4, 0.6, 0.8])
BRIGHTNESS = {"A": 0.1, "B": 0.3, "C": 0.5, "D": 0.55, "E": 0.9}
SLOPES = {"C": 0.1, "D": -0.3}


def _bins(values: Tensor, thresholds: Tensor) -> Tensor:
    """How many rows each value fires; 0 of one that is below all."""
    return (values[:, None] > thresholds).sum(1)


@exercise
def by_hand(back, rows_of_e, weight_of_c, generator):
    """Sort five pictures into four bins."""
    names = list(BRIGHTNESS)
    bins = _bins(torch.tensor([*BRIGHTNESS.values()]), THRESHOLDS)
    alone = (bins[:, None] == bins).sum(1) == 1
    right = {n for n, b, a in zip(names, bins, alone, strict=True) if b and a}
    _expect_letters(back, right)
    expect_number(
        rows_of_e,
        int(bins[names.index("E")]),
        what="the number of rows that E fires",
        secret=True,
        hint="a row fires on whatever is brighter than its threshold.",
        mistakes={
            "it fires every row below it, not only the last one.": 1,
            "its threshold is below E's brightness, too: count all four.": 3,
        },
    )
    total = sum(SLOPES.values())
    expect_number(
        weight_of_c,
        SLOPES["C"] / total,
        what="C's weight",
        secret=True,
        hint="both differences are sums over C and D: divide C's part.",
        mistakes={
            "that is D's weight.": SLOPES["D"] / total,
            "the difference of the biases is a sum with signs.": SLOPES["C"]
            / sum(map(abs, SLOPES.values())),
            "that is C's slope; what is it divided by?": SLOPES["C"],
            "the other way round: C's slope over the sum.": total / SLOPES["C"],
            "the plain mean would need equal slopes.": 0.5,
            "mind the sign of the sum.": -SLOPES["C"] / total,
        },
    )


def _expect_letters(came, right: set[str]) -> None:
    letters = listed(came) if not isinstance(came, str) else [*came]
    letters = {
        each.strip().upper()
        for each in letters or []
        if isinstance(each, str) and each.strip(" ,")
    }
    hints = {
        "A fires no row at all.": "A" in letters,
        "C and D lie in one bin.": bool(letters & {"C", "D"}),
        "somebody else is alone in a bin, too.": True,
    }
    expect(
        letters == right,
        f"those who come back are not {came!r:.40}.",
        hint=next(hint for hint, applies in hints.items() if applies),
    )


@exercise
def read(learner, generator):
    """Try crowds with empty bins, with a picture above all thresholds, and mixtures."""
    for count, rows, pixels in ((4, 6, 5), (9, 5, 12), (1, 3, 4)):
        x = torch.rand(count, pixels, generator=generator, dtype=torch.float64)
        slopes = 0.2 + torch.rand(count, generator=generator, dtype=torch.float64)
        bins = torch.randint(1, rows, (count,), generator=generator)
        bins[0] = rows  # above the last threshold
        fires = (bins[:, None] > torch.arange(rows)).double()  # (count, rows)
        G, g = fires.mT @ (slopes[:, None] * x), fires.mT @ slopes
        inside = torch.nn.functional.one_hot(bins - 1, rows).double()
        parts, sizes = inside.mT @ (slopes[:, None] * x), inside.mT @ slopes
        right = parts / sizes.where(sizes > 0, 1)[:, None]
        quotients = G / g.where(g > 0, 1)[:, None]
        short = right[:-1]
        came = learner(G.clone(), g.clone())
        undecided = torch.tensor(came.shape if torch.is_tensor(came) else ())
        expect(
            not torch.equal(undecided, torch.tensor(short.shape)),
            f"the result should have {rows} rows, one for each bin; the last is gone.",
            hint="above the last threshold lies a bin as well: nothing follows it.",
        )
        expect_close(
            came,
            right,
            what="what lies in the bins",
            given={"G": G, "g": g},
            hint="rows minus the next ones, over the same of the biases; 0 if empty.",
            mistakes={
                "these are quotients of whole rows: subtract the next row first.": (
                    quotients
                ),
                "the difference of rows is still multiplied by the slopes.": parts,
                "divide by the difference of the biases, not by the bias.": (
                    parts / g.where(g > 0, 1)[:, None]
                ),
                "an empty bin divides 0 by 0: let it be zeros.": (
                    parts / sizes[:, None]
                ),
                "the last bin is missing: nothing follows its row.": torch.cat(
                    [right[:-1], torch.zeros_like(right[-1:])]
                ),
            },
        )


@exercise
def nested(learner, generator):
    """Try units that sort, units that do not, and a little of both."""
    for count, units, sorts in ((12, 6, 3), (30, 6, 0), (20, 5, 5)):
        values = torch.rand(count, units, generator=generator)
        values[:, :sorts] = values[:, :1]
        thresholds = 0.2 + 0.6 * torch.rand(units, generator=generator)
        fires = values > thresholds
        sets = [set(column.nonzero().flatten().tolist()) for column in fires.mT]
        pairs = [(a, b) for i, a in enumerate(sets) for b in sets[i + 1 :]]
        share = sum(a <= b or b <= a for a, b in pairs) / len(pairs)
        ordered = sum(a <= b for a in sets for b in sets) / len(sets) ** 2
        both = sum(a <= b or b <= a for a in sets for b in sets) / len(sets) ** 2
        mistakes = {
            "count each pair once, and no unit with itself.": both,
            "one of the two may hold the other: ask both ways.": (
                sum(a <= b for a, b in pairs) / len(pairs)
            ),
            "ordered pairs, each unit with itself among them: count pairs.": ordered,
            "equal sets are asked for here; nested is less.": (
                sum(a == b for a, b in pairs) / len(pairs)
            ),
            "a share, not a number of pairs.": share * len(pairs),
            "the other pairs.": 1 - share,
        }
        expect_number(
            learner(fires.clone()),
            share,
            what="the share of nested pairs",
            given={"fires": fires.int()},
            hint="of two units, all pictures that fire the one also fire the other.",
            mistakes={k: v for k, v in mistakes.items() if abs(v - share) > 1e-3},
        )


def _fewest(num_pictures: int, share: float) -> int:
    rows = 1
    while expected_hits(num_pictures, rows) < share * num_pictures:
        rows += 1
    return rows


@exercise
def rows_needed(learner, generator):
    """Try crowds of several sizes, and several shares."""
    for count, share in ((2, 0.75), (64, 0.5), (100, 0.9), (17, 0.3)):
        right = _fewest(count, share)
        alone = next(k for k in range(1, 10**6) if (1 - 1 / k) ** count >= share)
        mistakes = {
            "n pictures have n - 1 others.": alone,
            "one row less is not enough; round up.": right - 1,
            "one row less is enough.": right + 1,
            "as many rows as pictures is another question.": count,
        }
        expect_number(
            learner(count, share),
            right,
            what="the number of rows",
            given={"n": count, "share": share},
            hint="(1 - 1/K)^(n-1) is the share that comes back; solve it for K.",
            mistakes={k: v for k, v in mistakes.items() if v != right},
        )


@exercise
def a_message(text, generator):
    """Leave the judgement to a person."""
    return open_question(
        text,
        mentions="that the sum of many clients is one large batch, which bins are made "
        "for; a look at rows and at nested sets on one's own pictures; that a clean "
        "look proves nothing; and something that needs no trust in the operator: an "
        "architecture of one's own, hashes that clients compare, noise on the client.",
        mistakes=[
            '"secure aggregation protects single clients": not from bins.',
            '"the check found nothing, so we send": a server may know the check.',
        ],
    )

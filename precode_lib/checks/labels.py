"""Markers for the exercises on labels."""

from functools import cache, partial
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

from precode_lib.attacks.labels import expected_count_labels, label_accuracy
from precode_lib.data import Splits, photos
from precode_lib.federated import observe
from precode_lib.marking import (
    drawn,
    exercise,
    expect_close,
    expect_number,
    open_question,
)
from precode_lib.models import Classifier, smlp
from precode_lib.training import Protocol, fit

NOTEBOOKS_USE = ["CLASSES", "SIZES", "trained", "two_guesses"]
SIZES, CLASSES = [2, 8, 16, 64], [1, 2, 3, 10]


@exercise
def by_hand(label, p, counts, certain, generator):
    """Undo the gradients that these probabilities and labels lead to."""
    right_p, right_label = torch.tensor([0.3, 0.1, 0.6]), 1
    g = right_p - F.one_hot(torch.tensor(right_label), 3)
    expect_number(
        label,
        right_label,
        what="label",
        secret=True,
        hint="which entry of the first gradient is negative?",
        mistakes={
            "the label's entry is the negative one; and classes count from 0.": 2.0,
        },
    )
    expect_close(
        p,
        right_p,
        what="p",
        secret=True,
        hint="the gradient is p - onehot: add 1 at the label.",
        mistakes={
            "this is the gradient itself; undo the subtraction at the label.": g,
            "the sign of the label's entry: it is p - 1, not -p.": g.abs(),
        },
    )
    mean_p, num = torch.tensor([0.5, 0.25, 0.25]), 4
    right_counts = torch.tensor([1.0, 3.0, 0.0])
    g = mean_p - right_counts / num
    expect_close(
        counts,
        right_counts,
        what="counts",
        secret=True,
        hint="B times (mean p minus g), class by class; the counts sum to B.",
        mistakes={
            "these are shares n / B; multiply by B.": right_counts / num,
            "the sign of g: it is *subtracted* from the mean p.": num * (mean_p + g),
            "only the mean p is counted here; g is missing.": num * mean_p,
            "only g is counted here; the mean p is missing.": -num * g,
        },
    )
    expect_close(
        certain,
        (-num * g).clamp(min=0),
        what="certain",
        secret=True,
        hint="B p is not negative, whatever p is: so n is at least -B g, and at "
        "least 0.",
        mistakes={
            "no count is negative: at least 0.": -num * g,
            "these counts need p, which is not known here.": right_counts,
            "more is certain: how often must class 1 occur to make g so small?": (
                torch.tensor([0.0, 1.0, 0.0])
            ),
        },
    )


@exercise
def any_features(learner, generator):
    """Try features whose sum is positive, negative, and zero."""
    one, two = torch.rand(2, generator=generator) + 0.5
    for features in (
        torch.randn(6, generator=generator).relu() + 0.01,
        -torch.rand(5, generator=generator) - 0.1,
        torch.stack([one, -one, two, -two]),
        torch.stack([torch.zeros(()), one, -one]),
    ):
        for num_classes in (10, 3):
            delta, right = _telling_delta(num_classes, generator)
            dW = torch.outer(delta, features)
            expect_number(
                learner(dW),
                right,
                what="the label",
                given={"h": features, "dW": dW},
                hint="the rows are multiples of the same features; how does the "
                "label's factor differ from all others, in sign and in size?",
                mistakes=_rules_gone_wrong(dW, right, features.sum().abs() > 1e-3),
            )


def _telling_delta(num_classes: int, generator: torch.Generator) -> tuple[Tensor, int]:
    """Factors (K,) and their label, such that most wrong rules differ, if they can."""
    for _ in range(20):
        right = 1 + int(torch.randint(num_classes - 2, (), generator=generator))
        logits = torch.randn(num_classes, generator=generator)
        delta = logits.softmax(0) - F.one_hot(torch.tensor(right), num_classes)
        if right + 1 not in (delta.argmax(), delta.abs().argmin()):
            break
    return delta, right


def _rules_gone_wrong(dW: Tensor, right: int, sum_tells: bool) -> dict[str, float]:
    sums = dW.sum(1)
    if not sum_tells:
        return {
            "here the sum of h is zero, and all row sums are: look at the whole "
            "rows.": float(sums.abs().argmax())
        }
    return {
        "this is iDLG's rule: it errs where h has no positive sum.": float(
            sums.argmin()
        ),
        "the largest sum is right only where the sum of h is negative.": float(
            sums.argmax()
        ),
        "this row is the shortest; the label's factor is the largest.": float(
            dW.norm(dim=1).argmin()
        ),
        "count classes from 0, as PyTorch does.": right + 1.0,
    }


@exercise
def batch_counts(learner, generator):
    """Compare with the best of all counts there are, where rounding is not it."""
    for kind in ("exact", "rounded", "certain", "sure"):
        draw = partial(_misjudged, kind, generator)
        g, p, num_examples = drawn(draw, partial(_is_telling, kind))
        expected = num_examples * (p - g)
        lowest = _certain(g, num_examples)
        expect_close(
            learner(g, p, num_examples),
            nearest_counts(expected, lowest, num_examples),
            what="the counts",
            given={"g": g, "p": p, "B": num_examples},
            hint="begin with what is certain, and give the rest one by one to the "
            "class whose count is furthest below B (p - g). Of a sure network -B g "
            "can be 2.0000001 for a count of 2: take 0.0001 off before rounding up.",
            mistakes={
                "this is B (p - g), not yet whole numbers.": expected,
                "no class occurs less often than -B g, whatever p is.": (
                    nearest_counts(expected, 0 * lowest, num_examples)
                ),
                "rounded one by one the counts need not sum to B.": expected.round(),
                "this is what is certain; the rest is still to be given away.": lowest,
            },
        )


def _certain(g: Tensor, num_examples: int, slack: float = 1e-4) -> Tensor:
    return (-num_examples * g - slack).ceil().clamp(min=0)


def _is_telling(kind: str, case: tuple[Tensor, Tensor, int]) -> bool:
    """Whether the case shows what it is for, and no rounding decides it."""
    g, p, num_examples = case
    expected = num_examples * (p - g)
    lowest = _certain(g, num_examples)
    right = nearest_counts(expected, lowest, num_examples)
    careless = nearest_counts(expected, 0 * lowest, num_examples)
    if right is None or careless is None:
        return False
    telling = {
        "exact": True,
        "rounded": expected.round().sum() != num_examples,
        "certain": not torch.equal(careless, right),
        "sure": (_certain(g, num_examples, slack=0) > right).any(),
    }
    slacks = (3e-6, 1e-2)  # any between them will do
    is_clear = all(torch.equal(_certain(g, num_examples, s), lowest) for s in slacks)
    return bool(telling[kind]) and is_clear


def _misjudged(kind: str, generator: torch.Generator) -> tuple[Tensor, Tensor, int]:
    """A batch's gradient, what somebody takes for its mean p, and its size."""
    num_classes, num_examples = (3, 4) if kind == "exact" else (4, 5)
    labels = torch.randint(num_classes, (num_examples,), generator=generator)
    right, wrong = torch.randn(2, num_classes, generator=generator).softmax(1)
    n = labels.bincount(minlength=num_classes)
    if kind == "sure":
        expects = torch.randint(num_classes, (num_examples,), generator=generator)
        right = wrong = expects.bincount(minlength=num_classes) / num_examples
    # A client adds up pictures one by one; sums may be a last place too large.
    excess = 2e-7 if kind == "sure" else 0
    g = (right - n / num_examples) * (1 + excess)
    return g, right if kind == "exact" else wrong, num_examples


def nearest_counts(expected: Tensor, lowest: Tensor, total: int) -> Tensor | None:
    """Of all counts (C,) that sum to `total`, the closest; None if two nearly are.

    By trying them all.
    """
    *ranges, last = (range(int(low), total + 1) for low in lowest)
    tries = [(*c, total - sum(c)) for c in product(*ranges) if total - sum(c) in last]
    counts = torch.tensor(tries, dtype=expected.dtype)
    apart = (counts - expected).square().sum(1)
    order = apart.argsort()
    if len(order) > 1 and apart[order[1]] - apart[order[0]] < 1e-3:
        return None
    return counts[order[0]]


@cache
def trained() -> tuple[Classifier, Splits]:
    """A network after five epochs on pictures of ten photographs, and the pictures."""
    pictures = photos(num_train=1000, num_test=500)
    model = smlp(width=64, generator=torch.Generator().manual_seed(0))
    adam = partial(torch.optim.Adam, lr=1e-3)
    for _ in fit(model, pictures, Protocol(5, 64, adam)):
        pass
    return model.eval(), pictures


@cache
def two_guesses(size: int, num_classes: int) -> tuple[float, float]:
    """The shares of labels that counting finds, and an even guess; 20 clients' mean.

    Each client has `size` pictures of so many classes, not the same for all clients.
    """
    model, pictures = trained()
    rows = torch.stack([_rows(client, size, num_classes) for client in range(20)])
    labels = pictures.test.labels[rows]
    seen = observe(
        model,
        pictures.test.images[rows.flatten()].unflatten(0, rows.shape),
        labels,
        labels_known=False,
        normalisation=pictures.test.normalisation,
    )
    even = (torch.arange(size) * 10 // size).expand(20, -1)
    found = (expected_count_labels(seen), even)
    return tuple(label_accuracy(each, labels).mean().item() for each in found)


def _rows(client: int, size: int, num_classes: int) -> Tensor:
    generator = torch.Generator().manual_seed(client)
    classes = torch.randperm(10, generator=generator)[:num_classes]
    pool = torch.isin(trained()[1].test.labels, classes).nonzero().flatten()
    return pool[torch.randint(len(pool), (size,), generator=generator)]


@exercise
def against_a_guess(ten, two, generator):
    """Run both guesses at every size."""
    for answer, num_classes, what in ((ten, 10, "ten"), (two, 2, "two")):
        shares = {size: two_guesses(size, num_classes) for size in SIZES}
        worse = [size for size in SIZES if shares[size][0] < shares[size][1]]
        expect_number(
            answer,
            worse[0] if worse else 0,
            what=what,
            secret=True,
            hint=f"set the client to {num_classes} classes, and compare the two "
            "shares at each batch size.",
            mistakes={
                "the guess wins here, but not here first.": SIZES[-1],
                "counting still wins here; one further.": 8.0,
                "there is a size at which the guess wins.": 0.0,
                "counting wins here; is there any size at which it does not?": 16.0,
            },
        )


@exercise
def a_rare_disease(text, generator):
    """Leave the judgement to a person."""
    return open_question(
        text,
        mentions="that the last layer comes behind PRECODE's bottleneck, so its bias "
        "gradient still is mean p minus n / B; that one patient's label has a sign "
        "that cannot fail, and a batch's counts can be estimated; that training "
        "makes counting worse, by the error of p, but a rare class that p hardly "
        "expects stands out; and what would help: noise with a stated size, or a sum "
        "over enough clients.",
        mistakes=[
            '"PRECODE hides the gradient": it changes features, not this equation.',
            '"labels are no personal data": here they are the diagnosis.',
        ],
    )

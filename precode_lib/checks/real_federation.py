"""Markers for the exercises on a federation that runs: what two records tell."""

from collections.abc import Mapping
from functools import cache

import torch
from torch import Generator, Tensor

from precode_lib.attacks import total_least_squares
from precode_lib.data import Normalisation, victims
from precode_lib.federated import LocalTraining
from precode_lib.gradients import from_list
from precode_lib.marking import (
    exercise,
    expect,
    expect_close,
    listed,
    open_question,
)
from precode_lib.metrics import ssim
from precode_lib.models import smlp
from precode_lib.rounds import participate

NOTEBOOKS_USE = ["ITEMS", "seen"]
Weights = dict[str, Tensor]
# One thing that is not as the attacker would have it: options of `seen`.
ITEMS = {
    "one picture, one step": {},
    "ten steps": {"steps": 10},
    "four pictures in the batch": {"size": 4},
    "32 pictures in the batch": {"size": 32},
    "mean and std 0.5": {"shown": Normalisation((0.5,) * 3, (0.5,) * 3)},
    "learning rate 1e-5": {"lr": 1e-5},
    "learning rate 1e-5, in bfloat16": {"lr": 1e-5, "sent_as": torch.bfloat16},
}


@exercise
def by_hand(gradient, picture, next_row, from_average, generator):
    """One row and its bias, two clients, one round: the numbers of the text."""
    rate, sent = 0.1, _row(0.50, 0.20, 0.10)
    first, second = _row(0.26, 0.26, -0.02), _row(0.40, 0.22, 0.04)
    moved, mean = sent - first, sent - (first + second) / 2
    expect_close(
        gradient,
        moved / rate,
        what="gradient",
        secret=True,
        hint="what was sent, minus what came back, over the rate.",
        mistakes={
            "divide by the learning rate.": moved,
            "weights before minus weights after: the step goes down the slope.": (
                -moved / rate
            ),
            "over the rate, not times the rate.": moved * rate,
        },
    )
    expect_close(
        picture,
        _quotient(moved),
        what="picture",
        secret=True,
        hint="the weights' two entries of the gradient over that of the bias.",
        mistakes={
            "these are weights that came back, and not how they moved.": (
                _quotient(first)
            ),
            "the other way round.": 1 / _quotient(moved),
            "the rate cancels.": _quotient(moved) / rate,
        },
    )
    expect_close(
        next_row,
        (first + second) / 2,
        what="next_row",
        secret=True,
        hint="the mean of what came back, entry by entry.",
        mistakes={
            "this is how far the mean moved.": mean,
            "the server averages the answers; its old weights have no share.": (
                (sent + first + second) / 3
            ),
        },
    )
    expect_close(
        from_average,
        _quotient(mean),
        what="from_average",
        secret=True,
        hint="divide how the average moved.",
        mistakes={
            "the mean of the two pictures; but the quotient of the means is asked.": (
                (_quotient(moved) + _quotient(sent - second)) / 2
            ),
            "this is what the first client's own answer tells.": _quotient(moved),
        },
        rtol=5e-3,
    )


def _row(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def _quotient(row: Tensor) -> Tensor:
    return row[:2] / row[2]


@exercise
def gradients(learner, generator):
    """Try records of several shapes, some with buffers, in any order."""
    for lr, with_norm in [(0.1, False), (0.02, True), (1.5, True)]:
        sent = _record(generator, with_norm)
        back = _record(generator, with_norm)
        names = [name for name in sent if name.startswith("fc")]
        moved = {name: sent[name] - back[name] for name in names}
        _expect_record(
            learner(dict(sent), dict(reversed(back.items())), names, lr),
            _times(moved, 1 / lr),
            what="the gradient of",
            hint="sent minus back, over the rate, name by name.",
            mistakes={
                "divide by the learning rate.": moved,
                "over the rate, not times the rate.": _times(moved, lr),
                "weights before minus weights after.": _times(moved, -1 / lr),
            },
        )


@exercise
def blurred(learner, generator):
    """Try updates that are too long and some that are not, of two tensors."""
    norm = 1.0
    for length in (0.3, 5.0, 0.9, 20.0):
        sent, change, noise = (_record(generator, False) for _ in range(3))
        change = _times(change, length / _length(change))
        short = _times(change, min(1.0, norm / length))
        each = {n: v * min(1.0, norm / v.norm()) for n, v in change.items()}
        mistakes = {
            "it is not clipped yet.": _sum(sent, change, noise),
            "its length is that of all tensors together: one factor for all.": (
                _sum(sent, each, noise)
            ),
            "what is short enough stays as it is.": (
                _sum(sent, _times(change, norm / length), noise)
            ),
            "Flower sends weights: add it to those that were sent.": _sum(short, noise),
            "the noise is missing.": _sum(sent, short),
            "the change leads from sent to back.": (
                _sum(sent, _times(short, -1.0), noise)
            ),
        }
        _expect_record(
            learner(sent, _sum(sent, change), norm, noise),
            _sum(sent, short, noise),
            what="what is sent back as",
            hint="sent, plus the clipped change, plus the noise.",
            mistakes=mistakes,
        )


def _times(record: Weights, factor: float) -> Weights:
    return {name: factor * value for name, value in record.items()}


def _sum(*records: Weights) -> Weights:
    return {name: sum(each[name] for each in records) for name in records[0]}


def _record(generator: Generator, with_norm: bool) -> Weights:
    """Weights by name, as Flower carries them; with batch norm's buffers, too."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    record = {"fc1.weight": normal(3, 4), "fc1.bias": normal(3)}
    if with_norm:
        record |= {"norm.running_mean": normal(3), "norm.count": torch.tensor(7)}
        record["fc2.weight"] = normal(2, 3)
    return record


def _length(record: Weights) -> float:
    return torch.cat([value.flatten() for value in record.values()]).norm().item()


def _expect_record(
    came: object,
    right: Weights,
    *,
    what: str,
    hint: str,
    mistakes: Mapping[str, Weights],
) -> None:
    """A dict with exactly these names, and each value right."""
    expect(
        isinstance(came, Mapping),
        f"the result should be a dict by the names; got {came!r:.60}.",
        hint="return {name: ...} for each name.",
    )
    expect(
        sorted(map(str, came)) == sorted(right),
        f"the result should have the names {sorted(right)}; got {[*came]!r:.80}.",
        hint="buffers are no weights: take the names that you are given.",
    )
    for name, value in right.items():
        expect_close(
            came[name],
            value,
            what=f"{what} {name}",
            hint=hint,
            mistakes={text: wrong[name] for text, wrong in mistakes.items()},
        )


@cache
def seen(item: str, person: int) -> tuple[Tensor, float]:
    """What a division makes of one item of the list: pixels (3, 32, 32), and SSIM."""
    options = {"size": 1, "steps": 1, "lr": 0.1, "sent_as": torch.float32}
    options |= {"shown": None, **ITEMS[item]}
    own = victims("photos", 10)[[person]]
    others, size = victims("photos", 31, seed=3), options["size"]
    images = torch.cat([own.images, others.images])[:size]
    labels = torch.cat([own.labels, others.labels])[:size]
    model = smlp(width=64, generator=torch.Generator().manual_seed(0))
    local = LocalTraining(options["steps"], options["lr"])
    moved = participate(model, images, labels, local=local).shared.dense()
    start = {name: p.detach() for name, p in model.named_parameters()}
    kind = options["sent_as"]
    rounded = [
        (start[name].to(kind) - (start[name] - moved[name][0]).to(kind)).float()
        for name in moved
    ]
    found = from_list(list(moved), rounded)
    w, b = "features.hidden1.weight", "features.hidden1.bias"
    x = total_least_squares(found[w], found[b]).nan_to_num().view(-1, 3, 32, 32)
    shown = options["shown"] or own.normalisation
    pixels = shown.denormalise(x).clamp(0, 1)
    return pixels[0], ssim(own.pixels, pixels).item()


@exercise
def hides(blind, harmless, generator):
    """Look at every item, for every photograph."""
    similarity = {item: [seen(item, i)[1] for i in range(10)] for item in ITEMS}
    hidden = [item for item, found in similarity.items() if max(found) < 0.7]
    exact = [item for item, found in similarity.items() if min(found) > 0.99]
    _expect_items(
        blind,
        hidden,
        what="blind",
        too_many="{}: somebody's photograph reaches 0.7 there; try every one.",
        missing="one more item hides everybody's, beside {}.",
    )
    _expect_items(
        harmless,
        exact,
        what="harmless",
        too_many="{}: not everybody's is there to the last digit.",
        missing="one more item costs nobody anything, beside {}.",
    )


def _expect_items(
    came: object, right: list[str], *, what: str, too_many: str, missing: str
) -> None:
    """A list of just these items, in any order."""
    chosen = listed(came)
    expect(
        chosen is not None and all(item in ITEMS for item in chosen),
        f"{what} should be a list of names from ITEMS; got {came!r:.60}.",
        hint='such as ["ten steps"], spelled as in the list.',
    )
    wrong = [item for item in chosen if item not in right]
    expect(not wrong, f"{what} is not right yet.", hint=too_many.format(wrong[:1]))
    left = [item for item in right if item not in chosen]
    expect(not left, f"{what} is not right yet.", hint=missing.format([*chosen]))


@exercise
def central(text, generator):
    """Leave the judgement to a person."""
    return open_question(
        text,
        mentions="that the server has each answer before it clips and adds noise, so "
        "that the promise is about those who get the model, and rests on the server; "
        "that TLS protects the line and not from its end; what would protect from the "
        "server: noise on the client, or a sum that only opens as a sum, with enough "
        "clients; and what each costs.",
        mistakes=[
            '"differential privacy is a proof": of a sentence, and about somebody.',
            '"the server is honest": it may be, and look all the same.',
        ],
    )

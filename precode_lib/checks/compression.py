"""Markers for the exercises on compression."""

from collections.abc import Iterator
from functools import lru_cache, partial
from math import ceil, nan

import torch
from torch import Generator, Tensor

from precode_lib.data import Pictures
from precode_lib.defenses import as_bitmap, as_indices, prune, quantise
from precode_lib.federated import observe
from precode_lib.gradients import Gradients
from precode_lib.marking import (
    drawn,
    exercise,
    expect,
    expect_choice,
    expect_close,
    expect_number,
    numbers_of,
    open_question,
)
from precode_lib.metrics import score
from precode_lib.models import smlp

NOTEBOOKS_USE = ["BITS", "MESSAGES", "leaks"]
BITS = [2, 3]
MESSAGES = [1, 2, 4, 8, 16, 32]
ENOUGH = 0.8  # SSIM
LAYER = "features.hidden1"


def _alone(entries: Tensor) -> Gradients:
    """One client's gradient of one parameter."""
    return Gradients({"g": entries[None]})


@exercise
def by_hand(pruned, three_bits, two_bits, places, bitmap, generator):
    """Compare with the library's defenses and encodings."""
    g = torch.tensor([0.9, -0.1, 0.3, -0.6], dtype=torch.float64)
    rows = partial(torch.tensor, dtype=torch.float64)
    expect_close(
        pruned,
        prune(_alone(g), 0.5)["g"][0],
        what="pruned",
        secret=True,
        hint="two of the four entries stay as they are, two become zero.",
        mistakes={
            "what counts is the size: -0.6 is larger than 0.3.": rows([0.9, 0, 0.3, 0]),
            "an entry that is kept keeps its sign.": rows([0.9, 0, 0, 0.6]),
            "the others are not removed: they are sent as zero.": rows([0.9, -0.6]),
        },
    )
    three, two = (quantise(_alone(g), bits)["g"][0] for bits in (3, 2))
    expect_close(
        three_bits,
        three,
        what="three_bits",
        secret=True,
        hint="0.9 is 3 steps, so a step is 0.3; round each entry to a multiple of it.",
        mistakes={
            "these are numbers of steps; multiply by the step.": three / 0.3,
            "0.9 is the last of 3 steps upwards, not of 4: zero needs a place.": (
                (g / 0.225).round() * 0.225
            ),
            "seven steps are both sides together, zero in between: 3 + 1 + 3.": (
                (g / (0.9 / 7)).round() * (0.9 / 7)
            ),
            "-0.1 is a third of a step: that rounds to zero.": rows(
                [0.9, -0.3, 0.3, -0.6]
            ),
        },
    )
    expect_close(
        two_bits,
        two,
        what="two_bits",
        secret=True,
        hint="three values are left: -0.9, 0 and 0.9.",
        mistakes={
            "that is the grid of three bits.": three,
            "these are numbers of steps; multiply by the step.": two / 0.9,
            "-0.6 is nearer to -0.9 than to 0: do not cut off, round.": rows(
                [0.9, 0, 0, 0]
            ),
            "these are the signs: 0.3 and -0.1 are nearer to 0.": 0.9 * g.sign(),
        },
    )
    kept = torch.zeros(1, 1000)
    kept[:, :100] = 1
    right = as_indices(kept).item()
    expect_number(
        places,
        right,
        what="places",
        secret=True,
        hint="100 entries are left, with 8 bytes each; and how many they are.",
        mistakes={
            "the server must know how many there are: 4 bytes more.": right - 4,
            "each value needs its place as well.": 404.0,
            "of the values no place is known yet, and no number.": 400.0,
            "90 % are dropped: 100 entries are left, not 900.": 4 + 8 * 900.0,
        },
    )
    right = as_bitmap(kept).item()
    expect_number(
        bitmap,
        right,
        what="bitmap",
        secret=True,
        hint="a bit for each of 1000 entries, in bytes, and 100 values.",
        mistakes={
            "a byte has 8 bits: 1000 bits are 125 bytes.": 400 + 1000.0,
            "where is the bitmap? The values alone do not say their places.": 400.0,
            "where are the values?": 125.0,
            "90 % are dropped: 100 entries are left, not 900.": 125 + 4 * 900.0,
        },
    )


def _without_smallest(sizes: Tensor, g: Tensor, num_dropped: int) -> Tensor:
    order = sizes.flatten().argsort()
    kept = g.flatten().clone()
    kept[order[:num_dropped]] = 0
    return kept.view_as(g)


@exercise
def pruned(learner, generator):
    """Compare by sorting; then count where entries are equal."""
    draw = partial(torch.randn, generator=generator, dtype=torch.float64)
    for shape, ratio in [((3, 4), 0.25), ((7,), 0.4), ((2, 5, 3), 0.9)]:
        g = draw(*shape)
        g *= g.flatten()[g.abs().argmax()].sign()  # the largest entry is positive
        num = int(ratio * g.numel())
        by_rows = torch.stack(
            [_without_smallest(r.abs(), r, int(ratio * r.numel())) for r in g]
        )
        expect_close(
            learner(g, ratio),
            _without_smallest(g.abs(), g, num),
            what="the pruned gradient",
            given={"gradient": g, "ratio": ratio},
            hint="sort the sizes of all entries; the smallest ⌊ratio · n⌋ become zero.",
            mistakes={
                "the ratio is the share that is dropped, not kept.": (
                    _without_smallest(g.abs(), g, g.numel() - num)
                ),
                "what counts is an entry's size, not its value.": (
                    _without_smallest(g, g, num)
                ),
                "the largest were dropped, the smallest kept.": (
                    _without_smallest(-g.abs(), g, num)
                ),
                "rounded up: ⌊...⌋ means rounded down.": _without_smallest(
                    g.abs(), g, ceil(ratio * g.numel())
                ),
                "an entry that is kept keeps its sign.": _without_smallest(
                    g.abs(), g, num
                ).abs(),
                "each row was pruned by itself; one threshold for the whole "
                "parameter.": by_rows,
            },
        )
    for g in (torch.ones(8), torch.tensor([0.0, 2, 0, -2, 2, -2, 2, -2])):
        came = numbers_of(learner(g, 0.5))
        given = f"not right yet. With gradient = {g.tolist()} and ratio = 0.5 "
        num = "no numbers" if came is None else int((came != 0).sum())
        expect(
            num == 4,
            f"{given}4 entries should be left, got {num}.",
            hint="entries can be equal: a threshold then keeps or drops all of them. "
            "Choose places, not a threshold.",
        )
        expect(
            came.shape == g.shape and bool(((came == g) | (came == 0)).all()),
            f"{given}an entry was changed: got {came.tolist()}.",
            hint="an entry stays as it is, or becomes zero.",
        )


def _gradients(generator: Generator) -> Iterator[tuple[Tensor, int]]:
    draw = partial(torch.randn, generator=generator, dtype=torch.float64)

    def lopsided():
        g = draw(6).clamp(-3, 1)
        g[2] = -4  # the largest entry is negative
        return g

    draws = [
        (3, lopsided),
        (4, lambda: draw(2, 3)),
        (8, lambda: 0.01 * draw(50)),
        (2, lambda: draw(5)),
    ]
    for bits, fresh in draws:
        yield drawn(fresh, partial(_has_no_halves, bits)), bits
    yield torch.zeros(4, dtype=torch.float64), 4


def _has_no_halves(bits: int, g: Tensor) -> bool:
    """Whether no entry lies between two points, where single precision decides."""
    steps = g / g.abs().max() * (2 ** (bits - 1) - 1)
    return bool(((steps % 1 - 0.5).abs() > 1e-3).all())


@exercise
def quantised(learner, generator):
    """Compare on several grids; a gradient may be zero altogether."""
    for g, bits in _gradients(generator):
        right = quantise(_alone(g), bits)["g"][0]
        last = 2 ** (bits - 1) - 1

        def on_grid(step, rounded=torch.round, g=g):
            return rounded(g / step) * step

        step = g.abs().max() / last
        low, high = g.min(), g.max()
        wide = (high - low) / (2**bits - 1)
        expect_close(
            learner(g, bits),
            right,
            what="the rounded gradient",
            given={"gradient": g, "bits": bits},
            hint="whole numbers of a step that is max |g| / (2^(bits - 1) - 1).",
            mistakes={
                "a gradient of zeros has the step zero; do not divide by it.": (
                    torch.full_like(g, nan)
                ),
                "these are numbers of steps; multiply by the step.": (g / step).round(),
                "the step is of the largest |g|: entries can be negative.": on_grid(
                    high / last
                ),
                "the last point is 2^(bits - 1) - 1, since zero is one of them.": (
                    on_grid(g.abs().max() / (last + 1))
                ),
                "2^bits - 1 points are both sides together.": on_grid(
                    g.abs().max() / (2**bits - 1)
                ),
                "rounded down; the nearest point may be the one above.": on_grid(
                    step, torch.floor
                ),
                "cut off towards zero; round to the nearest.": on_grid(
                    step, torch.trunc
                ),
                "this grid runs from min to max; the chapter's is symmetric about "
                "zero.": low + ((g - low) / wide).round() * wide,
            },
        )


@lru_cache
def _sent() -> tuple[Pictures, Gradients]:
    """A photograph, and its client's gradients of the first layer."""
    from precode_lib.data import victims

    photo = victims("photos", 1)
    model = smlp(width=128, generator=torch.Generator().manual_seed(0))
    seen = observe(model, photo.images[:, None], photo.labels[:, None])
    terms = seen.shared.dense()
    names = [f"{LAYER}.weight", f"{LAYER}.bias"]
    return photo, Gradients({name: terms[name] for name in names})


def _divided(weight: Tensor, bias: Tensor) -> tuple[Tensor, float]:
    photo, _ = _sent()
    row = bias.abs().argmax()
    image = (weight[row] / bias[row]).view_as(photo.images)
    pixels = photo.normalisation.denormalise(image).clamp(0, 1)
    return pixels, score(photo.pixels, pixels).ssim.item()


@lru_cache
def leaks(bits: int, messages: int) -> dict[str, tuple[Tensor, float]]:
    """One row of the mean of so many messages: pixels and SSIM, by way of rounding."""
    _, sent = _sent()
    dice = torch.Generator().manual_seed(1)
    found = {}
    for way, generator in {"to the nearest": None, "by chance": dice}.items():
        rounded = [quantise(sent, bits, generator=generator) for _ in range(messages)]
        means = [sum(r[name][0] for r in rounded) / messages for name in sent]
        found[way] = _divided(*means)
    return found


@exercise
def many_messages(messages, nearest, generator):
    """Average every number of messages of two bits."""
    ssim = [leaks(2, count)["by chance"][1] for count in MESSAGES]
    first = next(i for i, value in enumerate(ssim) if value >= ENOUGH)
    expect_number(
        messages,
        MESSAGES[first],
        what="messages",
        secret=True,
        hint="with two bits, add messages until the SSIM by chance reaches 0.8.",
        mistakes={
            "here the SSIM by chance still is below 0.8.": MESSAGES[first - 1],
            "enough, but not the first such setting.": MESSAGES[first + 1],
            "with three bits, perhaps; set the other slider to two.": MESSAGES[0],
        },
    )
    expect_choice(
        nearest,
        "nothing",
        {
            "better": "compare its SSIM at the first and at the last setting.",
            "worse": "compare its SSIM at the first and at the last setting.",
        },
        what="nearest",
    )


@exercise
def one_percent(text, generator):
    """Leave the judgement to a person."""
    return open_question(
        text,
        mentions="that the hundredth is the *largest* entries, which carry most of the "
        "gradient's length; that the row with the largest δ shows the most pixels and "
        "each of them exactly; that the places tell as well, and a missing entry is "
        "known to be small; that a hundredth of the bytes still is more than the "
        "photograph; and that error feedback sends the rest later.",
        mistakes=[
            '"1 % of the numbers, 1 % of the picture": entries are copies of few '
            "pixels, many times over.",
            '"it is encrypted": it is not; the server decodes what it gets.',
        ],
    )

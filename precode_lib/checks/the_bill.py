"""Markers for the exercises on the bill: privacy against accuracy."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor

from precode_lib.attacks.closed_form import (
    invert_linear,
    largest_row,
    total_least_squares,
)
from precode_lib.bottleneck import with_precode
from precode_lib.data import Pictures, victims
from precode_lib.defenses import Defense, add_noise, chain, clip, ppp, prune, quantise
from precode_lib.federated import observe
from precode_lib.marking import (
    exercise,
    expect,
    expect_close,
    expect_number,
    listed,
    open_question,
    whole,
)
from precode_lib.metrics import score
from precode_lib.models import smlp

NOTEBOOKS_USE = ["RATIOS", "STACKS", "behind_noise", "divided"]
# The table of the exercise by hand: accuracy, then the SSIM of each attacker.
ROWS = "ABCD"
ACCURACY = [0.7, 0.65, 0.6, 0.4]
SEARCH = [0.1, 0.4, 0.5, 0.1]
DIVISION = [0.9, 0.3, 0.2, 0.0]
NEWCOMER = [0.8, 0.2, 0.2, 0.6]

RATIOS = [0, 0.5, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999]
STACKS = ["pruning alone", "clip, prune, 8 bits"]

Beats = Callable[[Tensor, Tensor], Tensor]


@exercise
def by_hand(leaks, front, later, generator):
    """Compare with the table of the text, before and after another attacker."""
    table = torch.tensor([SEARCH, DIVISION])
    right = table.amax(0)
    expect_close(
        leaks,
        right,
        what="the four leaks",
        secret=True,
        hint="of each row, the best that any of the attackers sees.",
        mistakes={
            "this is what the search sees; the division sees more of some rows.": (
                table[0]
            ),
            "this is what the division sees; the search sees more of some rows.": (
                table[1]
            ),
            "these are the means; an attacker keeps the better of the two.": table.mean(
                0
            ),
            "these are the smaller ones: what the worse attacker sees.": table.amin(0),
        },
    )
    accuracy = torch.tensor(ACCURACY)
    _expect_rows(front, _front(right, accuracy), "the rows worth signing", right)
    more = torch.maximum(right, torch.tensor(NEWCOMER))
    what = "the rows worth signing after the newcomer"
    _expect_rows(later, _front(more, accuracy), what, more)


def _expect_rows(came: Any, right: list[int], what: str, leaks: Tensor) -> None:
    items = [came] if isinstance(came, str) else listed(came) or [None]
    is_text = all(isinstance(item, str) for item in items)
    letters = set("".join(items).upper()) - set(", ") if is_text else {""}
    expect(
        bool(letters) and letters <= set(ROWS),
        f'{what} should be letters in a string, such as "AC"; got {came!r:.40}.',
        hint="write the names of the rows.",
    )
    for row, name in enumerate(ROWS):
        if name in letters and row not in right:
            hint = (
                f"compare {name} with each other row: does one learn at least as much "
                "and leak less?"
            )
        elif name not in letters and row in right:
            hint = f"{name} is missing: which row leaks less and learns as much?"
        else:
            continue
        shown = ", ".join(
            f"{n} {leak:.1f}" for n, leak in zip(ROWS, leaks, strict=True)
        )
        expect(False, f"{what}: not {came!r}. The leaks are {shown}.", hint=hint)


def _front(leaks: Tensor, accuracies: Tensor) -> list[int]:
    """Rows to which no other is at least as good in both and better in one."""

    def beats(leak: Tensor, accuracy: Tensor) -> Tensor:
        is_as_good = (leak <= 0) & (accuracy >= 0)
        return is_as_good & ((leak < 0) | (accuracy > 0))

    return _unbeaten(leaks, accuracies, beats)


def _unbeaten(leaks: Tensor, accuracies: Tensor, beats: Beats) -> list[int]:
    """Rows that no other beats, by the differences in leak and in accuracy."""
    is_beaten = beats(leaks[:, None] - leaks, accuracies[:, None] - accuracies)
    is_beaten.fill_diagonal_(False)
    return torch.where(~is_beaten.any(0))[0].tolist()


@exercise
def leak(learner, generator):
    """Try tables of several sizes, in which no attacker is best everywhere."""
    for shape in [(2, 2, 3), (3, 4, 5), (1, 3, 2)]:
        ssim = torch.rand(shape, generator=generator)
        ssim[:, 0, 0], ssim[:, -1, 1:-1], ssim[:, -1, -1] = 0.95, 0.9, 0.99
        ssim[:, 1:, 0], ssim[:, :-1, -1] = 0.2, 0.1
        best = ssim.amax(1)
        expect_close(
            learner(ssim),
            best.mean(1),
            what="the leaks",
            given={"ssim": ssim},
            hint="for each photograph the best attacker; then the mean over "
            "photographs.",
            mistakes={
                "here one attacker is chosen for all photographs; the equation is "
                "about one.": ssim.mean(2).amax(1),
                "this is the mean over attackers; an attacker keeps the best.": (
                    ssim.mean((1, 2))
                ),
                "this is the photograph that leaks most, not their mean.": best.amax(1),
                "this is the least that leaks to any attacker: min for max.": (
                    ssim.amin(1).mean(1)
                ),
                "this has a number for each photograph; take their mean.": best,
                "attackers are the second dimension, photographs the third.": (
                    ssim.amax(2).mean(1)
                ),
                "this listens to the first attacker only.": ssim[:, 0].mean(1),
            },
        )


@exercise
def front(learner, generator):
    """Try a plain table, one with ties and equal rows, and random ones."""
    plain = [1.0, 0.6, 0.3, 0.5, 0.1], [0.7, 0.75, 0.6, 0.5, 0.2]
    ties = [0.9, 0.9, 0.2, 0.2, 0.5], [0.8, 0.7, 0.5, 0.5, 0.5]
    random = (torch.randint(11, (2, 8), generator=generator) / 10).tolist()
    for leaks, accuracies in (plain, ties, random, ([0.3], [0.9])):
        came = learner(leaks, accuracies)
        rows = _as_rows(came)
        table = torch.tensor(leaks), torch.tensor(accuracies)
        right = _front(*table)
        hint = "a row stays unless another is as good in both and better in one."
        for its_hint, wrong in _wrong_fronts(*table):
            if rows == wrong != right:
                hint = its_hint
                break
        expect(
            rows == right,
            f"not right yet. With\n  leaks = {_rounded(leaks)}\n  accuracies = "
            f"{_rounded(accuracies)}\nthe rows should be {right}, got {rows}.",
            hint=hint,
        )


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 2) for value in values]


def _as_rows(came: Any) -> list[int]:
    items = listed(came)
    rows = None if items is None else [whole(item) for item in items]
    expect(
        rows is not None and None not in rows,
        f"the result should be a list of row numbers, got {came!r:.60}.",
        hint="count rows from 0, and return the numbers of those that stay.",
    )
    return sorted(rows)


def _wrong_fronts(leaks: Tensor, accuracies: Tensor) -> Iterator[tuple[str, list[int]]]:
    right = _front(leaks, accuracies)
    yield (
        "a row that is as good in one number and better in the other beats, too.",
        _unbeaten(leaks, accuracies, lambda leak, gain: (leak < 0) & (gain > 0)),
    )
    yield (
        "two equal rows do not beat each other: both stay.",
        _unbeaten(leaks, accuracies, lambda leak, gain: (leak <= 0) & (gain >= 0)),
    )
    yield (
        "a small leak is good: here the rows that leak most are kept.",
        _front(-leaks, accuracies),
    )
    yield (
        "these are the rows that another beats; asked for are the others.",
        [row for row in range(len(leaks)) if row not in right],
    )
    for values in (-leaks, accuracies):
        is_best = values == values.max()
        yield (
            "this looks at one column only; a row can be worth it for either.",
            torch.where(is_best)[0].tolist(),
        )
    ends = {int(leaks.argmin()), int(accuracies.argmax())}
    yield "between the two ends there are rows that no other beats.", sorted(ends)


def stacked(stack: str, ratio: float) -> Defense:
    """Pruning by itself, or between two other weak defenses."""
    pruned = partial(prune, ratio=ratio)
    if stack == STACKS[0]:
        return pruned
    return chain(partial(clip, max_norm=1.0), pruned, quantise)


def divided(photo: Pictures, stack: str, ratio: float) -> Tensor:
    """What a division finds behind these defenses: pixels (1, C, H, W)."""
    seen = observe(
        smlp(width=128, generator=Generator().manual_seed(0)),
        photo.images[:, None],
        photo.labels[:, None],
        defense=stacked(stack, ratio),
        normalisation=photo.normalisation,
    )
    found = invert_linear(seen, estimate=largest_row)
    return photo.normalisation.denormalise(found.images).clamp(0, 1)


@exercise
def three_weak_ones(alone, together, generator):
    """Run the division at every ratio, for either stack."""
    photo = victims("photos", 1)
    for came, stack in [(alone, STACKS[0]), (together, STACKS[1])]:
        ssim = [score(photo.pixels, divided(photo, stack, r)).ssim for r in RATIOS]
        below = [r for r, s in zip(RATIOS, ssim, strict=True) if s.item() < 0.6]
        expect_number(
            came,
            below[0],
            what=f"the ratio with {stack}",
            secret=True,
            hint="move the slider from the left, and stop where SSIM falls below 0.6.",
            mistakes={
                "here SSIM is still above 0.6; one step further.": RATIOS[
                    RATIOS.index(below[0]) - 1
                ],
                "below 0.6, but not the first such value.": below[1],
                "this is the end of the slider; SSIM is below 0.6 earlier.": RATIOS[-1],
            },
        )
    return "The other two defenses change nothing that this attacker looks at."


def behind_noise(is_guarded: bool, sigma: float) -> tuple[float, float]:
    """Length of a row of the first layer's clean gradient, and SSIM behind noise.

    Without PRECODE there is noise everywhere, with it only in front of the bottleneck.
    The attacker averages over rows.
    """
    weights, dice = Generator().manual_seed(0), Generator().manual_seed(1)
    model, photos = smlp(width=128, generator=weights), victims("photos", 6)
    defense = partial(add_noise, std=sigma, generator=dice)
    if is_guarded:
        model = with_precode(model, "fc", generator=weights)
        defense = ppp(model, photos.images, sigma, generator=dice)
    send = partial(
        observe,
        model,
        photos.images[:, None],
        photos.labels[:, None],
        normalisation=photos.normalisation,
    )
    clean = send(noise=Generator().manual_seed(2)).shared.dense()
    found = invert_linear(
        send(defense=defense, noise=Generator().manual_seed(2)),
        estimate=total_least_squares,
    )
    pixels = photos.normalisation.denormalise(found.images).clamp(0, 1)
    length = clean["features.hidden1.weight"].flatten(1).norm(dim=1).mean().item()
    return length, score(photos.pixels, pixels).mean.ssim


@exercise
def noise_in_front(text, generator):
    """Leave the judgement to a person."""
    return open_question(
        text,
        mentions="that the division looks at the first layer only, whose noise is the "
        "same in both rows; that the first layer's gradient is shorter, because what "
        "the loss sends back is weakened on its way through a new bottleneck, so the "
        "same noise is louder beside it; that a larger σ without PRECODE would do the "
        "same, so a fair comparison is at equal accuracy; and that other attackers "
        "remain, such as a search over the noisy layers alone.",
        mistakes=[
            '"PRECODE\'s randomness hides the first layer": it changes one factor of '
            "each row, and that cancels in the division.",
            '"two defenses, so both leaks multiply": each hinders another attacker, '
            "and an attacker picks the attack.",
            '"so the combination is private": two attackers are no proof, and the '
            "gradient's length changes with training.",
        ],
    )

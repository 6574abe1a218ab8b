"""Typical wrong answers about a federation's records, and what each is told."""

import pytest
import torch
from marking import assert_refused, assert_right
from right_answers import solved

from precode_lib.checks import real_federation as check

BY_HAND = (
    [2.4, -0.6, 1.2],
    [2, -0.5],
    [0.33, 0.24, 0.01],
    [0.17 / 0.09, -0.04 / 0.09],
)


@pytest.mark.parametrize(
    ("place", "wrong", "hint"),
    [
        (0, [0.24, -0.06, 0.12], "divide by the learning rate"),
        (0, [-2.4, 0.6, -1.2], "down the slope"),
        (0, [0.024, -0.006, 0.012], "not times the rate"),
        (0, [1, 1, 1], "minus what came back"),
        (1, [-13, -13], "came back, and not how they moved"),
        (1, [0.5, -2], "the other way round"),
        (1, [20, -5], "the rate cancels"),
        (1, [0, 0], "two entries of the gradient"),
        (2, [0.17, -0.04, 0.09], "how far the mean moved"),
        (2, [1.16 / 3, 0.68 / 3, 0.12 / 3], "old weights have no share"),
        (2, [0, 0, 0], "entry by entry"),
        (3, [1.8333, -0.4167], "quotient of the means"),
        (3, [2, -0.5], "own answer tells"),
        (3, [0, 0], "how the average moved"),
    ],
)
def test_a_wrong_number_by_hand_is_told_what_is_missing(place, wrong, hint):
    assert_right(check.by_hand, *BY_HAND)
    answers = [*BY_HAND[:place], wrong, *BY_HAND[place + 1 :]]
    assert_refused(check.by_hand, *answers, hint=hint)


def moved(sent, back, names):
    return {name: sent[name] - back[name] for name in names}


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (lambda s, b, names, lr: moved(s, b, names), "divide by the learning rate"),
        (
            lambda s, b, names, lr: {n: lr * v for n, v in moved(s, b, names).items()},
            "not times the rate",
        ),
        (
            lambda s, b, names, lr: {n: v / lr for n, v in moved(b, s, names).items()},
            "weights before minus weights after",
        ),
        (
            lambda s, b, names, lr: {n: v / lr for n, v in moved(s, b, s).items()},
            "buffers are no weights",
        ),
        (
            lambda s, b, names, lr: [v / lr for v in moved(s, b, names).values()],
            "return {name",
        ),
        (
            lambda s, b, names, lr: {n: torch.zeros_like(s[n]) for n in names},
            "name by name",
        ),
    ],
)
def test_a_wrong_gradient_of_records_is_told_what_to_divide(learner, hint):
    assert_right(check.gradients, solved("real_federation")["gradients"][1][0])
    assert_refused(check.gradients, learner, hint=hint)


def blurred(sent, back, noise, factor, *, sign=1, base=1):
    """Sent, and so much of the change, and the noise; the change by its length."""
    change = {name: back[name] - sent[name] for name in sent}
    length = torch.cat([each.flatten() for each in change.values()]).norm()
    return {
        n: base * sent[n] + sign * factor(length, each) * each + noise[n]
        for n, each in change.items()
    }


def clipped(length, each):
    return 1 / length.clamp(min=1)


def none(record):
    return {name: torch.zeros_like(each) for name, each in record.items()}


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (lambda s, b, c, z: blurred(s, b, z, lambda length, each: 1), "not clipped"),
        (
            lambda s, b, c, z: blurred(
                s, b, z, lambda length, each: 1 / each.norm().clamp(min=1)
            ),
            "one factor for all",
        ),
        (
            lambda s, b, c, z: blurred(s, b, z, lambda length, each: 1 / length),
            "stays as it is",
        ),
        (lambda s, b, c, z: blurred(s, b, z, clipped, base=0), "Flower sends weights"),
        (lambda s, b, c, z: blurred(s, b, none(z), clipped), "noise is missing"),
        (lambda s, b, c, z: blurred(s, b, z, clipped, sign=-1), "from sent to back"),
        (lambda s, b, c, z: s, "plus the clipped change"),
        (lambda s, b, c, z: 1.0, "return {name"),
    ],
)
def test_a_wrong_blur_is_told_what_is_clipped(learner, hint):
    assert_right(check.blurred, solved("real_federation")["blurred"][1][0])
    assert_refused(check.blurred, learner, hint=hint)


BLIND = ["32 pictures in the batch", "learning rate 1e-5, in bfloat16"]
HARMLESS = ["learning rate 1e-5", "ten steps", "one picture, one step"]


@pytest.mark.parametrize(
    ("blind", "harmless", "hint"),
    [
        (BLIND[:1], HARMLESS, "one more item hides"),
        ([*BLIND, "four pictures in the batch"], HARMLESS, "reaches 0.7"),
        (BLIND, HARMLESS[:2], "one more item costs nobody"),
        (BLIND, [*HARMLESS, "mean and std 0.5"], "to the last digit"),
        (["32"], HARMLESS, "spelled as in the list"),
        (BLIND, "ten steps", "spelled as in the list"),
        (None, HARMLESS, "spelled as in the list"),
    ],
)
def test_a_wrong_item_is_told_whom_to_look_at(blind, harmless, hint):
    assert_right(check.hides, BLIND, HARMLESS)
    assert_refused(check.hides, blind, harmless, hint=hint)


def test_the_brochure_wants_some_sentences():
    assert_refused(check.central, "It is wrong.", hint="words are few")
    assert_right(check.central, " ".join(f"reason{i}" for i in range(30)))

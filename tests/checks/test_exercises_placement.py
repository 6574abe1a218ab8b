"""Typical wrong answers about PRECODE's place, and what each is told."""

import pytest
from marking import assert_refused, assert_right

from precode_lib.checks import placement as check

RIGHT = (28, 48, 88)


@pytest.mark.parametrize(
    ("place", "wrong", "hint"),
    [
        (0, 0, "encoder is missing"),
        (1, 28, "encoder is missing"),
        (1, 40, "biases are missing"),
        (2, 78, "2k outputs"),
        (1, 60, "decoder comes behind"),
        (2, 115, "all parameters"),
        (2, 89, "weights and biases of each layer"),
    ],
)
def test_a_wrong_count_is_told_what_it_forgot(place, wrong, hint):
    assert_right(check.by_hand, *RIGHT)
    answers = [*RIGHT[:place], wrong, *RIGHT[place + 1 :]]
    assert_refused(check.by_hand, *answers, hint=hint)


def up_to(names, ending, *, last=False, beyond=1):
    places = [i for i, name in enumerate(names) if name.endswith(ending)]
    return names[: places[-1 if last else 0] + beyond]


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (lambda names: names, "nothing is left out"),
        (lambda names: up_to(names, "encoder.weight", beyond=0), "keep it"),
        (lambda names: up_to(names, "decoder.bias"), "leave it out"),
        (lambda names: up_to(names, "encoder.weight"), "a bias as well"),
        (
            lambda names: [n for n in names if "bottleneck" not in n],
            "kept; cut the list off",
        ),
        (
            lambda names: [n for n in names if "decoder" not in n],
            "meet the noise, too",
        ),
        (lambda names: up_to(names, "encoder.bias", last=True), "not at the last"),
        (
            lambda names: [
                *up_to(names, "encoder.bias"),
                *(n for n in names[8:] if "encoder" in n),
            ],
            "a later one sees noise|up to the first",
        ),
        (lambda names: names[:1], "all names in order"),
        (lambda names: len(names), "a list of names"),
    ],
)
def test_a_wrong_choice_of_names_is_told_what_is_amiss(learner, hint):
    assert_right(check.before_the_noise, lambda n: up_to(n, "encoder.bias"))
    assert_refused(check.before_the_noise, learner, hint=hint)


def test_the_encoder_of_a_second_bottleneck_is_named():
    def all_encoders(names):
        first = up_to(names, "encoder.bias")
        return first + [n for n in names if "encoder" in n and n not in first]

    assert_refused(check.before_the_noise, all_encoders, hint="a later one sees noise")


def largest(dW):
    return dW[dW.abs().sum(1).argmax()]


@pytest.mark.parametrize(
    ("learner", "hint"),
    [
        (lambda dW: -largest(dW).abs() / dW.abs().max(), "the negative"),
        (lambda dW: dW[0] / dW[0].max(), "row 0 is empty"),
        (largest, "as it was sent"),
        (lambda dW: largest(dW).abs(), "not stretched|as it was sent"),
        (lambda dW: largest(dW).abs() / largest(dW).norm(), "of length 1"),
        (lambda dW: dW.abs().mean(0), "a row that is not zero"),
        (lambda dW: dW, r"shape \(6,\), got"),
    ],
)
def test_a_wrong_picture_is_told_what_is_known_of_pixels(learner, hint):
    assert_right(check.without_bias, lambda dW: largest(dW).abs() / dW.abs().max())
    assert_refused(check.without_bias, learner, hint=hint)


@pytest.mark.parametrize(
    ("by_first", "by_both", "hint"),
    [
        ("output", "output", "more than a shadow"),
        ("front and output", "output", "more than a shadow"),
        ("layer 1", "layer 1", "try the second one, too"),
        ("layer 1", "front and output", "sees less than there"),
        ("layer 1", "behind", "should be one of"),
    ],
)
def test_a_wrong_arrangement_is_told_what_to_compare(by_first, by_both, hint):
    assert_right(check.second_thoughts, "layer 1", "output")
    assert_refused(check.second_thoughts, by_first, by_both, hint=hint)


def test_the_open_question_wants_some_sentences():
    assert_refused(check.a_bet, "It is a bet.", hint="words are few")
    assert_right(check.a_bet, " ".join(f"reason{i}" for i in range(30)))

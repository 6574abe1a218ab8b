"""The border checks say what came, what was expected and what to do."""

import math
from fractions import Fraction
from functools import partial

import pytest
import torch

from precode_lib.basics.validation import (
    check_count,
    check_finite,
    check_function,
    check_generator,
    check_images,
    check_label_shape,
    check_labels,
    check_model,
    check_range,
    check_takes,
    closest,
)


def test_good_images_pass_in_every_float_dtype():
    for dtype in (torch.float16, torch.float32, torch.float64):
        check_images(torch.zeros(1, 3, 4, 5, dtype=dtype), channels=3)


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        ([[0.0]], TypeError, r"shots must be a torch.Tensor, got list\."),
        (torch.zeros(3, 4, 4), ValueError, r"got \(3, 4, 4\)\. Add the batch .*\[None"),
        (
            torch.zeros(4, 4),
            ValueError,
            r"shots must .* \(N, C, H, W\), got \(4, 4\)\.$",
        ),
        (torch.zeros(1, 3, 4, 4).byte(), TypeError, r"torch\.uint8; .* / 255"),
        (torch.zeros(0, 3, 4, 4), ValueError, r"shots is empty.*\(0, 3, 4, 4\)"),
        (torch.zeros(1, 1, 4, 4), ValueError, r"3 channels, got 1 in .*\(1, 1, 4, 4\)"),
        (torch.full((1, 3, 1, 1), math.nan), ValueError, r"3 of 3 entries"),
    ],
)
def test_bad_images_are_refused_with_the_reason(images, error, message):
    with pytest.raises(error, match=message):
        check_images(images, "shots", channels=3)


def test_channels_are_free_unless_asked_for():
    check_images(torch.zeros(2, 7, 1, 1))


def test_non_finite_entries_are_counted():
    values = torch.tensor([0.0, math.nan, math.inf, -math.inf, 1.0])
    with pytest.raises(ValueError, match=r"noise holds NaN or infinity in 3 of 5"):
        check_finite(values, "noise")
    check_finite(values[[0, 4]], "noise")


def test_good_labels_pass_as_classes_and_as_probabilities():
    check_labels(torch.tensor([0, 9]), 2, 10)
    check_labels(torch.full((2, 10), 0.1), 2, 10)
    check_labels(torch.full((2, 100), 0.01).half(), 2, 100)


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ([1, 2], TypeError, "labels must be a torch.Tensor, got list"),
        (torch.tensor(1), ValueError, r"\(N,\) or \(N, C\), got \(\)"),
        (torch.zeros(2, 3, 1), ValueError, r"\(N,\) or \(N, C\), got \(2, 3, 1\)"),
        (torch.tensor([0, 1, 2]), ValueError, r"\(2,\) for 2 ex.* 3 classes, got \(3,"),
        (torch.zeros(2, 4), ValueError, r"shape \(2, 3\) for .*, got \(2, 4\)"),
        (torch.tensor([0, 1]).int(), TypeError, r"int64, got torch\.int32; use \.long"),
        (torch.zeros(2, 3).long(), TypeError, r"probabilities .* got torch\.int64"),
        (torch.tensor([0, 3]), ValueError, r"0\.\.2 for 3 classes, got .* 0 to 3"),
        (torch.tensor([-1, 2]), ValueError, r"got values from -1 to 2"),
        (torch.full((2, 3), 0.5), ValueError, r"softmax .* off by 0\.5"),
        (torch.tensor([[1.0, 0, 0], [2, -1, 0]]), ValueError, "not negative"),
        (torch.tensor([[1.0, 0, 0], [math.nan, 1, 0]]), ValueError, "NaN"),
    ],
)
def test_bad_labels_are_refused_with_the_reason(labels, error, message):
    with pytest.raises(error, match=message):
        check_labels(labels, 2, 3)


def test_an_empty_batch_of_labels_is_refused():
    with pytest.raises(ValueError, match=r"labels is empty: its shape is \(0,\)"):
        check_labels(torch.zeros(0).long(), 0, 3)


def test_probabilities_may_be_off_by_rounding_but_not_by_more():
    check_labels(torch.tensor([[0.5, 0.50005]]), 1, 2)
    with pytest.raises(ValueError, match="probabilities"):
        check_labels(torch.tensor([[0.5, 0.5005]]), 1, 2)
    check_labels(torch.tensor([[0.5, 0.505]]).half(), 1, 2)


def test_the_shape_check_never_looks_at_a_value():
    labels = torch.empty(2, dtype=torch.int64, device="meta")
    check_label_shape(labels, 2, 10)
    torch.vmap(lambda one: check_label_shape(one[None], 1, 3) or one)(torch.arange(9))


@pytest.mark.parametrize("value", [0, 0.5, 1, Fraction(1, 3)])
def test_numbers_inside_a_closed_range_pass(value):
    check_range(value, "ratio", 0, 1)


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, math.inf, -math.inf])
def test_numbers_outside_a_range_are_refused(value):
    with pytest.raises(ValueError, match=r"ratio must be in \[0, 1\], got .*\."):
        check_range(value, "ratio", 0, 1)


def test_open_ends_do_not_belong_to_the_range():
    check_range(0, "ratio", 0, 1, open_high=True)
    with pytest.raises(ValueError, match=r"in \[0, 1\), got 1\. 0\.9 keeps a tenth\."):
        check_range(1, "ratio", 0, 1, open_high=True, hint="0.9 keeps a tenth.")
    check_range(1, "ratio", 0, 1, open_low=True)
    with pytest.raises(ValueError, match=r"in \(0, 1\], got 0\.$"):
        check_range(0, "ratio", 0, 1, open_low=True)


def test_infinity_is_refused_even_where_the_range_has_no_end():
    with pytest.raises(ValueError, match=r"in \[0, inf\), got inf"):
        check_range(math.inf, "beta", 0)
    with pytest.raises(ValueError, match=r"in \(-inf, 0\], got -inf"):
        check_range(-math.inf, "beta", high=0)


@pytest.mark.parametrize("value", ["1", None, True, torch.tensor(1.0), 1j])
def test_what_is_not_a_number_is_refused(value):
    with pytest.raises(TypeError, match=r"beta must be a number, got \w+\."):
        check_range(value, "beta", 0, 1)


def test_counts_are_whole_numbers_from_one_on():
    check_count(1, "k")
    check_count(0, "n", low=0)
    for bad in (0, -3):
        with pytest.raises(ValueError, match=rf"k must be at least 1, got {bad}\."):
            check_count(bad, "k")
    for bad in (1.0, True, "2"):
        with pytest.raises(TypeError, match=rf"k must be a whole .*{bad!r}"):
            check_count(bad, "k")


def test_the_closest_name_is_offered_and_nothing_when_none_is_close():
    assert closest("fcc", ["conv1", "fc", "features"]) == " Did you mean 'fc'?"
    assert closest("feature", iter(["conv1", "fc", "features"])) == (
        " Did you mean 'features'?"
    )
    assert closest("zzz", ["conv1", "fc"]) == ""
    assert closest("fc", []) == ""


def test_a_seed_is_not_a_generator():
    check_generator(torch.Generator())
    for seed in (0, None, "0"):
        kind = type(seed).__name__
        with pytest.raises(TypeError, match=rf"got {kind}; .*manual_seed\(0\) makes"):
            check_generator(seed)


def test_a_name_is_not_a_function():
    check_function(abs, "distance", "cosine_distance")
    with pytest.raises(TypeError, match="distance must .* as cosine_distance, got str"):
        check_function("cosine", "distance", "cosine_distance")


def test_a_function_takes_what_it_is_given():
    def halved(value, *, by=2):
        return value / by

    for fitting in (halved, abs, print, lambda *all_of_them: 0, partial(halved, by=3)):
        check_takes(fitting, "share", "halved", "value")
    check_takes(halved, "share", "halved", "value", "*", "by")
    check_takes(dict.get, "share", "dict.get", "self", "key")
    with pytest.raises(
        TypeError, match=r"share must take \(value, \*, to\), such as hal"
    ):
        check_takes(halved, "share", "halved", "value", "*", "to")
    with pytest.raises(TypeError, match=r"halved takes \(value, by\): too many"):
        check_takes(halved, "share", "half", "value", "weight")
    with pytest.raises(TypeError, match="share must be a function such as halved"):
        check_takes(0.5, "share", "halved", "value")


def test_neither_a_class_nor_its_weights_are_a_model():
    check_model(torch.nn.Flatten())
    with pytest.raises(TypeError, match=r"torch\.nn\.Module, got the class Flatten\."):
        check_model(torch.nn.Flatten)
    with pytest.raises(TypeError, match="got dict"):
        check_model({})

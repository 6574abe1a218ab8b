import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from precode_lib.data import CIFAR10, Pictures, Splits, measure, split


def pictures(n=6, num_classes=3, **changes):
    generator = torch.Generator().manual_seed(n)
    stored = torch.randint(256, (n, 3, 4, 4), generator=generator, dtype=torch.uint8)
    fields = {
        "stored": stored,
        "labels": torch.arange(n) % num_classes,
        "classes": tuple("abcdefgh"[:num_classes]),
        "name": "noise",
    }
    return Pictures(**(fields | changes))


def test_pixels_are_the_stored_levels_over_255():
    some = pictures()
    assert some.pixels.dtype == torch.float32
    assert torch.equal((some.pixels * 255).round().to(torch.uint8), some.stored)


def test_pixels_stored_as_floats_are_copied_not_shared():
    stored = torch.rand(2, 1, 3, 3)
    some = pictures(2, stored=stored)
    before = stored.clone()
    some.pixels.zero_()
    assert torch.equal(some.stored, before)


def test_images_are_the_normalised_pixels():
    some = pictures(normalisation=CIFAR10)
    assert torch.equal(some.images, CIFAR10.normalise(some.pixels))


@pytest.mark.parametrize(
    ("index", "rows"),
    [
        (2, [2]),
        (-1, [5]),
        (slice(1, 4), [1, 2, 3]),
        ([4, 0], [4, 0]),
        (torch.tensor([3, 3]), [3, 3]),
        (torch.tensor([True, False, False, False, False, True]), [0, 5]),
    ],
)
def test_indexing_gives_pictures_with_their_labels(index, rows):
    some = pictures()
    chosen = some[index]
    assert torch.equal(chosen.stored, some.stored[rows])
    assert torch.equal(chosen.labels, some.labels[rows])
    assert chosen.classes == some.classes


def test_an_index_beyond_the_end_or_an_empty_choice_is_an_error():
    with pytest.raises(IndexError):
        pictures()[6]
    with pytest.raises(ValueError, match="Nothing of"):
        pictures()[6:]


def test_of_class_keeps_exactly_the_pictures_of_that_class():
    chosen = pictures().of_class("b")
    assert chosen.labels.tolist() == [1, 1]
    with pytest.raises(ValueError, match="Did you mean 'b'"):
        pictures(classes=("apple", "b", "c")).of_class("bb")


def test_resizing_keeps_a_constant_picture_constant_and_says_so():
    white = pictures(1, stored=torch.full((1, 3, 8, 8), 255, dtype=torch.uint8))
    small = white.resized(5)
    assert small.image_shape == (3, 5, 5)
    torch.testing.assert_close(small.pixels, torch.ones(1, 3, 5, 5))
    assert small.fidelity == "lossless, scaled to 5x5"
    assert white.resized(8) is white


@pytest.mark.parametrize("size", [5, 8, 24])
def test_resizing_agrees_with_pil(size, generator):
    stored = torch.rand(1, 1, 16, 16, generator=generator)
    image = Image.fromarray(stored[0, 0].numpy())
    expected = np.array(image.resize((size, size), Image.Resampling.BILINEAR))
    resized = pictures(1, stored=stored).resized(size).stored[0, 0]
    torch.testing.assert_close(resized, torch.from_numpy(expected))


def test_resizing_to_nothing_is_refused():
    with pytest.raises(ValueError, match="size must be at least 1"):
        pictures().resized(0)


def test_the_representation_is_one_line_without_tensors():
    text = repr(pictures(fidelity="JPEG q75"))
    assert text == "Pictures(noise: 6 of 3x4x4, 3 classes, JPEG q75)"


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"stored": torch.zeros(3, 4, 4)}, ValueError, r"\(N, C, H, W\)"),
        ({"stored": torch.zeros(0, 3, 4, 4)}, ValueError, "at least one"),
        ({"stored": torch.zeros(6, 3, 4, 4, dtype=torch.int64)}, TypeError, "int64"),
        ({"stored": torch.full((6, 3, 4, 4), torch.nan)}, ValueError, "NaN"),
        ({"stored": torch.full((6, 3, 4, 4), 1.5)}, ValueError, "Denormalise"),
        ({"stored": torch.full((6, 3, 4, 4), -0.1)}, ValueError, "Denormalise"),
        ({"labels": torch.zeros(6)}, TypeError, "labels must be int64"),
        ({"labels": torch.zeros(5, dtype=torch.int64)}, ValueError, r"shape \(6,\)"),
        ({"labels": torch.full((6,), 3)}, ValueError, r"0\.\.2"),
        ({"labels": torch.full((6,), -1)}, ValueError, r"0\.\.2"),
    ],
)
def test_pictures_that_are_none_are_refused(changes, error, message):
    with pytest.raises(error, match=message):
        pictures(**changes)


def test_train_and_test_must_name_the_same_classes():
    with pytest.raises(ValueError, match="same classes"):
        Splits(pictures(), pictures(classes=("x", "y", "z")))


@given(
    labels=st.lists(st.integers(0, 3), min_size=1, max_size=60),
    fraction=st.floats(0.05, 0.95),
    seed=st.integers(0, 1000),
)
def test_a_split_uses_every_picture_once_and_covers_every_class(labels, fraction, seed):
    stored = torch.arange(len(labels)).reshape(-1, 1, 1, 1).to(torch.uint8)
    whole = Pictures(stored, torch.tensor(labels), tuple("abcd"), "numbered")
    if max(map(labels.count, range(4))) < 2:
        with pytest.raises(ValueError, match="cannot be split"):
            split(whole, test_fraction=fraction, seed=seed)
        return
    parts = split(whole, test_fraction=fraction, seed=seed)
    train, test = parts.train.stored.flatten(), parts.test.stored.flatten()
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(len(labels)))
    for c in range(4):
        count = labels.count(c)
        held_out = int((parts.test.labels == c).sum())
        assert 0 < held_out < count if count > 1 else held_out == 0
        assert abs(held_out - fraction * count) <= 1


def test_the_seed_decides_the_split():
    whole = pictures(60)
    first, again = split(whole, seed=1), split(whole, seed=1)
    other = split(whole, seed=2)
    assert torch.equal(first.test.stored, again.test.stored)
    assert not torch.equal(first.test.stored, other.test.stored)


def test_a_split_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    split(pictures(20))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("fraction", [0, 1, 80, -0.2])
def test_a_test_fraction_outside_0_to_1_is_refused(fraction):
    with pytest.raises(ValueError, match="test_fraction"):
        split(pictures(), test_fraction=fraction)


@pytest.mark.parametrize("as_float", [False, True])
def test_measured_statistics_standardise_the_pictures(as_float):
    some = pictures(5000)  # more than one batch of the running sums
    if as_float:
        some = pictures(5000, stored=some.pixels)
    images = measure(some).normalise(some.pixels).double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(
        images.mean(1), torch.zeros(3).double(), atol=1e-5, rtol=0
    )
    deviation = images.std(1, correction=0)
    torch.testing.assert_close(deviation, torch.ones(3).double(), atol=1e-5, rtol=0)


def test_a_constant_channel_still_has_a_usable_deviation():
    white = pictures(1, stored=torch.ones(1, 3, 4, 4))
    assert torch.isfinite(measure(white).normalise(white.pixels)).all()

import pytest
import torch

from precode_lib.data import Examples, Pictures, Splits, split, victim_indices


def rows(n=6, labels=None, classes=("a", "b", "c"), **changes):
    generator = torch.Generator().manual_seed(n)
    fields = {
        "stored": torch.randn(n, 4, generator=generator),
        "labels": torch.arange(n) % 3 if labels is None else labels,
        "classes": classes,
        "name": "rows",
    }
    return Examples(**(fields | changes))


def test_examples_of_any_shape_answer_what_pictures_answer():
    for shape in ((), (4,), (1, 16), (1, 3, 3, 3)):
        some = rows(6, stored=torch.randn(6, *shape))
        assert (len(some), some.image_shape, some.num_classes) == (6, shape, 3)
        assert some.normalisation is None and some.is_classified
        assert torch.equal(some.images, some.stored)


def test_images_are_a_float32_copy():
    some = rows(stored=torch.ones(6, 4, dtype=torch.float64))
    images = some.images
    images.zero_()
    assert images.dtype == torch.float32 and some.stored.min() == 1


@pytest.mark.parametrize(
    "labels",
    [torch.rand(6), torch.rand(6, 4), torch.ones(6, 8, 8, dtype=torch.int64)],
    ids=["numbers", "several labels", "masks"],
)
def test_labels_may_have_any_form(labels):
    some = rows(labels=labels)
    assert not some.is_classified
    assert torch.equal(some[2:4].labels, labels[2:4])
    assert torch.equal(some[[5, 1]].labels, labels[[5, 1]])


def test_classes_without_names_are_no_classes():
    some = rows(classes=None)
    assert some.num_classes is None and not some.is_classified
    assert repr(some) == "Examples(rows: 6 of 4, lossless)"


def test_a_part_of_examples_is_examples_and_of_pictures_pictures():
    pictures = Pictures(torch.rand(3, 1, 8, 8), torch.arange(3), tuple("abc"), "p")
    assert type(rows()[:2]) is Examples and type(pictures[:2]) is Pictures
    assert repr(rows()) == "Examples(rows: 6 of 4, 3 classes, lossless)"
    with pytest.raises(ValueError, match="Nothing of Examples"):
        rows()[6:]


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"stored": torch.ones(6, 4).byte()}, TypeError, "Pictures for 8-bit"),
        ({"stored": torch.ones(0, 4)}, ValueError, "at least one"),
        ({"stored": torch.full((6, 4), torch.nan)}, ValueError, "examples"),
        ({"labels": torch.arange(5) % 3}, ValueError, r"6 examples need labels \(6"),
        ({"labels": torch.arange(6)}, ValueError, "must lie in 0..2 for 3 classes"),
    ],
)
def test_what_is_no_collection_is_refused(changes, error, match):
    with pytest.raises(error, match=match):
        rows(**changes)


def test_victims_are_of_every_class_where_there_are_classes():
    turns = torch.tensor([0, 0, 0, 1, 1, 2])
    assert victim_indices(rows(labels=turns), 3) == [0, 3, 5]
    masks = torch.zeros(6, 2, 2, dtype=torch.int64)
    assert victim_indices(rows(labels=masks), 3) == [0, 1, 2]
    drawn = victim_indices(rows(labels=masks), 3, seed=1)
    assert len(set(drawn)) == 3 and drawn == sorted(drawn)


def test_examples_are_split_class_by_class_or_all_together():
    by_class = split(rows(30), test_fraction=0.2)
    assert by_class.test.labels.bincount().tolist() == [2, 2, 2]
    together = split(rows(30, labels=torch.rand(30)), test_fraction=0.2)
    assert (len(together.train), len(together.test)) == (24, 6)


def test_splits_take_examples_of_the_same_classes_only():
    assert (
        Splits(rows(), rows(classes=["a", "b", "c"])).named("x").test.name == "x test"
    )
    with pytest.raises(ValueError, match="the same classes"):
        Splits(rows(), rows(classes=None))

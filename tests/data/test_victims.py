import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from precode_lib.data import MissingDataError, Pictures, Splits, faces, victims
from precode_lib.data.photographs import placed_crops


def numbered(labels):
    stored = torch.arange(len(labels)).reshape(-1, 1, 1, 1).to(torch.uint8)
    return Pictures(stored, torch.tensor(labels), tuple("abcd"), "numbered")


@given(st.data())
def test_every_class_is_represented_as_evenly_as_it_can_be(data):
    labels = data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=40))
    n = data.draw(st.integers(1, len(labels)))
    seed = data.draw(st.none() | st.integers(0, 99))
    chosen = victims(numbered(labels), n, seed=seed)
    assert len(chosen) == n
    rows = chosen.stored.flatten().tolist()
    assert rows == sorted(set(rows))  # each at most once, in their own order
    assert chosen.labels.tolist() == [labels[row] for row in rows]
    taken = [chosen.labels.tolist().count(c) for c in set(labels)]
    left = [labels.count(c) - t for c, t in zip(set(labels), taken, strict=True)]
    # A class may stay behind another by more than one only when it has none left.
    for t, rest in zip(taken, left, strict=True):
        assert rest == 0 or t >= max(taken) - 1
    if n >= len(set(labels)):
        assert min(taken) >= 1


def test_without_a_seed_each_class_gives_its_first_pictures():
    chosen = victims(numbered([0, 0, 0, 1, 1, 2]), 4)
    assert chosen.stored.flatten().tolist() == [0, 1, 3, 5]


def test_the_seed_decides_which_pictures():
    pictures = numbered([0] * 50 + [1] * 50)
    first, again, other = (
        victims(pictures, 10, seed=s).stored.flatten().tolist() for s in (0, 0, 1)
    )
    assert first == again != other


def test_choosing_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    victims("photos", 3, seed=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_of_splits_the_test_part_is_attacked():
    splits = Splits(numbered([0] * 9), numbered([1, 2]))
    assert victims(splits, 2).labels.tolist() == [1, 2]


def test_photos_give_the_showpieces_first_in_any_size():
    ten = victims("photos", 10)
    assert ten.image_shape == (3, 32, 32)
    assert ten.labels.tolist() == list(range(10))
    assert torch.equal(ten.stored, placed_crops(32).stored[:10])
    large = victims("photos", 10, size=64)
    assert torch.equal(large.stored, placed_crops(64).stored[:10])


def test_another_collection_is_scaled_when_asked():
    assert victims("faces", 4).image_shape == (1, 32, 32)
    chosen = victims(faces().test.of_class("face"), 4, size=16)
    assert chosen.image_shape == (1, 16, 16)
    assert chosen.labels.tolist() == [0] * 4


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "medical_mnist", "paper"])
def test_published_collections_are_known_by_name(name):
    with pytest.raises(MissingDataError, match="Three ways"):
        victims(name, 1)


@pytest.mark.parametrize(
    ("source", "n", "error", "message"),
    [
        ("photo", 1, ValueError, "No collection 'photo'.* Did you mean 'photos'"),
        ("photos", 0, ValueError, "n must be at least 1"),
        ("photos", 2.0, TypeError, "n must be a whole number"),
        ("photos", 41, ValueError, "n must be at most 40"),
        (torch.zeros(3), 1, TypeError, "Splits or Pictures, got Tensor"),
    ],
)
def test_impossible_requests_are_refused(source, n, error, message):
    with pytest.raises(error, match=message):
        victims(source, n)

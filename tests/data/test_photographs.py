import subprocess
import sys

import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from precode_lib.data import FACES, PHOTOS, faces, measure, photographs, photos
from precode_lib.data.crops import CROPS
from precode_lib.data.photographs import CLASSES, crop_boxes, photograph, placed_crops


def covered(boxes, width, height):
    """Where any of the squares lies: (height, width) bool."""
    mask = torch.zeros(height, width, dtype=torch.bool)
    for left, top, side in boxes.tolist():
        mask[top : top + side, left : left + side] = True
    return mask


@settings(max_examples=40)
@given(st.integers(3, 200), st.integers(3, 200), st.integers(0, 10**6))
def test_train_and_test_squares_never_share_a_pixel(width, height, seed):
    generator = torch.Generator().manual_seed(seed)
    train, test = (
        crop_boxes(width, height, part, 60, generator) for part in ("train", "test")
    )
    for boxes in (train, test):
        assert (boxes >= torch.tensor([0, 0, 1])).all()
        assert (boxes[:, 0] + boxes[:, 2] <= width).all()
        assert (boxes[:, 1] + boxes[:, 2] <= height).all()
    shared = covered(train, width, height) & covered(test, width, height)
    assert not shared.any()


def test_squares_reach_the_ends_of_their_cells(generator):
    boxes = crop_boxes(300, 300, "test", 4000, generator)
    sides = boxes[:, 2]
    assert (sides.min() // 5, sides.max() // 5) == (10, 19)  # 50 to 99 or 100
    mask = covered(boxes, 300, 300).reshape(3, 100, 3, 100).float().mean((1, 3))
    expected = torch.tensor([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]])
    torch.testing.assert_close(mask, expected, rtol=0, atol=0.02)


def test_photos_are_balanced_labelled_and_of_the_asked_size():
    splits = photos(16, num_train=57, num_test=20)
    assert splits.train.image_shape == (3, 16, 16)
    assert splits.train.stored.dtype == torch.uint8
    assert splits.train.labels.tolist() == [i % 10 for i in range(57)]
    assert torch.bincount(splits.test.labels).tolist() == [2] * 10
    assert splits.train.classes == CLASSES


def test_the_seed_decides_the_photos():
    first, again, other = (
        photos(num_train=20, num_test=10, seed=s).train for s in (0, 0, 1)
    )
    assert torch.equal(first.stored, again.stored)
    assert not torch.equal(first.stored, other.stored)


def test_photos_leave_the_global_generators_alone():
    before, state = torch.get_rng_state(), np.random.get_state()[1].copy()
    photos(num_train=10, num_test=10)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], state)


def test_a_crop_shows_its_own_photograph():
    # A square of one pixel's size, scaled to 1x1, is that pixel of the photograph.
    for label in ("coffee", "coins"):
        pictures = photographs._cut([(label, (40, 30, 1))], 1, "one pixel")
        expected = photograph(label).getpixel((40, 30))
        assert tuple(pictures.stored.flatten().tolist()) == expected


def test_a_crop_does_not_look_beyond_its_border():
    whole = photograph("cameraman").copy()
    black = photographs._cut([("cameraman", (0, 0, 60))], 8, "before").stored
    whole.paste((255, 0, 0), (60, 0, 120, 120))
    square = whole.crop((0, 0, 60, 60))
    after = np.asarray(photographs.scaled(square, 8)).transpose(2, 0, 1)
    assert np.array_equal(black[0].numpy(), after)


def test_the_photographs_are_those_of_scikit_image():
    for label, original in [
        ("astronaut", skimage.data.astronaut()),
        ("cat", skimage.data.chelsea()),
        ("coffee", skimage.data.coffee()),
        ("coins", np.repeat(skimage.data.coins()[..., None], 3, axis=2)),
    ]:
        assert np.array_equal(np.asarray(photograph(label)), original)


@pytest.mark.parametrize("size", [32, 64])
def test_placed_crops_lie_in_their_photographs_and_invent_no_pixels(size):
    for crop in CROPS:
        width, height = photograph(crop.label).size
        assert 0 <= crop.left <= width - crop.side
        assert 0 <= crop.top <= height - crop.side
        assert crop.side >= size


def test_placed_crops_are_distinct_and_take_turns():
    pictures = placed_crops()
    assert len(pictures) >= 32
    assert pictures.labels.tolist() == [i % 10 for i in range(len(pictures))]
    flat = pictures.pixels.flatten(1)
    distances = torch.cdist(flat, flat).square() / flat.shape[1]
    distances.fill_diagonal_(1)
    assert distances.min() > 0.002  # mean squared error per pixel
    contrast = pictures.pixels.amax((1, 2, 3)) - pictures.pixels.amin((1, 2, 3))
    assert contrast.min() > 0.4


def test_a_linear_model_learns_the_photos_but_far_from_perfectly(generator):
    splits = photos(8, num_train=1000, num_test=500)
    x, y = splits.train.images.flatten(1), splits.train.labels
    weight = torch.zeros(x.shape[1] + 1, 10, requires_grad=True)
    optimizer = torch.optim.Adam([weight], lr=0.01)
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(x @ weight[1:] + weight[0], y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    logits = splits.test.images.flatten(1) @ weight[1:] + weight[0]
    accuracy = (logits.argmax(1) == splits.test.labels).float().mean().item()
    assert 0.3 < accuracy < 0.9


def test_faces_are_the_first_hundred_crops_of_lfw():
    splits = faces(25)
    raw = torch.from_numpy(skimage.data.lfw_subset()).float()
    assert splits.train.classes == ("face", "background")
    assert (len(splits.train), len(splits.test)) == (160, 40)
    found = torch.cat([splits.train.of_class("face").stored, splits.test.stored[:20]])
    expected = {tuple(face.flatten().tolist()) for face in raw[:100]}
    assert {tuple(face.flatten().tolist()) for face in found} == expected


def test_faces_are_scaled_up_to_32x32():
    splits = faces()
    assert splits.test.image_shape == (1, 32, 32)
    assert splits.test.fidelity == "25x25 scaled to 32x32"


def test_the_stated_statistics_are_those_of_the_default_sets():
    for splits, stated in ((photos(), PHOTOS), (faces(), FACES)):
        found = measure(splits.train)
        assert found.mean == pytest.approx(stated.mean, abs=2e-3)
        assert found.std == pytest.approx(stated.std, abs=2e-3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: photos(0), "size must be at least 1"),
        (lambda: photos(num_train=9), "num_train must be at least 10"),
        (lambda: photos(num_test=0), "num_test must be at least 10"),
        (lambda: faces(0), "size must be at least 1"),
        (lambda: placed_crops(-1), "size must be at least 1"),
    ],
)
def test_impossible_sizes_and_counts_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("installed", [True, False])
def test_a_scikit_image_without_pictures_is_a_clear_error(installed, monkeypatch):
    class Spec:
        submodule_search_locations = ("/nowhere",)

    spec = Spec() if installed else None
    monkeypatch.setattr(photographs, "find_spec", lambda name: spec)
    with pytest.raises(FileNotFoundError, match=r"lfw_subset\.npy is not installed"):
        faces()


def test_importing_the_room_imports_nothing_heavy():
    code = (
        "import sys, precode_lib.data; heavy = {'torchvision', 'skimage', 'PIL', "
        "'pooch', 'requests', 'scipy', 'matplotlib'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

import numpy as np
import pytest
import torch
from picture_files import noise, tarred, write_picture, zipped
from PIL import Image
from torchvision.datasets import ImageFolder

from precode_lib.data import IDENTITY, folders, image_folder, measure


def as_torchvision_reads(folder):
    reader = ImageFolder(folder)
    stored = np.stack([np.asarray(image) for image, _ in reader])
    labels = torch.tensor(reader.targets)
    return torch.from_numpy(stored).permute(0, 3, 1, 2), labels, tuple(reader.classes)


def divided_tree(folder, parts=("train", "test")):
    for p, part in enumerate(parts):
        for c, label in enumerate(("ant", "bee", "cow")):
            for i in range(2 + p):
                seed = 100 * p + 10 * c + i
                write_picture(folder / part / label / f"{i}.png", seed=seed)
    return folder


@pytest.fixture(params=["folder", "zip", "zip in a folder", "tar"])
def divided(request, tmp_path):
    folder = divided_tree(tmp_path / "divided")
    if request.param == "folder":
        return folder
    if request.param == "tar":
        return tarred(folder, tmp_path / "divided.tar.gz")
    prefix = "repository-main/data/" if "in a folder" in request.param else ""
    return zipped(folder, tmp_path / "divided.zip", prefix)


def test_a_given_division_is_read_as_torchvision_reads_it(divided, tmp_path):
    splits = image_folder(divided)
    for part in ("train", "test"):
        expected = as_torchvision_reads(tmp_path / "divided" / part)
        pictures = getattr(splits, part)
        assert torch.equal(pictures.stored, expected[0])
        assert torch.equal(pictures.labels, expected[1])
        assert pictures.classes == expected[2]
        assert pictures.name == f"divided {part}"
        assert pictures.fidelity == "lossless"


def test_val_stands_in_for_a_missing_test_part(tmp_path):
    splits = image_folder(divided_tree(tmp_path / "t", ("train", "val")))
    assert (len(splits.train), len(splits.test)) == (6, 9)


def test_val_is_left_out_where_there_is_a_test_part(tmp_path):
    splits = image_folder(divided_tree(tmp_path / "t", ("train", "val", "test")))
    assert (len(splits.train), len(splits.test)) == (6, 12)


def test_a_train_part_alone_is_split_by_seed(tmp_path):
    splits = image_folder(divided_tree(tmp_path / "t", ("train",)))
    assert splits.train.classes == ("ant", "bee", "cow")
    assert (len(splits.train), len(splits.test)) == (3, 3)


def test_plain_class_folders_are_split_by_seed(tree):
    one, same = image_folder(tree, seed=1), image_folder(tree, seed=1)
    other = image_folder(tree, seed=2)
    assert (len(one.train), len(one.test)) == (8, 2)
    assert one.test.labels.tolist() == [0, 1]
    assert torch.equal(one.test.stored, same.test.stored)
    assert not torch.equal(one.test.stored, other.test.stored)
    stored, _, _ = as_torchvision_reads(tree)
    both = torch.cat([one.train.stored, one.test.stored]).flatten(1)
    assert sorted(both.tolist()) == sorted(stored.flatten(1).tolist())


def test_a_single_class_folder_is_a_class(tmp_path):
    for i in range(4):
        write_picture(tmp_path / "t" / "pets" / "cat" / f"{i}.png", seed=i)
    assert image_folder(tmp_path / "t").train.classes == ("cat",)


def test_files_that_are_no_pictures_or_hidden_are_passed_over(tree):
    (tree / "README.md").write_text("hello")
    (tree / "cat" / "._0.png").write_bytes(b"a Mac's shadow")
    write_picture(tree / "__MACOSX" / "0.png")
    splits = image_folder(tree)
    assert len(splits.train) + len(splits.test) == 10


def test_grey_pictures_have_one_channel(tmp_path):
    for label in "ab":
        for i in range(2):
            write_picture(tmp_path / "t" / label / f"{i}.png", seed=i, shape=(6, 5))
    train = image_folder(tmp_path / "t").train
    assert train.image_shape == (1, 6, 5)
    assert train.normalisation == measure(train)


def test_grey_among_colour_becomes_three_equal_channels(tree):
    write_picture(tree / "cat" / "grey.png", seed=3, shape=(8, 8))
    splits = image_folder(tree)
    stored = torch.cat([splits.train.stored, splits.test.stored])
    expected = torch.from_numpy(noise(3, (8, 8))).expand(3, 8, 8)
    assert sum(torch.equal(picture, expected) for picture in stored) == 1


@pytest.mark.parametrize("mode", ["P", "RGBA", "LA", "1", "CMYK"])
def test_every_8_bit_mode_is_read_as_pil_converts_it(mode, tmp_path):
    source = Image.fromarray(noise(1)).convert(mode)
    suffix = "tif" if mode == "CMYK" else "png"
    for i in range(2):
        (tmp_path / "t" / "a").mkdir(parents=True, exist_ok=True)
        source.save(tmp_path / "t" / "a" / f"{i}.{suffix}")
    stored = image_folder(tmp_path / "t").train.stored[0]
    grey = mode in ("LA", "1")
    expected = np.atleast_3d(np.array(source.convert("L" if grey else "RGB")))
    assert torch.equal(stored, torch.from_numpy(expected).permute(2, 0, 1))


def test_16_bit_pictures_are_refused_rather_than_clipped(tmp_path):
    (tmp_path / "t" / "a").mkdir(parents=True)
    deep = Image.fromarray(noise(0, (4, 4)).astype(np.uint16) * 257)
    deep.save(tmp_path / "t" / "a" / "deep.png")
    with pytest.raises(ValueError, match=r"a/deep\.png.* not 8-bit"):
        image_folder(tmp_path / "t")


def test_the_upright_direction_of_a_phone_is_obeyed(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter
    for i in range(2):
        write_picture(tmp_path / "t" / "a" / f"{i}.png", shape=(4, 6, 3), exif=exif)
    stored = image_folder(tmp_path / "t").train.stored[0]
    expected = np.rot90(noise(0, (4, 6, 3)), k=-1).copy()
    assert torch.equal(stored, torch.from_numpy(expected).permute(2, 0, 1))


@pytest.mark.parametrize("quality", [30, 75, 95])
def test_the_quality_of_a_jpeg_is_found_out(quality, tmp_path):
    for i in range(2):
        write_picture(tmp_path / "t" / "a" / f"{i}.jpg", seed=i, quality=quality)
    assert image_folder(tmp_path / "t").train.fidelity == f"JPEG q{quality}"


def test_a_jpeg_with_tables_of_its_own_is_just_a_jpeg(tmp_path):
    for i in range(2):
        write_picture(tmp_path / "t" / "a" / f"{i}.jpg", qtables=[list(range(1, 65))])
    write_picture(tmp_path / "t" / "a" / "2.webp")
    write_picture(tmp_path / "t" / "a" / "3.png")
    assert image_folder(tmp_path / "t").train.fidelity == "JPEG, WEBP"


def test_users_may_say_fidelity_name_and_normalisation(tree):
    splits = image_folder(
        tree, fidelity="photocopied", name="pets", normalisation=IDENTITY
    )
    assert (
        repr(splits.test) == "Pictures(pets test: 2 of 3x8x8, 2 classes, photocopied)"
    )
    assert splits.train.normalisation == IDENTITY


def test_size_scales_the_middle_square(tmp_path):
    wide = np.zeros((6, 10, 3), np.uint8)
    wide[:, 2:8] = 200  # the middle square; the margins are black
    (tmp_path / "t" / "a").mkdir(parents=True)
    for i in range(2):
        Image.fromarray(wide).save(tmp_path / "t" / "a" / f"{i}.png")
    stored = image_folder(tmp_path / "t", size=3).train.stored
    assert torch.equal(stored, torch.full((1, 3, 3, 3), 200, dtype=torch.uint8))


def test_different_sizes_are_refused_with_the_way_out(tree):
    write_picture(tree / "dog" / "wide.png", shape=(8, 9, 3))
    with pytest.raises(ValueError, match=r"dog/wide\.png is 9x8; size=32 scales"):
        image_folder(tree)
    assert image_folder(tree, size=4).train.image_shape == (3, 4, 4)


def test_an_archive_is_decoded_once_and_then_kept(tree, tmp_path, cache, monkeypatch):
    file = zipped(tree, tmp_path / "tree.zip")
    first = image_folder(file)
    assert [p.suffix for p in (cache / "decoded").iterdir()] == [".npz"]
    monkeypatch.setattr(folders, "decode", None)  # calling it again would fail
    again = image_folder(file)
    assert torch.equal(first.train.stored, again.train.stored)
    assert torch.equal(first.test.labels, again.test.labels)
    assert repr(first.train) == repr(again.train)


def test_a_changed_archive_or_size_is_decoded_anew(tree, tmp_path, cache):
    file = zipped(tree, tmp_path / "tree.zip")
    image_folder(file)
    assert image_folder(file, size=4).train.image_shape == (3, 4, 4)
    write_picture(tree / "cat" / "extra.png", seed=77)
    zipped(tree, file)
    splits = image_folder(file)
    assert len(splits.train) + len(splits.test) == 11
    assert len(list((cache / "decoded").iterdir())) == 3


def test_a_picture_that_is_none_is_named(tree, tmp_path, cache):
    (tree / "cat" / "broken.png").write_bytes(b"<html>")
    with pytest.raises(ValueError, match=r"cat/broken\.png is not a picture"):
        image_folder(tree)
    with pytest.raises(ValueError, match=r"cat/broken\.png is not a picture"):
        image_folder(zipped(tree, tmp_path / "tree.zip"))
    assert not cache.exists()


def test_a_truncated_picture_is_named(tree):
    file = tree / "dog" / "4.png"
    file.write_bytes(file.read_bytes()[:150])
    with pytest.raises(ValueError, match=r"dog/4\.png is not a picture"):
        image_folder(tree)


def test_pictures_outside_class_folders_are_refused(tree):
    write_picture(tree / "loose.png")
    with pytest.raises(ValueError, match=r"loose\.png does not fit"):
        image_folder(tree)


def test_folders_too_deep_or_of_unknown_parts_are_refused(tmp_path):
    divided_tree(tmp_path / "t", ("train", "holdout"))
    with pytest.raises(ValueError, match="does not fit"):
        image_folder(tmp_path / "t")


def test_a_folder_without_pictures_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds no pictures; looked for \.png"):
        image_folder(tmp_path)


def test_a_path_to_nothing_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing at .*absent\.zip"):
        image_folder(tmp_path / "absent.zip")


def test_a_size_of_nothing_is_refused(tree):
    with pytest.raises(ValueError, match="size must be at least 1"):
        image_folder(tree, size=0)

import hashlib
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from picture_files import noise, tarred, write_picture, zipped
from torchvision import datasets as torchvision_datasets

from precode_lib.data import (
    CIFAR10,
    CIFAR100,
    MEDICAL_MNIST,
    MissingDataError,
    cifar10,
    cifar100,
    datasets,
    medical_mnist,
    paper_victims,
)

FINE = [f"fine{i:02}" for i in range(100)]


def _dump(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(pickle.dumps(content))
    return hashlib.md5(file.read_bytes()).hexdigest()


def _batch(count, num_classes, key, seed):
    rng = np.random.default_rng(seed)
    return {
        "data": rng.integers(0, 256, (count, 3072), np.uint8),
        key: [i % num_classes for i in range(count)],
    }


@pytest.fixture
def official10(tmp_path, monkeypatch):
    """A small CIFAR-10 in the official form, its checksums known to torchvision."""
    folder = tmp_path / "official" / "cifar-10-batches-py"
    reader = torchvision_datasets.CIFAR10
    names = [("data_batch_1", 30, 1), ("data_batch_2", 20, 2), ("test_batch", 10, 3)]
    lists = [
        [n, _dump(folder / n, _batch(count, 10, "labels", seed))]
        for n, count, seed in names
    ]
    meta = {"label_names": list(datasets.CIFAR10_CLASSES)}
    md5 = _dump(folder / "batches.meta", meta)
    monkeypatch.setattr(reader, "train_list", lists[:2])
    monkeypatch.setattr(reader, "test_list", lists[2:])
    monkeypatch.setattr(reader, "meta", reader.meta | {"md5": md5})
    return folder


@pytest.fixture
def official100(tmp_path, monkeypatch):
    folder = tmp_path / "official" / "cifar-100-python"
    reader = torchvision_datasets.CIFAR100
    train = _dump(folder / "train", _batch(200, 100, "fine_labels", 1))
    test = _dump(folder / "test", _batch(100, 100, "fine_labels", 2))
    md5 = _dump(folder / "meta", {"fine_label_names": FINE})
    monkeypatch.setattr(reader, "train_list", [["train", train]])
    monkeypatch.setattr(reader, "test_list", [["test", test]])
    monkeypatch.setattr(reader, "meta", reader.meta | {"md5": md5})
    return folder


@pytest.mark.parametrize("form", ["folder", "parent", "tar", "cached tar"])
def test_the_official_cifar10_is_read_as_torchvision_reads_it(
    form, official10, tmp_path, cache
):
    root = official10.parent
    cache.mkdir()
    path = {
        "folder": lambda: official10,
        "parent": lambda: root,
        "tar": lambda: tarred(root, tmp_path / "c.tar.gz"),
        "cached tar": lambda: tarred(root, cache / "cifar-10-python.tar.gz") and None,
    }[form]()
    splits = cifar10(path)
    for part in ("train", "test"):
        expected = torchvision_datasets.CIFAR10(root, train=part == "train")
        pictures = getattr(splits, part)
        stored = torch.from_numpy(expected.data).permute(0, 3, 1, 2)
        assert torch.equal(pictures.stored, stored)
        assert pictures.labels.tolist() == expected.targets
        assert list(pictures.classes) == expected.classes
        assert pictures.fidelity == "lossless"
        assert pictures.normalisation == CIFAR10
    assert repr(splits.test).startswith("Pictures(CIFAR-10 test: 10 of 3x32x32")


def test_the_official_archive_is_unpacked_once(
    official10, tmp_path, cache, monkeypatch
):
    file = tarred(official10.parent, tmp_path / "c.tar.gz")
    first = cifar10(file)
    monkeypatch.setattr(datasets, "_batches", None)
    assert torch.equal(cifar10(file).train.stored, first.train.stored)
    assert [p.suffix for p in (cache / "decoded").iterdir()] == [".npz"]


def test_the_official_cifar100_is_read_with_its_fine_labels(official100):
    splits = cifar100(official100)
    assert splits.train.classes == tuple(FINE)
    assert splits.train.labels.tolist() == [i % 100 for i in range(200)]
    assert (len(splits.train), len(splits.test)) == (200, 100)
    assert splits.test.normalisation == CIFAR100
    assert splits.test.name == "CIFAR-100 test"


class _Bomb:
    def __reduce__(self):
        return pytest.fail, ("the pickle was opened",)


@pytest.mark.parametrize("name", ["data_batch_2", "test_batch", "batches.meta"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_foreign_pickle_is_refused_before_it_is_opened(
    name, packed, official10, tmp_path, cache
):
    (official10 / name).write_bytes(pickle.dumps(_Bomb()))
    root = official10.parent
    path = tarred(root, tmp_path / "c.tar.gz") if packed else root
    with pytest.raises(ValueError, match="not the official ones"):
        cifar10(path)
    assert not cache.exists()


def picture_tree(folder, classes, size=32, grey=False):
    for part in ("train", "test"):
        for i, label in enumerate(classes):
            shape = (size, size) if grey else (size, size, 3)
            write_picture(folder / part / label / "0.jpg", seed=i, shape=shape)
    return folder


def test_a_zip_of_cifar_pictures_will_do_and_says_it_is_jpeg(tmp_path, cache):
    cache.mkdir()
    tree = picture_tree(tmp_path / "t", datasets.CIFAR10_CLASSES)
    zipped(tree, cache / "cifar10-images.zip")
    splits = cifar10()
    assert splits.train.classes == datasets.CIFAR10_CLASSES
    assert splits.train.fidelity == "JPEG q75"
    assert cifar10(fidelity="JPEG, twice").test.fidelity == "JPEG, twice"
    assert splits.train.normalisation == CIFAR10


def test_a_folder_of_cifar100_pictures_will_do(tmp_path):
    splits = cifar100(picture_tree(tmp_path / "t", FINE))
    assert splits.test.classes == tuple(FINE)


@pytest.mark.parametrize(
    ("classes", "size", "message"),
    [
        (("cat", "dog"), 32, r"2 classes from cat to dog .*\(3, 32, 32\)"),
        (datasets.CIFAR10_CLASSES, 16, r"10 classes .*\(3, 16, 16\)"),
        ((*datasets.CIFAR10_CLASSES[:9], "zebra"), 32, "airplane to zebra"),
    ],
)
def test_other_pictures_are_not_taken_for_cifar(classes, size, message, tmp_path):
    tree = picture_tree(tmp_path / "t", classes, size)
    with pytest.raises(ValueError, match=rf"is not CIFAR-10: .*{message}"):
        cifar10(tree)


@pytest.mark.parametrize("loader", [cifar10, cifar100, medical_mnist, paper_victims])
def test_absent_data_name_the_loader_to_call(loader):
    with pytest.raises(MissingDataError, match=rf"{loader.__name__}\(download=True\)"):
        loader()


def medical_repository(folder):
    root = folder / "Medical-MNIST-Classification-master"
    for label in datasets.MEDICAL_CLASSES:
        for i in range(5):
            file = root / "resized" / label / f"{i:06}.jpeg"
            write_picture(file, seed=i, shape=(64, 64))
    write_picture(root / "images" / "logo.png", shape=(7, 9, 3))
    return folder


@pytest.mark.parametrize("form", ["zip", "repository", "class folders"])
def test_medical_mnist_is_found_in_its_repository(form, tmp_path):
    folder = medical_repository(tmp_path / "m")
    path = {
        "zip": lambda: zipped(folder, tmp_path / "m.zip"),
        "repository": lambda: folder,
        "class folders": lambda: next(folder.glob("*/resized")),
    }[form]()
    splits = medical_mnist(path)
    assert splits.train.classes == datasets.MEDICAL_CLASSES
    assert (len(splits.train), len(splits.test)) == (24, 6)
    assert splits.test.labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert splits.train.image_shape == (1, 64, 64)
    assert splits.train.normalisation == MEDICAL_MNIST
    assert medical_mnist(path, size=32).train.image_shape == (1, 32, 32)


def test_the_seed_decides_who_tests_medical_mnist(tmp_path):
    folder = medical_repository(tmp_path / "m")
    stored = [medical_mnist(folder, seed=s).test.stored for s in (0, 0, 1)]
    assert torch.equal(stored[0], stored[1])
    assert not torch.equal(stored[0], stored[2])


def test_other_classes_are_not_taken_for_medical_mnist(tree):
    with pytest.raises(ValueError, match="is not Medical MNIST: .* got cat, dog"):
        medical_mnist(tree)


@pytest.fixture
def victim_file(tmp_path, monkeypatch):
    """Like the published file: 8-bit levels, normalised; with its checksum known."""
    levels = torch.from_numpy(noise(5, (20, 3, 32, 32)))
    content = {
        "images": CIFAR10.normalise(levels.float() / 255),
        "labels": torch.arange(20) % 10,
    }
    file = tmp_path / "128CIF_RECDATA.dict"
    torch.save(content, file)
    digest = f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
    source = replace(datasets.PAPER_SOURCE, known_hash=digest)
    monkeypatch.setattr(datasets, "PAPER_SOURCE", source)
    return file, levels, content


def test_the_papers_victims_come_back_as_exact_8_bit_levels(victim_file):
    file, levels, content = victim_file
    pictures = paper_victims(file)
    assert torch.equal(pictures.stored, levels)
    assert torch.equal(pictures.labels, content["labels"])
    torch.testing.assert_close(pictures.images, content["images"], rtol=0, atol=1e-6)
    assert pictures.classes[0] == "airplane"


def test_the_papers_victims_are_found_in_the_cache(victim_file, cache):
    cache.mkdir()
    victim_file[0].rename(cache / "128CIF_RECDATA.dict")
    assert len(paper_victims()) == 20


def test_another_file_is_not_taken_for_the_papers_victims(victim_file):
    file = victim_file[0]
    file.write_bytes(pickle.dumps(_Bomb()))
    with pytest.raises(ValueError, match="not the paper's victim file"):
        paper_victims(file)


def test_every_published_source_has_a_home_and_a_hash():
    sources = [v for v in vars(datasets).values() if isinstance(v, datasets.Source)]
    assert len(sources) == 4
    for source in sources:
        assert source.url.startswith("https://")
        assert hasattr(datasets, source.loader)
        if source is not datasets.MEDICAL_SOURCE:
            algorithm, digest = source.known_hash.split(":")
            assert (algorithm, len(digest)) == ("sha256", 64)


def test_the_cifar_homes_are_those_torchvision_knows():
    for source, reader in (
        (datasets.CIFAR10_SOURCE, torchvision_datasets.CIFAR10),
        (datasets.CIFAR100_SOURCE, torchvision_datasets.CIFAR100),
    ):
        assert source.url == reader.url
        assert source.files[0] == reader.filename
        assert source.files[1] == reader.base_folder

"""The published data sets of the paper: CIFAR-10, CIFAR-100, Medical MNIST, victims."""

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from precode_lib.data import archives, normalisation
from precode_lib.data.cache import Arrays, cached, sha256
from precode_lib.data.folders import cache_key, read_tree, splits_of
from precode_lib.data.pictures import Pictures, Splits
from precode_lib.data.sources import Source, locate

CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer",
    "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
MEDICAL_CLASSES = ("AbdomenCT", "BreastMRI", "CXR", "ChestCT", "Hand", "HeadCT")

_TORONTO = "https://www.cs.toronto.edu/~kriz"
CIFAR10_SOURCE = Source(
    title="CIFAR-10",
    loader="cifar10",
    files=("cifar-10-python.tar.gz", "cifar-10-batches-py", "cifar10-images.zip"),
    url=f"{_TORONTO}/cifar-10-python.tar.gz",
    known_hash="sha256:6d958be074577803d12ecdefd02955f3"
    "9262c83c16fe9348329d7fe0b5c001ce",
    size="163 MB",
)
CIFAR100_SOURCE = Source(
    title="CIFAR-100",
    loader="cifar100",
    files=("cifar-100-python.tar.gz", "cifar-100-python", "cifar100-images.zip"),
    url=f"{_TORONTO}/cifar-100-python.tar.gz",
    known_hash="sha256:85cd44d02ba6437773c5bbd22e183051"
    "d648de2e7d6b014e1ef29b855ba677a7",
    size="161 MB",
)
MEDICAL_SOURCE = Source(
    title="Medical MNIST",
    loader="medical_mnist",
    files=("Medical-MNIST-Classification-master.zip",),
    url="https://github.com/apolanco3225/Medical-MNIST-Classification"
    "/archive/refs/heads/master.zip",
    known_hash=None,  # GitHub packs the archive afresh; each entry has its own CRC
    size="about 90 MB",
)
PAPER_SOURCE = Source(
    title="The paper's set of 128 victims",
    loader="paper_victims",
    files=("128CIF_RECDATA.dict",),
    url="https://github.com/dAI-SY-Group/PRECODE/raw"
    "/c0a56cd6186010fdf270d0bc26b86194cc58566b/data/128CIF_RECDATA.dict",
    known_hash="sha256:e0084e720516af0853c0fd08923698f4"
    "428321abf68cbab21f6e50c7696db63e",
    size="1.6 MB",
)


def cifar10(
    path: str | Path | None = None,
    *,
    download: bool = False,
    fidelity: str | None = None,
) -> Splits:
    """Load CIFAR-10: 50,000 + 10,000 colour pictures of 32x32 in 10 classes.

    The path may be the official python archive, the folder in it, or a folder or
    archive of pictures as train/<class>/... and test/<class>/...
    """
    source = locate(CIFAR10_SOURCE, path, download=download)
    splits = _cifar("CIFAR10", source, lambda found: found == CIFAR10_CLASSES)
    fidelity = fidelity or splits.train.fidelity
    return splits.with_changes(normalisation=normalisation.CIFAR10, fidelity=fidelity)


def cifar100(
    path: str | Path | None = None,
    *,
    download: bool = False,
    fidelity: str | None = None,
) -> Splits:
    """Load CIFAR-100: 50,000 + 10,000 colour pictures of 32x32 in 100 fine classes.

    The path may be what `cifar10` accepts, of CIFAR-100.
    """
    source = locate(CIFAR100_SOURCE, path, download=download)
    splits = _cifar("CIFAR100", source, lambda found: len(found) == 100)
    fidelity = fidelity or splits.train.fidelity
    return splits.with_changes(normalisation=normalisation.CIFAR100, fidelity=fidelity)


def medical_mnist(
    path: str | Path | None = None,
    *,
    download: bool = False,
    size: int | None = None,
    test_fraction: float = 0.2,
    seed: int = 0,
) -> Splits:
    """Load Medical MNIST: 58,954 grey pictures of 64x64 in 6 classes, split by seed.

    The path may be the repository's zip, its folder, or the six class folders.
    """
    path = locate(MEDICAL_SOURCE, path, download=download)
    tree = read_tree(path, size=size, below="resized")
    splits = splits_of(
        tree, name="Medical MNIST", test_fraction=test_fraction, seed=seed
    )
    if splits.train.classes != MEDICAL_CLASSES:
        raise ValueError(
            f"{path} is not Medical MNIST: expected the classes "
            f"{', '.join(MEDICAL_CLASSES)}, got {', '.join(splits.train.classes)}."
        )
    return splits.with_changes(normalisation=normalisation.MEDICAL_MNIST)


def paper_victims(
    path: str | Path | None = None, *, download: bool = False
) -> Pictures:
    """Load the 128 CIFAR-10 victims of the PRECODE paper, in the file's own order."""
    path = locate(PAPER_SOURCE, path, download=download)
    # Checked before it is opened; weights_only keeps torch.load from running code.
    if f"sha256:{sha256(path)}" != PAPER_SOURCE.known_hash:
        raise ValueError(
            f"{path} is not the paper's victim file: its checksum should be "
            f"{PAPER_SOURCE.known_hash}."
        )
    content = torch.load(path, map_location="cpu", weights_only=True)
    levels = normalisation.CIFAR10.denormalise(content["images"].double()) * 255
    return Pictures(
        # The file holds 8-bit levels, normalised: rounding finds them again exactly.
        stored=levels.round().clamp(0, 255).to(torch.uint8),
        labels=content["labels"].long(),
        classes=CIFAR10_CLASSES,
        name="the paper's victims",
        normalisation=normalisation.CIFAR10,
    )


def _cifar(
    kind: str, path: Path, is_expected: Callable[[tuple[str, ...]], bool]
) -> Splits:
    tree = _official(kind, path) or read_tree(path)
    name = kind.replace("CIFAR", "CIFAR-")
    splits = splits_of(tree, name=name, test_fraction=1 / 6, seed=0)
    train = splits.train
    if not is_expected(train.classes) or train.image_shape != (3, 32, 32):
        raise ValueError(
            f"{path} is not {name}: it holds {train.num_classes} classes from "
            f"{train.classes[0]} to {train.classes[-1]} in pictures of "
            f"{train.image_shape}; image_folder() loads any."
        )
    return splits


def _official(kind: str, path: Path) -> Arrays | None:
    """Read the official python archive, or the folder in it; None if it is neither."""
    from torchvision import datasets

    reader = getattr(datasets, kind)
    folder = reader.base_folder
    if path.is_dir():
        root = path.parent if path.name == folder else path
        return _batches(reader, root) if (root / folder).is_dir() else None
    if not any(name.split("/")[0] == folder for name in archives.names(path)):
        return None

    def build() -> Arrays:
        with tempfile.TemporaryDirectory() as root:
            archives.unpack(path, lambda name: name.startswith(folder), Path(root))
            return _batches(reader, Path(root))

    return cached(cache_key(path, "official"), build)


def _batches(reader: Callable, root: Path) -> Arrays:
    """Train and test batches as one tree, in the official order.

    The batches are pickles, which can run code; torchvision opens none of them before
    it has compared its MD5 with the published one.
    """
    stored, names = [], []
    for part in ("train", "test"):
        try:
            with warnings.catch_warnings():
                # The pickles are of 2009 and spell a dtype as numpy no longer likes.
                warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
                batch = reader(root, train=part == "train", download=False)
        except RuntimeError as problem:
            raise ValueError(
                f"The CIFAR batches in {root} are not the official ones: a file is "
                "missing, damaged, or has another checksum than published."
            ) from problem
        stored.append(batch.data.transpose(0, 3, 1, 2))
        names += [f"{part}/{batch.classes[t]}/{i}" for i, t in enumerate(batch.targets)]
    return {
        "stored": np.concatenate(stored),
        "names": np.array(names),
        "fidelity": np.array("lossless"),
    }

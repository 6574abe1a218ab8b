"""Any folder or archive of pictures sorted into class folders."""

from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from precode_lib.basics.validation import check_count
from precode_lib.data import archives
from precode_lib.data.cache import Arrays, cached, sha256
from precode_lib.data.decoding import SUFFIXES, decode, fidelity_of
from precode_lib.data.normalisation import Normalisation
from precode_lib.data.pictures import Pictures, Splits, measure, split

_FORMAT = 1  # of the arrays in the cache; raise it when decoding changes


def image_folder(
    path: str | Path,
    *,
    size: int | None = None,
    test_fraction: float = 0.2,
    seed: int = 0,
    fidelity: str | None = None,
    normalisation: Normalisation | None = None,
    name: str | None = None,
) -> Splits:
    """Load a folder, zip or tar of pictures in class folders, grey or colour.

    `train/<class>/...` with `test/<class>/...` keeps that division (`val/` stands in
    where there is no `test/`); plain `<class>/...` is split at random with `seed`.
    All pictures need one size, or `size` scales the middle square of each. Archives are
    decoded once and then kept in the cache folder; folders are read anew every time.

    Args:
        fidelity: what happened to the pixels before; found out from the files if None
            ("lossless", "JPEG q75").
        normalisation: measured on the training pictures if None.
    """
    path = existing(path)
    name = name or path.stem.removesuffix(".tar")
    tree = read_tree(path, size=size)
    splits = splits_of(tree, name=name, test_fraction=test_fraction, seed=seed)
    if fidelity is not None:
        splits = splits.with_changes(fidelity=fidelity)
    return splits.with_changes(normalisation=normalisation or measure(splits.train))


def existing(path: str | Path) -> Path:
    """The path, with ~ expanded, if there is something."""
    found = Path(path).expanduser()
    if not found.exists():
        raise FileNotFoundError(f"There is nothing at {found.absolute()}.")
    return found


def read_tree(path: Path, *, size: int | None = None, below: str = "") -> Arrays:
    """Decode all pictures: stored (N, C, H, W) uint8, names (N,), fidelity ().

    With `below`, only those in a folder of that name count, if there is one.
    """
    if size is not None:
        check_count(size, "size")

    def build() -> Arrays:
        return _decode_all(path, _wanted(path, below), size)

    return build() if path.is_dir() else cached(cache_key(path, below, size), build)


def cache_key(path: Path, *options: object) -> str:
    """A name for what is decoded from this file, with these options, by this code."""
    return "-".join(map(str, (path.stem, sha256(path)[:16], *options, _FORMAT)))


def splits_of(tree: Arrays, *, name: str, test_fraction: float, seed: int) -> Splits:
    """Turn decoded pictures and their names into train and test sets."""
    parts, class_names = _layout([str(n) for n in tree["names"]])
    classes = tuple(sorted(set(class_names)))
    number = {c: i for i, c in enumerate(classes)}
    everything = Pictures(
        stored=torch.from_numpy(tree["stored"]),
        labels=torch.tensor([number[c] for c in class_names]),
        classes=classes,
        name=name,
        fidelity=str(tree["fidelity"]),
    )
    if parts is None:
        splits = split(everything, test_fraction=test_fraction, seed=seed)
    else:
        splits = _divided(everything, np.array(parts))
    return splits.named(name)


def _divided(everything: Pictures, parts: np.ndarray) -> Splits:
    held_out = "test" if "test" in parts else "val"
    return Splits(
        everything[torch.from_numpy(parts == "train")],
        everything[torch.from_numpy(parts == held_out)],
    )


def _wanted(path: Path, below: str) -> Callable[[str], bool]:
    inside = bool(below) and any(below in n.split("/") for n in archives.names(path))

    def is_wanted(name: str) -> bool:
        parts = PurePosixPath(name).parts
        hidden = any(p.startswith((".", "__MACOSX")) for p in parts)
        is_picture = name.lower().endswith(SUFFIXES) and not hidden
        return is_picture and (not inside or below in parts)

    return is_wanted


def _decode_all(path: Path, wanted: Callable[[str], bool], size: int | None) -> Arrays:
    decoded, codings = {}, set()
    for name, content in archives.entries(path, wanted):
        decoded[name], coding = decode(content, name, size=size)
        codings.add(coding)
    if not decoded:
        raise ValueError(
            f"{path} holds no pictures; looked for {', '.join(SUFFIXES)} in it."
        )
    names = sorted(decoded)
    return {
        "stored": stacked([decoded.pop(n) for n in names], names),
        "names": np.array(names),
        "fidelity": np.array(fidelity_of(codings)),
    }


def stacked(arrays: list[np.ndarray], names: Sequence[str]) -> np.ndarray:
    """(N, 1, H, W) if all are grey, else (N, 3, H, W)."""
    height, width = arrays[0].shape[:2]
    for name, array in zip(names, arrays, strict=True):
        if array.shape[:2] != (height, width):
            raise ValueError(
                f"pictures must share one size, but {names[0]} is {width}x{height} and "
                f"{name} is {array.shape[1]}x{array.shape[0]}; size=32 scales all."
            )
    channels = 3 if any(a.ndim == 3 for a in arrays) else 1
    stored = np.empty((len(arrays), channels, height, width), np.uint8)
    for row, array in zip(stored, arrays, strict=True):
        row[:] = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    return stored


def _layout(names: Sequence[str]) -> tuple[list[str] | None, list[str]]:
    """Each picture's part (None: no division given) and class, read off its path."""
    rows = [name.split("/") for name in names]
    while min(map(len, rows)) > 2 and len({row[0] for row in rows}) == 1:
        rows = [row[1:] for row in rows]  # a folder around everything
    depths = {len(row) for row in rows}
    if depths == {2}:
        return None, [row[0] for row in rows]
    parts = {row[0] for row in rows}
    if depths == {3} and "train" in parts and parts <= {"train", "test", "val"}:
        return [row[0] for row in rows], [row[1] for row in rows]
    shallow = min(range(len(rows)), key=lambda i: len(rows[i]))
    raise ValueError(
        "pictures must lie in <class>/ folders, or in train/<class>/ and test/<class>/ "
        f"(or val/<class>/); {names[shallow]} does not fit that."
    )

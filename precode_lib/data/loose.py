"""A folder of pictures as somebody happens to have it: in class folders, or loose."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from precode_lib.basics.validation import check_count
from precode_lib.data import archives
from precode_lib.data.decoding import SUFFIXES, decode, fidelity_of
from precode_lib.data.folders import existing, stacked
from precode_lib.data.pictures import Pictures


@dataclass(frozen=True)
class Loose:
    """Pictures of a folder.

    Args:
        pictures: all of class 0 where they lie in no class folders.
        is_labelled: whether they do.
        notes: what a reader should know of them, a sentence each.
    """

    pictures: Pictures
    is_labelled: bool
    notes: tuple[str, ...] = ()


def loose_pictures(
    path: str | Path, *, size: int | None = None, most: int = 200
) -> Loose:
    """The first pictures of a folder or archive, whatever lies between them.

    A picture's class is the folder it lies in. Files that are no pictures, or damaged
    ones, are left out and counted.

    Args:
        size: scales the middle square of each; without one, all must be of one size.
        most: of the pictures that are read, evenly from all classes.
    """
    check_count(most, "most")
    path = existing(path)
    if path.is_file() and path.suffix.lower() in SUFFIXES:
        raise ValueError(f"{path} is one picture; a folder of pictures is wanted.")
    chosen = _chosen(path, most)
    arrays, codings, broken = {}, set(), []
    for name, content in archives.entries(path, chosen.__contains__):
        try:
            arrays[name], coding = decode(content, name, size=size)
        except ValueError:
            broken.append(name)
            continue
        codings.add(coding)
    if not arrays:
        what = f"{len(broken)} damaged ones" if broken else "none"
        raise ValueError(
            f"{path} holds no picture that can be read ({what}); looked for "
            f"{', '.join(SUFFIXES)} in it."
        )
    names = [name for name in chosen if name in arrays]
    notes = []
    if broken:
        notes.append(
            f"{len(broken)} of {len(chosen)} files are damaged or no pictures and were "
            f"left out, such as {broken[0]}."
        )
    pictures, is_labelled = _pictures(path, names, arrays, fidelity_of(codings))
    return Loose(pictures, is_labelled, tuple(notes))


def _chosen(path: Path, most: int) -> list[str]:
    """Names of pictures, class by class in turn, at most so many."""
    by_class: dict[str, list[str]] = {}
    for name in sorted(archives.names(path)):
        parts = PurePosixPath(name).parts
        hidden = any(part.startswith((".", "__MACOSX")) for part in parts)
        if name.lower().endswith(SUFFIXES) and not hidden:
            by_class.setdefault(_class_of(name), []).append(name)
    return _in_turn(list(by_class.values()))[:most]


def _in_turn(groups: list[list[str]]) -> list[str]:
    """The first of every group, then the second of every group, and so on."""
    longest = max(map(len, groups), default=0)
    return [group[i] for i in range(longest) for group in groups if i < len(group)]


def _class_of(name: str) -> str:
    parts = PurePosixPath(name).parts
    return parts[-2] if len(parts) > 1 else ""


def _pictures(
    path: Path, names: list[str], arrays: dict[str, np.ndarray], fidelity: str
) -> tuple[Pictures, bool]:
    """The pictures, and whether each lies in a class folder of several."""
    classes = sorted({_class_of(name) for name in names})
    is_labelled = len(classes) > 1 and "" not in classes
    number = {name: i for i, name in enumerate(classes)}
    labels = [number[_class_of(n)] if is_labelled else 0 for n in names]
    pictures = Pictures(
        stored=torch.from_numpy(stacked([arrays[n] for n in names], names)),
        labels=torch.tensor(labels),
        classes=tuple(classes) if is_labelled else ("unknown",),
        name=path.stem,
        fidelity=fidelity,
    )
    return pictures, is_labelled
